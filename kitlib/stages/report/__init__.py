"""What runs left, for people: the report of a run, the list of runs, their comparison, notebooks as HTML."""
