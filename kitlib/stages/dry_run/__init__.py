"""What a run would take, told before it begins: ``kit plan``, and ``--dry-run`` of a run."""

from kitlib.stages.dry_run.page import text, write
from kitlib.stages.dry_run.run import forecast

__all__ = ["forecast", "text", "write"]
