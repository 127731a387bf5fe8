"""Data sets: classification data in the layouts people have, and the embedded demo data."""
