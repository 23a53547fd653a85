"""From instances to a submission: thresholds, overlap, tuning, the submission's writer and checker."""
