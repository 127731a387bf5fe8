"""The demo of the package: its data and its runs."""
