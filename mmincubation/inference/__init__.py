"""A trained model in use: predictions for images and folders, and a checkpoint as it is published."""
