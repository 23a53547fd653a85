"""A run's bundle as it lies in RUN/kaggle, and what of it has gone to Kaggle."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kitlib.data.competition import FOLDER
from kitlib.errors import KitError
from kitlib.files import fingerprint, read_json, write_json
from kitlib.kaggle.bundle import NOBODY


@dataclass(frozen=True)
class Bundle:
    """What ``kit bundle`` wrote.

    Attributes:
        run: the run's folder.
        dataset_id, kernel_id: their names on Kaggle, USER/SLUG.
        competition: where it is to be submitted.
    """

    run: Path
    dataset_id: str
    kernel_id: str
    competition: str

    @property
    def dataset(self) -> Path:
        return self.run / "kaggle" / "dataset"

    @property
    def kernel(self) -> Path:
        return self.run / "kaggle" / "kernel"

    @property
    def output(self) -> Path:
        return self.run / "kaggle" / "output"

    @property
    def metadata(self) -> tuple[Path, Path]:
        return self.dataset / "dataset-metadata.json", self.kernel / "kernel-metadata.json"

    @property
    def kernel_page(self) -> str:
        return f"https://www.kaggle.com/code/{self.kernel_id}"

    @property
    def dataset_page(self) -> str:
        return f"https://www.kaggle.com/datasets/{self.dataset_id}"

    @property
    def competition_page(self) -> str:
        return f"https://www.kaggle.com/competitions/{self.competition}"


def load(run: Path | str) -> Bundle:
    """The bundle of a run.

    Raises:
        KitError: there is none, or it is not whole.
    """
    run = Path(run)
    if not run.is_dir():
        raise KitError(f"{run} is not a run's folder; name one such as outputs/demo")
    dataset, kernel = run / "kaggle" / "dataset", run / "kaggle" / "kernel"
    paths = dataset / "dataset-metadata.json", kernel / "kernel-metadata.json"
    for path in paths:
        if not path.is_file():
            raise KitError(f"{path} does not exist; run `kit bundle {run}` first")
    ids = [_id(path, run) for path in paths]
    facts = read_json(dataset / "bundle.json") if (dataset / "bundle.json").is_file() else {}
    return Bundle(run, *ids, facts.get("competition") or FOLDER)


def _id(path: Path, run: Path) -> str:
    values = read_json(path)
    name = values.get("id") if isinstance(values, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+/[\w-]+", name):
        raise KitError(f"{path}: id is {name!r}, not USER/NAME; run `kit bundle {run}` again")
    return name


def fill_user(bundle: Bundle, user: str) -> Bundle:
    """The bundle with the user's name written where it has none."""
    for path in bundle.metadata:
        text = path.read_text(encoding="utf-8")
        if NOBODY in text:
            write_json(path, _filled(read_json(path), user))
    names = [name.replace(NOBODY, user) for name in (bundle.dataset_id, bundle.kernel_id)]
    return replace(bundle, dataset_id=names[0], kernel_id=names[1])


def _filled(value: object, user: str) -> object:
    if isinstance(value, dict):
        return {key: _filled(one, user) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, user) for one in value]
    return value.replace(NOBODY, user) if isinstance(value, str) else value


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
    return bundle.run / "kaggle" / "pushed.json"


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
