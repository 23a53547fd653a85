"""JupyterLab on copies of the notebooks, so that working with them leaves the checkout as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from kitlib import files
from kitlib.errors import KitError
from kitlib.runtime import launch
from kitlib.stages.kernel import NAME
from kitlib.stages.notebooks import NOTEBOOKS, ROOT, STAGES, notebook

#: Beside results of the runs, which JupyterLab shows as well.
_FOLDER = ROOT / "outputs" / "lab"
# Of each copy, the fingerprint that it had when it was made.
_MADE = ".copies.json"


def start(options: Sequence[str], say: Callable[[str], object] = print) -> NoReturn:
    """Bring the copies up to date, see to the kernel, and become JupyterLab.

    Args:
        options: further options of JupyterLab, such as ``--no-browser``.
        say: is given what was copied, and what was not.

    Raises:
        KitError: a notebook cannot be copied, or there is no kernel and none can be installed.
    """
    for sentence in copy_notebooks(NOTEBOOKS, _FOLDER):
        say(sentence)
    check_kernel(say)
    root = _FOLDER.parent
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    command += [f"--LabApp.default_url=/lab/tree/{_FOLDER.name}/{STAGES[0]}.ipynb", *options]
    sys.stdout.flush()
    os.execve(sys.executable, command, launch.with_kit(os.environ))


def copy_notebooks(source: Path, folder: Path) -> list[str]:
    """Copy the notebooks into a folder, except over those that were changed there; says so of each.

    A copy is brought up to date where nobody touched it; running one and saving it counts as a change.

    Args:
        source: the folder of the kit's notebooks.
        folder: where the copies lie.

    Raises:
        KitError: a notebook is missing, or the folder cannot be written.
    """
    made = files.read_json(folder / _MADE) if (folder / _MADE).is_file() else {}
    said = [f"the notebooks are copies in {folder}; the kit's own in {source} stay as they are"]
    for stage in STAGES:
        path, copy = notebook(stage, source), folder / f"{stage}.ipynb"
        newest = files.fingerprint(path)
        if copy.is_file() and files.fingerprint(copy) not in (made.get(stage), newest):
            if newest != made.get(stage):
                said.append(
                    f"{copy.name} was changed here and stays, though the kit's own is newer; to take that "
                    f"one, rename {copy.name} and run `kit lab` again"
                )
            continue
        files.write_text(copy, path.read_text(encoding="utf-8"))
        made[stage] = newest
    files.write_json(folder / _MADE, made)
    return said


def check_kernel(say: Callable[[str], object] = print) -> None:
    """See that the kernel of the notebooks runs in this Python; it is installed where it does not.

    Raises:
        KitError: it cannot be installed.
    """
    fault = _kernel_fault()
    if not fault:
        return
    say(f"the kernel '{NAME}' {fault}; installing it for {sys.executable}")
    command = [sys.executable, "-m", "ipykernel", "install", "--sys-prefix", "--name", NAME]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise KitError(f"the kernel '{NAME}' cannot be installed ({reason[:80]}); run `{' '.join(command)}`")
    fault = _kernel_fault()
    if fault:
        raise KitError(f"the kernel '{NAME}' {fault}; remove it (see `jupyter kernelspec list`)")


def _kernel_fault() -> str:
    """Why the notebooks' kernel would not run in this Python; empty where it does."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        # Where no folder has it, this is the one that the package ipykernel brings for this Python.
        spec = KernelSpecManager().get_kernel_spec(NAME)
    except NoSuchKernel:
        return "is missing"
    return "" if _same_python(spec.argv[0]) else f"belongs to {spec.argv[0]}"


def _same_python(program: str) -> bool:
    """Whether a kernel is run by this Python: not its file alone counts, which environments share, but its
    environment. A name without a folder is that of the Python which runs JupyterLab."""
    return os.sep not in program or Path(program).parent.resolve() == Path(sys.executable).parent.resolve()
