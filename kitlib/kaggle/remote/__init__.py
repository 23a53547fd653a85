"""Kaggle itself, through its official client: download, push, submit."""
