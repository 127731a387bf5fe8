"""How fast and how large training steps are, measured."""
