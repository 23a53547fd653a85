"""Kaggle: its notebook image, the bundle of a submission, its rehearsal, and the official client."""
