"""The embedded demo: its data and its runs."""
