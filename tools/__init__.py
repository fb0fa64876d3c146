"""Commands for those who develop the program: no job needs them."""
