"""Tuning of post-processing on validation frames, and its cross-validated score."""
