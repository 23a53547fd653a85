"""The bundle of a run, run here as Kaggle would run it."""
