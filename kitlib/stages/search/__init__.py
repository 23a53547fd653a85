"""The search for better parameters of 03_train: trials that Optuna chooses, scored by cross-validation."""
