"""The machine that a run uses, and the processes on it: GPUs, drivers, threads, signs of life, locks."""
