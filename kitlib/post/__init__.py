"""From instances to final cells: scores, thresholds, overlap, calibration, and their tuning."""
