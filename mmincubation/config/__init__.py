"""Config files: loaded, checked, and what is wrong with them in one list."""
