"""The six notebooks as stages of a run: profiles, running, resuming, and what notebooks call."""

from kitlib.stages.notebooks import STAGES, resolve
from kitlib.stages.profiles import Plan, plan
from kitlib.stages.runner import run
from kitlib.stages.stage import Stage, begin

__all__ = ["STAGES", "Plan", "Stage", "begin", "plan", "resolve", "run"]
