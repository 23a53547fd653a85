"""``submission.csv``: the writer, and the checker that finds all that Kaggle would reject."""
