"""All that a submission needs without a network, in two folders of RUN/kaggle: a dataset and a notebook.

``write`` makes them, ``load`` finds what a run's bundle is called on Kaggle, and ``read`` opens its dataset
there. The dataset is one flat folder: Kaggle's client leaves sub-folders out or zips them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kitlib
from kitlib import config, files, offline
from kitlib.errors import KitError
from kitlib.kaggle import image

_FOLDER = "kaggle"  # of a run
NOBODY = "INSERT_USER_HERE"  # until ``kit push`` knows who is signed in
DATASET, KERNEL = "dataset-metadata.json", "kernel-metadata.json"  # the names that Kaggle's client looks for
_NOTEBOOK = "06_submit.ipynb"
_TRAINED = "config.yaml"  # configuration of the training that the weights come from
_MACHINE_PATHS = ("out", "train", "val", "weights")  # keys of it that are of no use on another machine


@dataclass(frozen=True)
class Best:
    """The best weights of a stage, an ensemble if several, and their post.yaml."""

    stage: str
    weights: tuple[Path, ...]
    post: Path


@dataclass(frozen=True)
class Bundle:
    """A run's bundle, as ``write`` made it in RUN/kaggle.

    Attributes:
        run: the run's folder.
        dataset_id, kernel_id: names of the dataset and the notebook on Kaggle, USER/SLUG.
        competition: the slug of the competition that it is for.
        code_file: the name of the notebook's file.
    """

    run: Path
    dataset_id: str
    kernel_id: str
    competition: str
    code_file: str

    @property
    def folder(self) -> Path:
        return self.run / _FOLDER

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
        """Of each file, in bytes, by its path in ``folder``."""
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


# -------------------------------------------------------------------------------- writing


def write(
    run: Path,
    best: Best,
    notebook: Path,
    parameters: Mapping[str, Any],
    user: str = NOBODY,
    half: bool = False,
) -> Bundle:
    """Write ``run``/kaggle/dataset and ``run``/kaggle/kernel.

    An earlier bundle is replaced once the new one is whole.

    Args:
        run: the run's folder.
        best: what is to predict.
        notebook: 06_submit.ipynb.
        parameters: the notebook's parameters on Kaggle.
        user: the name on Kaggle under which both are pushed.
        half: weights in 16 bits: half the size; predictions differ in the third digit of a score.

    Raises:
        KitError: weights cannot be read, a package is not installed here, or the disk is full; an earlier
            bundle is intact.
    """
    slug = _slug(run.name)
    target = files.make_folder(run / _FOLDER)
    # A process that was killed leaves its temporary folder.
    for left in target.glob(".new-*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target) as temporary:
            dataset, kernel = Path(temporary, "dataset"), Path(temporary, "kernel")
            dataset.mkdir()
            kernel.mkdir()
            _write_dataset(dataset, run, best, f"{user}/{slug}", half)
            _write_kernel(kernel, notebook, parameters, user, slug)
            for new in (dataset, kernel):
                if (target / new.name).exists():
                    (target / new.name).rename(Path(temporary, f"old-{new.name}"))
                new.rename(target / new.name)
    except OSError as error:
        raise files.cannot_write(target, error) from error
    return load(run)


def _write_dataset(folder: Path, run: Path, best: Best, ident: str, half: bool) -> None:
    # Imported here, because it imports torch.
    from kitlib.model import checkpoint

    names = _names(best.weights)
    for path, name in zip(best.weights, names, strict=True):
        weights = checkpoint.load(path).slim()
        checkpoint.save(folder / name, weights.half() if half else weights)
    shutil.copyfile(best.post, folder / "post.yaml")
    settings = run / best.stage / _TRAINED
    if settings.is_file():
        values = {k: v for k, v in config.read_yaml(settings).items() if k not in _MACHINE_PATHS}
        files.write_text(folder / _TRAINED, config.format_yaml(values))
    wheels = [path.name for path in image.write_wheels(folder)]
    shutil.copyfile(offline.__file__, folder / offline.SCRIPT)
    manifest = {
        "run": run.name,
        "stage": best.stage,
        "weights": names,
        "post": "post.yaml",
        "wheels": wheels,
        "competition": offline.COMPETITION,
        "kitlib": kitlib.__version__,
        "half": half,
    }
    files.write_json(folder / offline.MANIFEST, manifest)
    offline.write_sums(folder)
    title = ident.partition("/")[2].replace("-", " ")
    metadata = {"title": title, "id": ident, "licenses": [{"name": "other"}]}
    files.write_json(folder / DATASET, metadata)


def _write_kernel(folder: Path, notebook: Path, parameters: Mapping[str, Any], user: str, slug: str) -> None:
    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    filled = parameterize_notebook(load_notebook_node(str(notebook)), dict(parameters))
    filled.metadata.pop("papermill", None)
    files.write_text(folder / _NOTEBOOK, nbformat.writes(filled))
    ident = f"{slug}-submit"
    described = {
        "id": f"{user}/{ident}",
        "title": ident.replace("-", " "),
        "code_file": _NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "dataset_sources": [f"{user}/{slug}"],
        "competition_sources": [offline.COMPETITION],
        "kernel_sources": [],
        "model_sources": [],
    }
    files.write_json(folder / KERNEL, described)


def _names(weights: Sequence[Path]) -> list[str]:
    """A file name for each, by the fold where there are several, and by the phase within it."""
    if len(weights) == 1:
        return ["weights.pth"]
    names = [f"{path.parent.name}.pth" for path in weights]
    if len(set(names)) < len(names):
        names = [f"{path.parent.parent.name}-{name}" for path, name in zip(weights, names, strict=True)]
    return names if len(set(names)) == len(names) else [f"{k}-{name}" for k, name in enumerate(names)]


def _slug(run: str) -> str:
    """A name that Kaggle accepts, also with "-submit": 6 to 50 small letters, digits and dashes."""
    words = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
    if not words:
        raise KitError(
            f"the run's name '{run}' has no letter or digit for a name on Kaggle; rename its folder"
        )
    return f"kitlib-{words[:36].strip('-')}"


# -------------------------------------------------------------------------------- here, for Kaggle's client


def load(run: Path | str) -> Bundle:
    """The bundle of a run.

    Raises:
        KitError: there is none, or it is not whole.
    """
    run = Path(run)
    if not run.is_dir():
        raise KitError(f"{run} is not a run's folder; name one such as outputs/demo")
    described = run / _FOLDER / "dataset" / DATASET, run / _FOLDER / "kernel" / KERNEL
    manifest = run / _FOLDER / "dataset" / offline.MANIFEST
    for path in (*described, manifest):
        if not path.is_file():
            raise KitError(f"{path} does not exist; run `kit bundle {run}` first")
    ident = r"[\w-]+/[\w-]+"
    dataset, kernel = (_value(path, "id", ident, run) for path in described)
    competition = _value(manifest, "competition", r"[\w-]+", run)
    return Bundle(run, dataset, kernel, competition, _value(described[1], "code_file", r"[\w-]+\.ipynb", run))


def _value(path: Path, key: str, form: str, run: Path) -> str:
    values = files.read_json(path)
    value = values.get(key) if isinstance(values, dict) else None
    if not isinstance(value, str) or not re.fullmatch(form, value):
        raise KitError(f"{path}: {key} cannot be {value!r}; run `kit bundle {run}` again")
    return value


def fill_user(bundle: Bundle, user: str) -> Bundle:
    """Write the user's name into a bundle that has none yet, and return the bundle with that name."""
    for path in bundle.metadata:
        text = path.read_text(encoding="utf-8")
        if NOBODY in text:
            files.write_json(path, _filled(files.read_json(path), user))
    names = [name.replace(NOBODY, user) for name in (bundle.dataset_id, bundle.kernel_id)]
    return replace(bundle, dataset_id=names[0], kernel_id=names[1])


def _filled(value: object, user: str) -> object:
    if isinstance(value, dict):
        return {key: _filled(one, user) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, user) for one in value]
    return value.replace(NOBODY, user) if isinstance(value, str) else value


# -------------------------------------------------------------------------------- on Kaggle


def read(folder: Path, say: Callable[[str], object] = print) -> Best:
    """Open a bundle's dataset on Kaggle, and verify each of its files.

    Damaged weights are left out, and a damaged settings file is read from its copy, with a message.

    Raises:
        KitError: no weights are whole, or a settings file and its copy are damaged.
    """
    with _as_kit_error(folder):
        manifest, faults = offline.manifest(folder), offline.damaged(folder)
        post = offline.intact(folder, manifest["post"])
    trained(folder)
    intact = [name for name in manifest["weights"] if name not in faults]
    left_out = ", ".join(f"{name} {faults.pop(name)}" for name in manifest["weights"] if name in faults)
    if not intact or post is None:
        raise KitError(
            f"{folder}: {left_out or manifest['post'] + ' is not listed'}; upload the bundle again"
        )
    if left_out:
        say(f"left out of the ensemble: {left_out}")
    for name, fault in faults.items():
        say(f"{name} {fault}; this submission does without it, but upload the bundle again")
    return Best(manifest["stage"], tuple(folder / name for name in intact), post)


def trained(folder: Path) -> Path | None:
    """A bundle's config.yaml or its copy, the configuration of the training; None where the run had none.

    post.yaml was tuned on predictions that were made with it.

    Raises:
        KitError: both are damaged.
    """
    with _as_kit_error(folder):
        return offline.intact(folder, _TRAINED)


@contextmanager
def _as_kit_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except (offline.OfflineError, OSError) as error:
        raise KitError(f"the bundle in {folder} cannot be used: {error}") from error
