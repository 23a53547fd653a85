"""What of a run's bundle has gone to Kaggle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from kitlib.errors import KitError
from kitlib.files import fingerprint, read_json, write_json
from kitlib.kaggle.bundled import Bundle


@dataclass(frozen=True)
class Pushed:
    """RUN/kaggle/pushed.json: what is on Kaggle, so that a second push does only what is new.

    Attributes:
        dataset_sum, kernel_sum: fingerprints of what was sent.
        dataset_version, kernel_version: the numbers that Kaggle gave. A dataset that was sent and was not
            ready yet has minus the version before it.
        fetched_version: the kernel version whose output lies in RUN/kaggle/output.
        kernel, competition: their names on Kaggle.
    """

    dataset_sum: str = ""
    dataset_version: int = 0
    kernel_sum: str = ""
    kernel_version: int = 0
    fetched_version: int = 0
    kernel: str = ""
    competition: str = ""


def path_of(bundle: Bundle) -> Path:
    return bundle.folder / "pushed.json"


def read(bundle: Bundle) -> Pushed:
    """What has been pushed; nothing where there is no such file.

    Raises:
        KitError: the file is not whole.
    """
    path = path_of(bundle)
    if not path.is_file():
        return Pushed()
    try:
        return Pushed(**read_json(path))
    except TypeError:
        raise KitError(f"{path} is not one of this version of the kit; delete it and push again") from None


def write(bundle: Bundle, pushed: Pushed) -> None:
    write_json(path_of(bundle), asdict(pushed))


def sum_of(folder: Path) -> str:
    """A fingerprint of the files of a folder, by name and contents."""
    parts: list[Path | str] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            parts += [path.relative_to(folder).as_posix(), path]
    return fingerprint(*parts)
