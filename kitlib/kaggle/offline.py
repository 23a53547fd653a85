"""On Kaggle, before the kit itself can be imported: where things lie, a first submission, the installation.

A bundle carries this file as ``kit_offline.py``; the submission notebook runs it by its path. So it needs the
standard library alone, and does nothing where there is no Kaggle. The kit asks it for the same places later.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

ROOT = "KIT_KAGGLE"  # environment variable: a folder in place of /kaggle
DOOR = "kit_offline.py"  # this file's name in a bundle
MANIFEST = "bundle.json"
KEYS = ("stage", "weights", "post", "wheels")
SUMS = "SHA256SUMS"
COMPETITION = "sartorius-cell-instance-segmentation"
LAYOUTS = ("*", "competitions/*", "datasets/*/*")  # below input/; the first is the older one
BLOCK = 1 << 20


class OfflineError(RuntimeError):
    """Why the submission cannot go on, in one sentence."""


def root() -> Path:
    """The folder that holds ``input`` and ``working``."""
    return Path(os.environ.get(ROOT, "/kaggle"))


def working() -> Path:
    """The folder whose files a notebook on Kaggle leaves, ``submission.csv`` among them."""
    return root() / "working"


def bundle() -> Path | None:
    """The bundle's folder; None where there is none, as everywhere but on Kaggle."""
    return next((folder for folder in _inputs() if (folder / DOOR).is_file()), None)


def competition() -> Path | None:
    """The folder of the competition's data; None where it is not attached."""
    return next((f for f in _inputs() if f.name == COMPETITION), None)


def manifest(folder: Path) -> dict:
    """What ``bundle.json`` says.

    Raises:
        OfflineError: it cannot be read, or is not whole.
    """
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OfflineError(
            f"{folder / MANIFEST} cannot be read ({error}); upload the bundle again"
        ) from error
    if not isinstance(told, dict) or not told.keys() >= set(KEYS):
        raise OfflineError(f"{folder / MANIFEST} lacks one of {', '.join(KEYS)}; upload the bundle again")
    return told


def damaged(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Which of these files are missing from a bundle or differ from its list, and how.

    Raises:
        OfflineError: the list cannot be read.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise OfflineError(f"{folder / SUMS} cannot be read ({error}); upload the bundle again") from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            found[name] = "is missing"
        elif sums.get(name) != sha256(path):
            found[name] = "is not as it was bundled"
    return found


def sha256(path: Path) -> str:
    """The hash of a file, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def first_submission(data: Path, path: Path) -> int:
    """Write a valid submission with an empty row for every test image; returns their number.

    It stands until a better one takes its place, and is what is left if nothing can be predicted.
    """
    ids: dict[str, None] = {}
    sample = data / "sample_submission.csv"
    if sample.is_file():
        with sample.open(newline="", encoding="utf-8-sig") as file:
            ids |= dict.fromkeys(row["id"] for row in csv.DictReader(file))
    ids |= dict.fromkeys(sorted(image.stem for image in (data / "test").glob("*.png")))
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("".join(["id,predicted\n", *(f"{i},\n" for i in ids)]), encoding="utf-8")
    os.replace(temporary, path)
    return len(ids)


def install(folder: Path) -> list[str]:
    """Install what the image lacks from the bundle's wheels; returns the names.

    What the image has stays as it is: a wheel is used only where no version of its package is there.

    Raises:
        OfflineError: a wheel is missing or damaged, or pip fails.
    """
    wheels = {name.partition("-")[0]: name for name in manifest(folder)["wheels"]}
    names = [name for name in wheels if not _is_installed(name)]
    faults = damaged(folder, [wheels[name] for name in names])
    if faults:
        told = ", ".join(f"{name} {fault}" for name, fault in faults.items())
        raise OfflineError(f"{folder}: {told}; upload the bundle again")
    if names:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
        pip += ["--no-index", "--no-deps", "--no-warn-script-location", "--root-user-action", "ignore"]
        done = subprocess.run(
            [*pip, *(str(folder / wheels[n]) for n in names)], capture_output=True, text=True
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no word from pip"]
            raise OfflineError(f"pip could not install {', '.join(names)}: {said[-1]}")
        importlib.invalidate_caches()
    return names


def main() -> None:
    """A first submission, then the kit. To be run in the notebook's process, before anything of the kit."""
    folder = Path(__file__).resolve().parent
    data = competition()
    if data is None:
        raise OfflineError(f"the data of {COMPETITION} is not attached to this notebook; add it")
    path = working() / "submission.csv"
    print(f"{path}: an empty row for each of {first_submission(data, path)} images, until there is better")
    print(f"installed: {', '.join(install(folder)) or 'nothing was missing'}")


def _inputs() -> list[Path]:
    return [
        folder for layout in LAYOUTS for folder in sorted((root() / "input").glob(layout)) if folder.is_dir()
    ]


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
