"""A bundle's notebook, run here as on Kaggle."""
