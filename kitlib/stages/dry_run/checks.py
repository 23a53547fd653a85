"""What a run finds before its first stage, collected: all of it, not the first fault alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from kitlib.errors import KitError
from kitlib.forecast import cards
from kitlib.runtime import environment, gpus, launch, machine
from kitlib.stages import runner
from kitlib.stages.dry_run.result import Check
from kitlib.stages.profiles import Plan


def software() -> Check:
    """The packages, with the versions of those that compute."""
    # This very code is there, whether it was installed or not.
    lacking = [name for name in environment.missing() if name != "kitlib"]
    if lacking:
        return Check("packages", f"{', '.join(lacking)} missing; run ./run_all.sh setup", fine=False)
    found = machine.describe()
    names = ("Python", "kitlib", "torch", "torchvision", "detectron2")
    return Check("packages", ", ".join(f"{name} {found[name]}" for name in names if name in found))


def device(plan: Plan, stages: Sequence[str], card: str) -> Check:
    """The GPUs of this host for a run, or those of a card's name, with driver and mixed precision."""
    found = gpus.survey()
    if card:
        chosen = max(max(plan.parameters[s].get("gpus", 0) for s in stages), 1)
        gpu = gpus.Gpu(card, cards.named(card).capability)
        found = gpus.Survey(torch=found.torch, cuda="any", count=chosen, gpus=(gpu,) * chosen)
    said = f"{found.count} x {found.gpus[0].name}" if found.gpus else f"no GPU: {gpus.explain(found)}"
    if found.driver:
        said += f", driver {found.driver}"
    return _passes(
        "GPUs", lambda: runner.check_machine(plan, stages, found), said + (" (not here)" if card else "")
    )


def earlier(plan: Plan, out: Path, stages: Sequence[str]) -> Check:
    """What the stages read of earlier ones."""
    return _passes(
        "earlier stages", lambda: runner.check_earlier(plan, out, stages), f"none missing in {out}"
    )


def disk(out: Path, needed_gb: float) -> Check:
    """Room for the results."""
    there = next(folder for folder in (out, *out.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free / 1e9
    said = f"{free:,.0f} GB free in {there}, {needed_gb:,.1f} GB needed"
    if free < needed_gb:
        return Check("disk", f"{said}; free some, or give --out on another disk", fine=False)
    return Check("disk", said)


def memory(needed_gib: float, elsewhere: bool) -> Check:
    """The host's memory; where the run is to be on another machine, what that has to have."""
    if elsewhere:
        return Check("host memory", f"{needed_gib:.0f} GiB needed at most, on one machine")
    there = machine.memory_gib()
    said = f"{there:.0f} GiB here, {needed_gib:.0f} GiB needed at most"
    return Check("host memory", f"{said}; lower workers" if needed_gib > there else said, needed_gib <= there)


def shared_memory(gpu_count: int) -> Check:
    """What several GPUs exchange gradients through. Images do not pass through it."""
    short = launch.lacks_shared_memory(gpu_count)
    return Check("shared memory", short or "enough for what GPUs exchange; images go through pipes")


def _passes(name: str, check: Callable[[], None], said: str) -> Check:
    try:
        check()
    except KitError as error:
        return Check(name, str(error), fine=False)
    return Check(name, said)
