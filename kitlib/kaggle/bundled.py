"""A run's bundle as it lies in RUN/kaggle: what Kaggle knows its two folders by, and whose they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from kitlib import offline
from kitlib.errors import KitError
from kitlib.files import read_json, write_json

FOLDER = "kaggle"
NOBODY = "INSERT_USER_HERE"  # until ``kit push`` knows who is signed in
DATASET, KERNEL = "dataset-metadata.json", "kernel-metadata.json"  # the names that Kaggle's client looks for


@dataclass(frozen=True)
class Bundle:
    """What ``kit bundle`` wrote.

    Attributes:
        run: the run's folder.
        dataset_id, kernel_id: their names on Kaggle, USER/SLUG.
        competition: where it is to be submitted, by its slug.
        code_file: the name of the notebook.
    """

    run: Path
    dataset_id: str
    kernel_id: str
    competition: str
    code_file: str

    @property
    def folder(self) -> Path:
        return self.run / FOLDER

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def notebook(self) -> Path:
        return self.kernel / self.code_file

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def metadata(self) -> tuple[Path, Path]:
        return self.dataset / DATASET, self.kernel / KERNEL

    @property
    def sizes(self) -> dict[str, int]:
        """In bytes, by path in ``folder``."""
        written = sorted(path for part in (self.dataset, self.kernel) for path in part.iterdir())
        return {str(path.relative_to(self.folder)): path.stat().st_size for path in written}

    @property
    def size(self) -> int:
        return sum(self.sizes.values())

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
    described = run / FOLDER / "dataset" / DATASET, run / FOLDER / "kernel" / KERNEL
    told = run / FOLDER / "dataset" / offline.MANIFEST
    for path in (*described, told):
        if not path.is_file():
            raise KitError(f"{path} does not exist; run `kit bundle {run}` first")
    ident = r"[\w-]+/[\w-]+"
    dataset, kernel = (_value(path, "id", ident, run) for path in described)
    competition = _value(told, "competition", r"[\w-]+", run)
    return Bundle(run, dataset, kernel, competition, _value(described[1], "code_file", r"[\w-]+\.ipynb", run))


def _value(path: Path, key: str, form: str, run: Path) -> str:
    values = read_json(path)
    value = values.get(key) if isinstance(values, dict) else None
    if not isinstance(value, str) or not re.fullmatch(form, value):
        raise KitError(f"{path}: {key} cannot be {value!r}; run `kit bundle {run}` again")
    return value


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
