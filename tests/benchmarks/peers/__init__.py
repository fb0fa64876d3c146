"""Other people's programs for the same task, each as a script in a process of its own."""
