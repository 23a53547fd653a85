"""What a run would take, told before it begins: ``kit plan``, and ``--dry-run`` of a run."""
