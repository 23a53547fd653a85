"""One run of a bundle's notebook in a sandbox: without a network, under given conditions, watched."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitlib import files
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.kaggle.rehearsal import processes, sandbox
from kitlib.kaggle.rehearsal.hidden import Tree
from kitlib.kaggle.rehearsal.sandbox import Sandbox

_RUNNER = Path(__file__).with_name("offline_run.py")
_REFUSING = Path(__file__).with_name("no_network.py")
#: Beginnings of the environment variables that the notebook gets: no token, no setting of pip, no path.
_PASSED = ("LANG", "LC_", "TZ", "OMP_", "GOMP_", "MKL_", "CUDA_", "NVIDIA_", "LD_LIBRARY_PATH")


def close_network(box: Sandbox) -> bool:
    """Whether the system gives a network namespace; where not, the environment is made to refuse sockets."""
    probe = [str(box.python), "-I", str(_RUNNER), "--probe"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return True
    place = sandbox.site_packages(box.python)
    shutil.copyfile(_REFUSING, place / "kit_no_network.py")
    (place / "kit_no_network.pth").write_text("import kit_no_network\n")
    return False


@dataclass(frozen=True)
class Conditions:
    """What is unusual about a run of the notebook.

    Attributes:
        hours: its time limit; None: as in its parameters.
        memory_bytes: of address space, at most, for each process; 0: no limit.
        read_only: whether its own folder cannot be written to.
        quiet: whether what it prints stays in the executed notebook.
    """

    hours: float | None = None
    memory_bytes: int = 0
    read_only: bool = False
    quiet: bool = False


def execute(
    box: Sandbox,
    tree: Tree,
    kernel: Path,
    executed: Path,
    namespace: bool,
    conditions: Conditions = Conditions(),
) -> tuple[dict[str, Any], int]:
    """Run the notebook without a network.

    Args:
        box: the environment to run it in.
        tree: stands for ``/kaggle``.
        kernel: the notebook.
        executed: where the notebook with its outputs is written.
        namespace: whether the system gives a network namespace; see ``close_network``.
        conditions: of this run.

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
        "parameters": {} if conditions.hours is None else {**injected(kernel), "hours": conditions.hours},
        "read_only": [str(tree.inputs), *map(str, box.sources), *[str(tree.working)] * conditions.read_only],
        "memory_bytes": conditions.memory_bytes,
        "namespace": namespace,
        "result": str(result),
    }
    files.write_json(beside / "job.json", job)
    command = [str(box.python), "-I", str(_RUNNER), str(beside / "job.json")]
    output = subprocess.DEVNULL if conditions.quiet else None
    process = subprocess.Popen(
        command,
        cwd=tree.working,
        env=kernel_environment(box, tree, os.environ),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
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


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a valid submission."""
    return list(tables.read_rows(path))[1:]


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
