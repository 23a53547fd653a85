"""Run a bundle's notebook as on Kaggle: the image's packages, its folders, no network, a hidden test set."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kitlib import files
from kitlib.data import competition, tables
from kitlib.errors import KitError
from kitlib.kaggle import bundle as bundles
from kitlib.kaggle.bundle import Bundle
from kitlib.kaggle.rehearsal import hidden, processes, report, sandbox
from kitlib.kaggle.rehearsal.hidden import LAYOUTS, Tree
from kitlib.kaggle.rehearsal.report import Played
from kitlib.kaggle.rehearsal.sandbox import Sandbox
from kitlib.submission import writer

RUNNER = Path(__file__).with_name("offline_run.py")
_REFUSING = Path(__file__).with_name("no_network.py")
#: Beginnings of the environment variables that the notebook gets: no token, no setting of pip, no path.
_PASSED = ("LANG", "LC_", "TZ", "OMP_", "GOMP_", "MKL_", "CUDA_", "NVIDIA_", "LD_LIBRARY_PATH")


def rehearse(
    run: Path,
    layouts: Sequence[str] = LAYOUTS,
    images: int = 8,
    python: str = "",
    hours: float | None = None,
    say: Callable[[str], None] = print,
) -> list[Played]:
    """Run the bundle of ``run`` in each layout; the report goes to ``run``/kaggle/rehearsal.json.

    Args:
        run: the run's folder, which holds a bundle.
        layouts: of ``/kaggle/input``: "old", "new" or both.
        images: number of hidden test images.
        python: an interpreter whose packages stand for the image's; empty: the one that runs this.
        hours: the notebook's time limit; None: as in its parameters.
        say: prints a line of progress.

    Raises:
        KitError: there is no bundle, the notebook failed, or its submission is not valid.
    """
    if images < 1:
        raise KitError(f"--images {images}: at least one test image is needed")
    try:
        return _rehearse(bundles.load(run), layouts, images, python, hours, say)
    except OSError as error:
        raise files.cannot_write(error.filename or tempfile.gettempdir(), error) from error


def _rehearse(
    bundle: Bundle,
    layouts: Sequence[str],
    images: int,
    python: str,
    hours: float | None,
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
    values = {"passed": True, "versions": found, "stand_ins": list(box.stand_ins)}
    files.write_json(folder / "rehearsal.json", {**values, "layouts": [one.values() for one in played]})
    return played


def close_network(box: Sandbox) -> bool:
    """Whether the system gives a network namespace; where not, the environment is made to refuse sockets."""
    probe = [str(box.python), "-I", str(RUNNER), "--probe"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return True
    place = sandbox.site_packages(box.python)
    shutil.copyfile(_REFUSING, place / "kit_no_network.py")
    (place / "kit_no_network.pth").write_text("import kit_no_network\n")
    return False


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
    ended, peak = execute(box, tree, kernel, executed, namespace, hours)
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


def execute(
    box: Sandbox, tree: Tree, kernel: Path, executed: Path, namespace: bool, hours: float | None = None
) -> tuple[dict[str, Any], int]:
    """Run the notebook without a network; see ``_play`` for the arguments.

    Returns:
        How it ended, as ``offline_run`` writes it, and the peak memory of its processes in bytes.

    Raises:
        KitError: the notebook could not be started, or its process died.
    """
    beside = tree.root.parent
    result, copy = beside / "result.json", beside / "executed.ipynb"
    job = {
        "notebook": str(kernel.resolve()),
        "executed": str(copy),
        "working": str(tree.working),
        "parameters": {} if hours is None else {**injected(kernel), "hours": hours},
        "read_only": [str(tree.inputs), *map(str, box.sources)],
        "namespace": namespace,
        "result": str(result),
    }
    files.write_json(beside / "job.json", job)
    command = [str(box.python), "-I", str(RUNNER), str(beside / "job.json")]
    process = subprocess.Popen(
        command, cwd=tree.working, env=kernel_environment(box, tree, os.environ), stdin=subprocess.DEVNULL
    )
    peak = processes.watch(process)
    if copy.is_file():
        with files.atomic(executed) as temporary:
            shutil.copyfile(copy, temporary)
    if not result.is_file():
        raise KitError(
            f"the rehearsal's process ended with status {process.returncode} before the notebook did; the "
            "reason is above"
        )
    return files.read_json(result), peak


def kernel_environment(box: Sandbox, tree: Tree, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables with which the notebook runs.

    Args:
        box: the environment that it runs in.
        tree: stands for ``/kaggle``.
        environment: of this process; variables of ``_PASSED`` are taken over.
    """
    beside = tree.root.parent
    own = str(Path(sys.prefix, "bin"))
    paths = [part for part in environment.get("PATH", os.defpath).split(os.pathsep) if part != own]
    return {
        **{name: value for name, value in environment.items() if name.startswith(_PASSED)},
        "PATH": os.pathsep.join([str(box.python.parent), *paths]),
        # Without the user's caches, settings and keys.
        "HOME": str(files.make_folder(beside.parent / "home")),
        "TMPDIR": str(files.make_folder(beside / "tmp")),
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHONNOUSERSITE": "1",
        # Otherwise the kernel's debugger prints a warning.
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "KIT_KAGGLE": str(tree.root),
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
    }


def injected(kernel: Path) -> dict[str, Any]:
    """The parameters in the notebook's injected cell; papermill replaces this cell by a new one."""
    notebook = files.read_json(kernel)
    cells = [c for c in notebook["cells"] if "injected-parameters" in c["metadata"].get("tags", ())]
    lines = ast.parse("".join("".join(cell["source"]) + "\n" for cell in cells)).body
    return {
        target.id: ast.literal_eval(line.value)
        for line in lines
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    }


def _own_clock(working: Path) -> float | None:
    """Seconds an image by the notebook's own clock, from its metrics.json; None where that has none."""
    path = working / "metrics.json"
    found = files.read_json(path) if path.is_file() else {}
    return found.get("seconds", {}).get("an image") or None


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a valid submission."""
    return list(tables.read_rows(path))[1:]


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
