"""Five programs. Each is one file, read top to bottom as a recipe; no job imports another."""
