"""What a run would take, told before it begins: ``kit plan``, and ``--dry-run`` of a run."""

from kitlib.stages.dry_run.forecast import forecast
from kitlib.stages.dry_run.page import text, write

__all__ = ["forecast", "text", "write"]
