"""The search for better parameters of 03_train: trials that Optuna chooses, scored by cross-validation."""

from kitlib.stages.search.space import read
from kitlib.stages.search.study import Base, search

__all__ = ["Base", "read", "search"]
