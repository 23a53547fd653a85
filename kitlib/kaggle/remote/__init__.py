"""Kaggle itself, through its official client: downloads, pushes, submissions."""
