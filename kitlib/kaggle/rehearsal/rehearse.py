"""Run a bundle's notebook as on Kaggle: the image's packages, its folders, no network, a hidden test set."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kitlib import files
from kitlib.data import competition
from kitlib.errors import KitError
from kitlib.kaggle import bundle as bundles
from kitlib.kaggle.bundle import Bundle
from kitlib.kaggle.rehearsal import faults, hidden, report, sandbox
from kitlib.kaggle.rehearsal.execution import Conditions, close_network, execute, read_rows
from kitlib.kaggle.rehearsal.hidden import LAYOUTS, Tree
from kitlib.kaggle.rehearsal.report import Played
from kitlib.kaggle.rehearsal.sandbox import Sandbox
from kitlib.submission import writer


def rehearse(
    run: Path,
    layouts: Sequence[str] = LAYOUTS,
    images: int = 8,
    python: str = "",
    hours: float | None = None,
    with_faults: bool = False,
    say: Callable[[str], None] = print,
) -> list[Played]:
    """Run the bundle of ``run`` in each layout; the report goes to ``run``/kaggle/rehearsal.json.

    Args:
        run: the run's folder, which holds a bundle.
        layouts: of ``/kaggle/input``: "old", "new" or both.
        images: number of hidden test images.
        python: an interpreter whose packages stand for the image's; empty: the one that runs this.
        hours: the notebook's time limit; None: as in its parameters.
        with_faults: also run it under each fault of ``faults.faults_for``.
        say: prints a line of progress.

    Raises:
        KitError: there is no bundle, the notebook failed, its submission is not valid, or a fault does not
            end as it should.
    """
    if images < 1:
        raise KitError(f"--images {images}: at least one test image is needed")
    try:
        return _rehearse(bundles.load(run), layouts, images, python, hours, with_faults, say)
    except OSError as error:
        raise files.cannot_write(error.filename or tempfile.gettempdir(), error) from error


def _rehearse(
    bundle: Bundle,
    layouts: Sequence[str],
    images: int,
    python: str,
    hours: float | None,
    with_faults: bool,
    say: Callable[[str], None],
) -> list[Played]:
    folder = bundle.folder
    files.write_json(folder / "rehearsal.json", {"passed": False})
    with scratch() as temporary:
        say("making an environment with only what a Kaggle image has")
        box = sandbox.make(temporary / "environment", python)
        found = report.versions(box.python_version, box.versions)
        say(report.versions_line(found))
        if box.stand_ins:
            say(f"not on the image, but needed by the versions here: {', '.join(box.stand_ins)}")
        namespace = close_network(box)
        pictures = hidden.pictures(bundle.run, temporary / "synthetic")
        played = []
        for layout in layouts:
            sandbox.reset(box)
            root = temporary / layout / "kaggle"
            tree = hidden.make(root, layout, bundle, pictures, images)
            say(f"layout {layout}: running {bundle.code_file} on {images} hidden images")
            executed = folder / f"rehearsal_{layout}.ipynb"
            played.append(_play(box, tree, bundle.notebook, executed, layout, namespace, hours))
            say("\n".join(played[-1].lines()))
        outcomes = faults.run_all(box, bundle, pictures, temporary, namespace, say) if with_faults else []
    wrong = [one for one in outcomes if not one.as_expected]
    values = {"passed": not wrong, "versions": found, "stand_ins": list(box.stand_ins)}
    values |= {"layouts": [one.values() for one in played], "faults": [vars(one) for one in outcomes]}
    files.write_json(folder / "rehearsal.json", values)
    if wrong:
        raise KitError(f"{wrong[0].fault}: {wrong[0].result}; see {folder / faults.EXECUTED}")
    return played


def _play(
    box: Sandbox,
    tree: Tree,
    kernel: Path,
    executed: Path,
    layout: str,
    namespace: bool,
    hours: float | None = None,
) -> Played:
    """Run the notebook in a tree, and check its submission.

    Args:
        box: the environment to run it in.
        tree: stands for ``/kaggle``.
        kernel: the notebook.
        executed: where the notebook with its outputs is written.
        layout: of the tree, for the report.
        namespace: whether the system gives a network namespace; see ``close_network``.
        hours: the notebook's time limit; None: as in its parameters.

    Raises:
        KitError: the notebook failed, or its submission is not valid.
    """
    ended, peak = execute(box, tree, kernel, executed, namespace, Conditions(hours))
    path = tree.working / "submission.csv"
    problems = writer.check(path, tree.competition) if path.is_file() else ["there is none"]
    state = f"submission.csv is not valid: {problems[0]}" if problems else "it left a valid submission.csv"
    if ended["error"]:
        name, text = ended["error"]["name"], ended["error"]["text"].strip().splitlines() or [""]
        raise KitError(f"layout {layout}: the notebook failed: {name}: {text[-1]} ({state}; see {executed})")
    if problems:
        raise KitError(f"layout {layout}: {state} ({len(problems)} problems in all; see {executed})")
    ids = [frame.id for frame in competition.test(tree.competition)]
    rows = read_rows(path)
    return Played(
        layout=layout,
        images=len(ids),
        seconds=ended["seconds"],
        seconds_per_image=_own_clock(tree.working) or ended["seconds"] / len(ids),
        peak_bytes=peak,
        rows=len(rows),
        bare=len({name for name, text in rows if not text.strip()}),
        network=ended["network"],
        proof=ended["proof"],
        inputs=ended["inputs"],
    )


def _own_clock(working: Path) -> float | None:
    """Seconds an image by the notebook's own clock, from its metrics.json; None where that has none."""
    path = working / "metrics.json"
    found = files.read_json(path) if path.is_file() else {}
    return found.get("seconds", {}).get("an image") or None


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder that is removed at the end, also after an error or SIGTERM."""
    temporary = Path(tempfile.mkdtemp(prefix="kit-rehearsal-"))
    try:
        with _terminated_is_interrupted():
            yield temporary
    finally:
        hidden.unseal(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may handle signals.
        yield
        return
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
