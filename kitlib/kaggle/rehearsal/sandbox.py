"""A new Python environment with the packages of a Kaggle image, and nothing else.

It is a venv whose site-packages holds links to those installed distributions that ``image.packages`` lists,
as torch alone has gigabytes. Each distribution's RECORD lists its files. The installed files are safe: pip
refuses to replace or remove a linked package, because it has no RECORD in the sandbox.

Versions are the local ones. A local version may need packages that the image's version does not need, such as
torch's nvidia-* and triton wheels. These are linked as stand-ins, and the report names them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kitlib.errors import KitError
from kitlib.files import stays_inside
from kitlib.kaggle import image
from kitlib.kaggle.image import normalised

_INVENTORY = Path(__file__).with_name("inventory.py")
#: Files of a .dist-info that describe the distribution; RECORD is left out on purpose, see above.
_METADATA = ("METADATA", "entry_points.txt", "top_level.txt", "WHEEL")
_NEEDED = ("pip", "papermill", "ipykernel")
#: Beginnings of the names of wheels that are a part of torch's build.
_PARTS_OF_TORCH = ("nvidia-", "cuda-", "triton")


@dataclass(frozen=True)
class Installed:
    """A distribution that is installed in the interpreter from which the sandbox is made."""

    name: str
    version: str
    folder: Path
    files: tuple[PurePosixPath, ...]
    requires: tuple[str, ...]


@dataclass(frozen=True)
class Sandbox:
    """An environment as on Kaggle.

    Attributes:
        python: its interpreter.
        python_version: of that interpreter, "3.12.3".
        versions: of its packages, by normalised name.
        stand_ins: those packages that are not on the image's list.
        sources: the site-packages that its links lead to.
        contents: names of what its own site-packages held at first.
    """

    python: Path
    python_version: str
    versions: dict[str, str]
    stand_ins: tuple[str, ...]
    sources: tuple[Path, ...]
    contents: frozenset[str]


def make(folder: Path, python: str = "") -> Sandbox:
    """Make the environment in ``folder``.

    Args:
        folder: absent or empty.
        python: the interpreter whose packages are linked; empty: the one that runs this.

    Raises:
        KitError: the interpreter cannot be run, cannot make a venv, or lacks what running a notebook needs.
    """
    source = python or sys.executable
    version, installed = inventory(source)
    chosen, stand_ins = select(installed)
    lacking = [name for name in _NEEDED if name not in {one.name for one in chosen}]
    if lacking:
        raise KitError(
            f"{source} has no {', '.join(lacking)}, which every Kaggle image has; install it there, or "
            "choose another interpreter with --python"
        )
    _run([source, "-m", "venv", "--without-pip", str(folder)], f"{source} cannot make a venv")
    inside = folder / "bin" / "python"
    link(chosen, [one for one in installed if one not in chosen], site_packages(inside))
    return Sandbox(
        inside,
        version,
        {one.name: one.version for one in chosen},
        tuple(stand_ins),
        tuple(sorted({one.folder for one in chosen})),
        frozenset(path.name for path in site_packages(inside).iterdir()),
    )


def reset(box: Sandbox) -> None:
    """Remove what was installed in the sandbox since it was made."""
    for path in site_packages(box.python).iterdir():
        if path.name in box.contents or path.name.startswith("kit_no_network"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def inventory(python: str) -> tuple[str, list[Installed]]:
    """The version of an interpreter, and its installed distributions.

    Raises:
        KitError: the interpreter cannot be run, or is no Python.
    """
    printed = _run([python, str(_INVENTORY)], f"{python} cannot be run")
    try:
        found = json.loads(printed)
    except ValueError:
        raise KitError(f"{python} is not a Python; name one with --python") from None
    return found["python"], [
        Installed(
            normalised(one["name"]),
            one["version"],
            Path(one["folder"]),
            tuple(map(PurePosixPath, one["files"])),
            tuple(map(normalised, one["requires"])),
        )
        for one in found["distributions"]
    ]


def select(
    installed: Sequence[Installed], listed: dict[str, str] | None = None
) -> tuple[list[Installed], list[str]]:
    """The distributions to link: those that the image has, and stand-ins; and the names of the stand-ins.

    Stand-ins are the requirements of packages whose version is not the image's, except for packages that the
    image is known to lack.
    """
    listed = image.packages() if listed is None else listed
    by_name = {one.name: one for one in installed}
    names = [name for name in by_name if name in listed]
    stand_ins = [name for name in by_name if name not in listed and name.startswith(_PARTS_OF_TORCH)]
    queue = [name for name in names if by_name[name].version != listed[name]]
    while queue:
        for need in by_name[queue.pop()].requires:
            if need in by_name and need not in {*listed, *stand_ins, *image.ABSENT}:
                stand_ins.append(need)
                queue.append(need)
    return [by_name[name] for name in (*names, *stand_ins)], sorted(stand_ins)


def link(chosen: Iterable[Installed], others: Iterable[Installed], target: Path) -> None:
    """Link the files of the chosen distributions into a site-packages.

    A folder is linked as a whole where no other distribution has files in it. A shared folder, as ``google``
    or ``nvidia`` may be, is made, and its contents are linked one by one.

    Args:
        chosen: the distributions to link.
        others: all other distributions of the interpreter.
        target: the sandbox's site-packages.
    """
    chosen = list(chosen)
    foreign = {part for one in others for path in _inside(one) for part in (path, *path.parents)}
    foreign |= _in_several_folders(chosen)
    done: set[PurePosixPath] = set()
    for one in chosen:
        for path in _inside(one):
            if path.parts[0].endswith(".dist-info"):
                _copy_metadata(one.folder, path, target)
            elif not done & {path, *path.parents}:
                whole = next(
                    (part for part in (*reversed(path.parents[:-1]), path) if part not in foreign), path
                )
                _link(one.folder / whole, target / whole)
                done.add(whole)


def _link(source: Path, place: Path) -> None:
    # A RECORD may list a file that was removed since.
    if source.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source, target_is_directory=source.is_dir())


def _in_several_folders(chosen: Iterable[Installed]) -> set[PurePosixPath]:
    """Folders with parts in more than one site-packages."""
    seen: dict[PurePosixPath, set[Path]] = {}
    for one in chosen:
        for parent in {parent for path in _inside(one) for parent in path.parents}:
            seen.setdefault(parent, set()).add(one.folder)
    return {path for path, folders in seen.items() if len(folders) > 1}


def _inside(one: Installed) -> Iterable[PurePosixPath]:
    """A distribution's files below its site-packages, without scripts, compiled files and absolute paths."""
    for path in one.files:
        if stays_inside(path) and "__pycache__" not in path.parts:
            yield path


def _copy_metadata(folder: Path, path: PurePosixPath, target: Path) -> None:
    if len(path.parts) == 2 and path.name in _METADATA and (folder / path).is_file():
        (target / path.parent).mkdir(exist_ok=True)
        shutil.copyfile(folder / path, target / path)
        (target / path.parent / "INSTALLER").write_text("the Kaggle image\n")


def site_packages(python: Path) -> Path:
    """The folder of an interpreter's packages."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(_run([str(python), "-c", code], f"{python} cannot be run").strip())


def _run(command: list[str], failure: str) -> str:
    # They would show packages of other interpreters.
    hidden = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    except OSError as error:
        raise KitError(f"{failure}: {error.strerror}; name a Python with --python") from error
    if done.returncode:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise KitError(f"{failure}: {last}; name another Python with --python")
    return done.stdout
