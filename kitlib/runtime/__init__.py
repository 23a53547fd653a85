"""The machine that a run uses: its GPUs, their driver, and the lock on a run's folder. No torch at import."""
