"""The start of a submission on Kaggle: an empty submission, then the installation of the kit.

A bundle holds this file as ``kit_offline.py``, and the submission notebook runs it by its path; so it needs
the standard library alone. The kit uses it as well: for Kaggle's folders, for the files of a bundle and their
checksums, and for the images and rows of a submission.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = "KIT_KAGGLE"  # environment variable that names a folder in place of /kaggle
SCRIPT = "kit_offline.py"  # this file's name in a bundle
MANIFEST = "bundle.json"
_KEYS = ("stage", "weights", "post", "wheels")
SUMS = "SHA256SUMS"
COPY = "copy_of_"  # prefix of the copy of a small file
COMPETITION = "sartorius-cell-instance-segmentation"
SAMPLE = "sample_submission.csv"
#: Columns by which a table of the competition is recognised.
TABLES = {
    "train.csv": ("id", "annotation", "width", "height", "cell_type"),
    SAMPLE: ("id", "predicted"),
}
#: Extensions of image files; of two images with the same name, the one whose extension comes first counts.
SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_LAYOUTS = ("*", "competitions/*", "datasets/*/*")  # below input/; the first is the older one
_BLOCK = 1 << 20
#: Texts of the errors, other than MemoryError, that libraries raise when memory runs out; in lower case.
_MEMORY_WORDS = (
    *("memoryerror", "cannot allocate memory", "can't allocate memory", "not enough memory"),
    *("out of memory", "failed to map segment", "std::bad_alloc"),
)


class OfflineError(RuntimeError):
    """Why the submission cannot go on, in one sentence."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


# ------------------------------------------------------------------------------------------- folders


def _root() -> Path:
    """The folder that holds ``input`` and ``working``."""
    return Path(os.environ.get(ROOT, "/kaggle"))


def working() -> Path:
    """The folder for what a notebook on Kaggle writes, ``submission.csv`` among it."""
    return _root() / "working"


def bundle() -> Path | None:
    """The bundle's folder; None where no bundle is attached, as everywhere but on Kaggle."""
    names = (SCRIPT, COPY + SCRIPT)
    return next((folder for folder in _inputs() if any((folder / name).is_file() for name in names)), None)


def competition() -> Path | None:
    """The folder of the competition's data: the one with its name, or else the only one with its contents.

    Returns:
        None where the data is not attached, as everywhere but on Kaggle.

    Raises:
        OfflineError: no folder has the name, and several have the contents.
    """
    inputs = _inputs()
    named = [folder for folder in inputs if folder.name == COMPETITION]
    found = named or [folder for folder in _with_subfolders(inputs) if _holds_competition(folder)]
    if len(found) > 1 and not named:
        raise OfflineError(
            f"{_names(found)} all look like the data of {COMPETITION}; detach all but one from this notebook"
        )
    return found[0] if found else None


def _inputs() -> list[Path]:
    return [
        folder
        for layout in _LAYOUTS
        for folder in sorted((_root() / "input").glob(layout))
        if folder.is_dir()
    ]


def _with_subfolders(folders: Iterable[Path]) -> list[Path]:
    """The folders and their direct sub-folders, each once."""
    below = (path for folder in folders for path in (folder, *sorted(folder.iterdir())) if path.is_dir())
    return list(dict.fromkeys(below))


def _holds_competition(folder: Path) -> bool:
    """Whether a folder holds test images and a table with the competition's columns."""
    if not (folder / "test").is_dir():
        return False
    return any(set(columns) <= set(next(_rows(folder / name), ())) for name, columns in TABLES.items())


def _names(paths: Iterable[Path], limit: int = 5) -> str:
    names = [str(path) for path in paths]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing"


# ---------------------------------------------------------------------------------- images and rows


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image.

    Hidden files do not count (macOS leaves ``._x.png`` beside ``x.png``), nor do names that are not UTF-8,
    which no table can hold.
    """
    if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
        return False
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return False
    return True


def test_images(data: Path) -> dict[str, Path]:
    """The images of ``test/`` by their name without extension, sorted by name."""
    folder = data / "test"
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    paths = [path for path in paths if is_image(path) and path.is_file()]
    found: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: SUFFIXES.index(path.suffix.lower())):
        found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def asked_ids(data: Path) -> dict[str, int]:
    """The ids in ``sample_submission.csv``, each with the number of its first row; the header is row 1.

    Blank ids and ids of undecodable bytes are left out. Without a readable column ``id`` there are none.
    """
    rows = _rows(data / SAMPLE)
    header = next(rows, [])
    if "id" not in header:
        return {}
    place = header.index("id")
    found: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        name = row[place].strip() if place < len(row) else ""
        if name and "\ufffd" not in name:
            found.setdefault(name, number)
    return found


def _rows(table: Path) -> Iterator[list[str]]:
    """The rows of a CSV table in any encoding, the header without blanks; none where it cannot be read."""
    # A mask may be longer than the 128 KiB that csv allows.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with suppress(OSError, csv.Error), table.open("rb") as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        file.seek(0)
        lines = io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")
        reader = csv.reader(line.replace("\0", "") for line in lines)
        yield [name.strip() for name in next(reader, [])]
        yield from reader


def first_submission(data: Path, path: Path) -> int:
    """Write a valid submission with an empty row for each test image, and return their number.

    It remains if nothing can be predicted; otherwise a better one replaces it.

    Raises:
        OfflineError: the submission cannot be written.
    """
    ids = asked_ids(data) | dict.fromkeys(test_images(data))
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("id", "predicted"), *((i, "") for i in ids)])
        os.replace(temporary, path)
    except OSError as error:
        raise OfflineError(
            f"cannot write {path} ({error.strerror}); make {path.parent} writable and give it some space"
        ) from error
    return len(ids)


# ------------------------------------------------------------------------------------- bundled files


def write_sums(folder: Path) -> None:
    """Copy a bundle's small files, then list the SHA-256 of each file, and of the list itself.

    ``sha256sum --check`` reads the list.
    """
    for name in (MANIFEST, SCRIPT, "config.yaml", "post.yaml"):
        if (folder / name).is_file():
            (folder / (COPY + name)).write_bytes((folder / name).read_bytes())
    lines = "".join(f"{_sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir()))
    for name in (SUMS, COPY + SUMS):
        (folder / name).write_text(f"{lines}# {_digest(lines)}\n", encoding="utf-8")


def _read_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a bundle, by name, from the list or, where that is damaged, its copy.

    Raises:
        OfflineError: both are damaged or missing.
    """
    for name in (SUMS, COPY + SUMS):
        with suppress(OSError, ValueError):
            lines, _, own = (folder / name).read_text(encoding="utf-8").rpartition("# ")
            if own.strip() == _digest(lines):
                return {path: sha for sha, _, path in (line.partition("  ") for line in lines.splitlines())}
    raise OfflineError(f"{folder / SUMS} and its copy are missing or damaged; upload the bundle again")


def damaged(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """The faults of a bundle's files, by name: "is missing", or how a file differs from the list.

    Args:
        folder: the bundle's dataset.
        names: the files to check; None: all that are listed, and the list.

    Raises:
        OfflineError: the list and its copy are damaged.
    """
    sums = _read_sums(folder)
    found: dict[str, str] = {}
    for name in sums if names is None else names:
        path = folder / name
        if not path.is_file():
            found[name] = "is missing"
        elif sums.get(name) != _sha256(path):
            found[name] = "is not as it was bundled"
    if names is None and _read(folder / SUMS) != _read(folder / (COPY + SUMS)):
        found[SUMS] = "differs from its copy"
    return found


def intact(folder: Path, name: str) -> Path | None:
    """A bundle's file, or its copy where the file is damaged; None where the bundle never had the file.

    Raises:
        OfflineError: the file and its copy, or the list and its copy, are damaged or missing.
    """
    if name not in _read_sums(folder):
        return None
    faults = damaged(folder, [name])
    if not faults:
        return folder / name
    if damaged(folder, [COPY + name]):
        raise OfflineError(f"{folder / name} {faults[name]}, nor is its copy whole; upload the bundle again")
    return folder / (COPY + name)


def manifest(folder: Path) -> dict[str, Any]:
    """The contents of ``bundle.json``.

    Raises:
        OfflineError: the file and its copy are damaged, or it lacks a key.
    """
    path = intact(folder, MANIFEST)
    values = json.loads(path.read_text(encoding="utf-8")) if path else None
    if not isinstance(values, dict) or not values.keys() >= set(_KEYS):
        raise OfflineError(f"{folder / MANIFEST} lacks one of {', '.join(_KEYS)}; upload the bundle again")
    return values


def _sha256(path: Path) -> str:
    """The hash of a file, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


# ------------------------------------------------------------------------------------- installation


def _install(folder: Path) -> list[str]:
    """Install those of the bundle's wheels whose packages the image lacks, and return their names.

    A package of the image is never replaced, whatever its version.

    Raises:
        OfflineError: a wheel is missing or damaged, or pip fails.
    """
    wheels = {name.partition("-")[0]: name for name in manifest(folder)["wheels"]}
    names = [name for name in wheels if not _is_installed(name)]
    faults = damaged(folder, [wheels[name] for name in names])
    if faults:
        sentence = ", ".join(f"{name} {fault}" for name, fault in faults.items())
        raise OfflineError(f"{folder}: {sentence}; upload the bundle again")
    if names:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
        pip += ["--no-index", "--no-deps", "--no-warn-script-location", "--root-user-action", "ignore"]
        done = subprocess.run(
            [*pip, *(str(folder / wheels[n]) for n in names)], capture_output=True, text=True
        )
        if done.returncode:
            output = done.stderr or done.stdout
            if out_of_memory(output):
                raise OfflineError(f"there is not enough memory to install {', '.join(names)}; free some")
            last = (output.strip().splitlines() or ["pip printed nothing"])[-1]
            raise OfflineError(f"pip could not install {', '.join(names)}: {last}")
        importlib.invalidate_caches()
    return names


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def out_of_memory(error: BaseException | str) -> bool:
    """Whether an error, or the output of a process, says that memory ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(words in str(error).lower() for words in _MEMORY_WORDS)


def reason(error: BaseException) -> str:
    """The class and the text of an error; where memory ran out, a sentence that says so."""
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"there is not enough memory ({text[:80]})" if out_of_memory(error) else text


def load_kit() -> None:
    """Import what the notebook imports next, for an error that says so where memory runs out.

    Raises:
        OfflineError: there is not enough memory.
    """
    try:
        for name in ("pandas", "kitlib.predict", "kitlib.stages", "kitlib.viz", "kitlib.post.tuning"):
            importlib.import_module(name)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise OfflineError(f"the kit cannot be loaded: {reason(error)}; use a larger machine") from error


def main() -> None:
    """Write a first submission, then install the kit in the environment of the process that runs this."""
    folder = Path(__file__).resolve().parent
    data = competition()
    if data is None:
        raise OfflineError(
            f"the data of {COMPETITION} is not attached to this notebook, which holds {_names(_inputs())}; "
            "add the competition as an input"
        )
    if (data / SAMPLE).is_file() and not asked_ids(data):
        print(f"{data / SAMPLE} has no ids that can be read: the rows are those of the images in test/")
    path = working() / "submission.csv"
    print(f"{path}: an empty row for each of {first_submission(data, path)} images, until there is better")
    print(f"installed: {', '.join(_install(folder)) or 'nothing was missing'}")


if __name__ == "__main__":
    main()
