"""What may be wrong on Kaggle's machine. Under each fault the bundle's notebook is run in a tree that has it:
either it leaves a valid submission, or it ends with one sentence that says what is wrong.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kitlib import files, offline
from kitlib.kaggle.bundle import Bundle
from kitlib.kaggle.rehearsal import hidden, sandbox
from kitlib.kaggle.rehearsal.execution import Conditions, execute, read_rows
from kitlib.kaggle.rehearsal.hidden import Tree
from kitlib.kaggle.rehearsal.sandbox import Sandbox
from kitlib.submission import writer

#: The folder of the executed notebooks, in the bundle's.
EXECUTED = "faults"
_QUIET = Conditions(quiet=True)


@dataclass(frozen=True)
class Fault:
    """Something that is wrong on Kaggle's machine.

    Attributes:
        name: what is wrong, in words.
        spoil: brings it about in a tree, before the notebook runs.
        refusal: words of the sentence with which the notebook ends; empty: it leaves a valid submission.
        images: number of hidden test images.
        conditions: of the notebook's run.
    """

    name: str
    spoil: Callable[[Tree], object] = lambda tree: None
    refusal: str = ""
    images: int = 3
    conditions: Conditions = _QUIET


@dataclass(frozen=True)
class Outcome:
    """How the notebook ended under a fault.

    Attributes:
        fault: its name.
        as_expected: whether it ended as it should.
        result: what it left, or the sentence with which it ended.
        seconds: from the notebook's start to its end.
        peak_bytes: the most memory that all its processes used together.
    """

    fault: str
    as_expected: bool
    result: str
    seconds: float
    peak_bytes: int

    def line(self) -> str:
        mark = "as it should" if self.as_expected else "NOT as it should"
        memory = f"{self.peak_bytes / 2**30:.1f} GiB"
        return f"{self.fault}: {mark}, {self.seconds:.0f} s, {memory}: {self.result}"


def faults_for(bundle: Bundle) -> list[Fault]:
    """The faults to run a bundle's notebook under; an ensemble may also lose one of its members."""
    weights = sorted(path.name for path in bundle.dataset.glob("*.pth"))
    found = [
        Fault("an image that is cut short", _cut_image),
        Fault("an image of another size", partial(_draw, sizes=[(70, 50)])),
        Fault("images of one pixel", partial(_draw, sizes=[(1, 1)] * 3)),
        Fault("images of extreme shapes", partial(_draw, sizes=[(1, 4000), (4000, 1), (2, 9000)])),
        Fault("no test images", _remove_images, "holds no images"),
        Fault("60 images and half a minute", images=60, conditions=Conditions(hours=1 / 120, quiet=True)),
        Fault("all weights damaged", partial(_damage, names=weights), "not as it was bundled"),
        Fault("a wheel is missing", partial(_remove, pattern="detectron2-*.whl"), "is missing"),
        Fault("config.yaml is missing", partial(_remove, pattern="config.yaml")),
        Fault("post.yaml is changed", partial(_damage, names=["post.yaml"])),
        Fault(
            "post.yaml and its copy are changed",
            partial(_damage, names=["post.yaml", f"{offline.COPY}post.yaml"]),
            "nor is its copy whole",
        ),
        Fault(
            "2 GiB of memory",
            refusal="not enough memory",
            conditions=Conditions(memory_bytes=2 << 30, quiet=True),
        ),
        Fault("the competition under another name", _rename_competition),
        Fault("the competition is not attached", _detach_competition, "is not attached"),
        Fault(
            "its own folder cannot be written to",
            refusal="cannot write",
            conditions=Conditions(read_only=True, quiet=True),
        ),
    ]
    member = Fault("one of the ensemble's weights damaged", partial(_damage, names=weights[:1]))
    return [*found, member] if len(weights) > 1 else found


# -------------------------------------------------------------------------------- what is spoilt


def _images(tree: Tree) -> list[Path]:
    return sorted((tree.competition / "test").iterdir())


def _replace(path: Path, data: bytes) -> None:
    """Other contents for a file; what it may be linked to is left alone."""
    path.unlink()
    path.write_bytes(data)


def _cut_image(tree: Tree) -> None:
    path = _images(tree)[0]
    _replace(path, path.read_bytes()[:200])


def _draw(tree: Tree, sizes: Iterable[tuple[int, int]]) -> None:
    """Grey noise of these heights and widths in the place of the first images."""
    rng = np.random.default_rng(0)
    for path, size in zip(_images(tree), sizes, strict=False):
        path.unlink()
        Image.fromarray(rng.integers(90, 160, size, dtype=np.uint8)).save(path)


def _remove_images(tree: Tree) -> None:
    for path in _images(tree):
        path.unlink()


def _damage(tree: Tree, names: Iterable[str]) -> None:
    for name in names:
        _replace(tree.dataset / name, b"damaged")


def _remove(tree: Tree, pattern: str) -> None:
    for path in tree.dataset.glob(pattern):
        path.unlink()


def _rename_competition(tree: Tree) -> None:
    tree.competition.rename(tree.competition.with_name("my-cells"))


def _detach_competition(tree: Tree) -> None:
    shutil.rmtree(tree.competition)


# -------------------------------------------------------------------------------- running


def run_all(
    box: Sandbox,
    bundle: Bundle,
    pictures: Sequence[Path],
    folder: Path,
    namespace: bool,
    say: Callable[[str], None],
    chosen: Sequence[Fault] | None = None,
) -> list[Outcome]:
    """Run a bundle's notebook under faults, one after the other.

    Args:
        box: the environment to run it in.
        bundle: of a run; executed notebooks lie in its folder ``faults``.
        pictures: become the test images.
        folder: takes a tree at a time.
        namespace: whether the system gives a network namespace; see ``close_network``.
        say: prints a line for each.
        chosen: the faults; None: those of ``faults_for``.
    """
    outcomes = []
    for number, fault in enumerate(faults_for(bundle) if chosen is None else chosen, 1):
        if fault.conditions.read_only and not namespace and os.geteuid() == 0:
            say(f"{fault.name}: not tried, since root may write everywhere")
            continue
        sandbox.reset(box)
        tree = hidden.make(folder / f"fault-{number}" / "kaggle", "new", bundle, pictures, fault.images)
        hidden.unseal(tree.inputs)
        executed = files.make_folder(bundle.folder / EXECUTED) / f"{fault.name.replace(' ', '-')}.ipynb"
        outcomes.append(_run(box, bundle, tree, fault, executed, namespace))
        say(outcomes[-1].line())
        hidden.unseal(tree.root)
        shutil.rmtree(tree.root.parent)
    return outcomes


def _run(box: Sandbox, bundle: Bundle, tree: Tree, fault: Fault, executed: Path, namespace: bool) -> Outcome:
    """Spoil the tree, run the notebook, and say how it ended."""
    asked = list(offline.asked_ids(tree.competition))
    fault.spoil(tree)
    if fault.conditions.read_only:
        tree.working.chmod(0o555)
    ended, peak = execute(box, tree, bundle.notebook, executed, namespace, fault.conditions)
    left = tree.working / "submission.csv"
    if ended["error"]:
        sentence = ended["error"]["text"].strip()
        right = bool(fault.refusal) and fault.refusal in sentence and "\n" not in sentence
        result = f"error: {sentence.replace(str(tree.root), '/kaggle')}"
        # Before the notebook ends in this way, it may write the submission without cells.
        if left.is_file() and read_rows(left) != [[name, ""] for name in asked]:
            right, result = False, f"{result} (but submission.csv is not the one without cells)"
    else:
        result = _described(left, tree)
        right = not fault.refusal and result.startswith("valid")
    return Outcome(fault.name, right, result, ended["seconds"], peak)


def _described(path: Path, tree: Tree) -> str:
    """What a notebook left that ended without an error."""
    (sample,) = tree.inputs.rglob(offline.SAMPLE)
    problems = writer.check(path, sample.parent) if path.is_file() else ["there is none"]
    if problems:
        return f"submission.csv is not valid: {problems[0]}"
    metrics: dict[str, Any] = files.read_json(tree.working / "metrics.json")
    skipped, models = metrics["skipped"], len(metrics["weights"])
    without = f", {len(skipped)} of them without cells" if skipped else ""
    return f"valid submission: {metrics['images']} images{without}, {models} models"
