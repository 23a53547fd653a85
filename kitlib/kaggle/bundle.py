"""All that a submission needs where there is no network, in two folders: a dataset and a notebook.

The dataset is one flat folder: Kaggle's client leaves sub-folders out or zips them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kitlib
from kitlib import config, files, offline
from kitlib.errors import KitError
from kitlib.kaggle import bundled, wheelhouse

NOTEBOOK = "06_submit.ipynb"
TRAINED = "config.yaml"  # of the training that the weights come from
MACHINE_PATHS = ("out", "train", "val", "weights")  # of a training's configuration: they hold here alone


@dataclass(frozen=True)
class Best:
    """What predicts: the weights that a stage kept, an ensemble if several, and their post.yaml."""

    stage: str
    weights: tuple[Path, ...]
    post: Path


def write(
    run: Path,
    best: Best,
    notebook: Path,
    parameters: Mapping[str, Any],
    user: str = bundled.NOBODY,
    half: bool = False,
) -> bundled.Bundle:
    """Write ``run``/kaggle/dataset and ``run``/kaggle/kernel.

    An earlier bundle is replaced once the new one is whole.

    Args:
        notebook: 06_submit.ipynb.
        parameters: what it is to run with.
        user: name on Kaggle under which both are pushed.
        half: weights in 16 bits: half the size; predictions differ in the third digit of a score.

    Raises:
        KitError: weights or a package cannot be had, or the disk is full; an earlier bundle is intact.
    """
    slug = _slug(run.name)
    target = files.make_folder(run / bundled.FOLDER)
    for left in target.glob(".new-*"):  # by a process that was killed
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
    return bundled.load(run)


def read(folder: Path, say: Callable[[str], object] = print) -> Best:
    """What predicts, out of a bundle's dataset, every file of which is verified.

    Damaged weights are left out, and a damaged settings file is read from its copy; either is said.

    Raises:
        KitError: no weights are whole, or a settings file and its copy are damaged.
    """
    with _as_kit_error(folder):
        contents, faults = offline.manifest(folder), offline.damaged(folder)
        post = offline.intact(folder, contents["post"])
    trained(folder)
    whole = [name for name in contents["weights"] if name not in faults]
    lost = ", ".join(f"{name} {faults.pop(name)}" for name in contents["weights"] if name in faults)
    if not whole or post is None:
        raise KitError(f"{folder}: {lost or contents['post'] + ' is not listed'}; upload the bundle again")
    if lost:
        say(f"left out of the ensemble: {lost}")
    for name, fault in faults.items():
        say(f"{name} {fault}; this submission does without it, but upload the bundle again")
    return Best(contents["stage"], tuple(folder / name for name in whole), post)


def trained(folder: Path) -> Path | None:
    """A bundle's config.yaml, which says how the images were predicted that post.yaml was tuned on, or its
    copy; None where the run had none.

    Raises:
        KitError: both are damaged.
    """
    with _as_kit_error(folder):
        return offline.intact(folder, TRAINED)


@contextmanager
def _as_kit_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except (offline.OfflineError, OSError) as error:
        raise KitError(f"the bundle in {folder} cannot be used: {error}") from error


def _write_dataset(folder: Path, run: Path, best: Best, ident: str, half: bool) -> None:
    # Imported here, because it brings torch.
    from kitlib.model import checkpoint

    names = _names(best.weights)
    for path, name in zip(best.weights, names, strict=True):
        weights = checkpoint.load(path).slim()
        checkpoint.save(folder / name, weights.half() if half else weights)
    shutil.copyfile(best.post, folder / "post.yaml")
    settings = run / best.stage / TRAINED
    if settings.is_file():
        values = {k: v for k, v in config.read_yaml(settings).items() if k not in MACHINE_PATHS}
        files.write_text(folder / TRAINED, config.format_yaml(values))
    wheels = [path.name for path in wheelhouse.build(folder)]
    shutil.copyfile(offline.__file__, folder / offline.DOOR)
    contents = {
        "run": run.name,
        "stage": best.stage,
        "weights": names,
        "post": "post.yaml",
        "wheels": wheels,
        "competition": offline.COMPETITION,
        "kitlib": kitlib.__version__,
        "half": half,
    }
    files.write_json(folder / offline.MANIFEST, contents)
    offline.write_sums(folder)
    title = ident.partition("/")[2].replace("-", " ")
    metadata = {"title": title, "id": ident, "licenses": [{"name": "other"}]}
    files.write_json(folder / bundled.DATASET, metadata)


def _write_kernel(folder: Path, notebook: Path, parameters: Mapping[str, Any], user: str, slug: str) -> None:
    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    filled = parameterize_notebook(load_notebook_node(str(notebook)), dict(parameters))
    filled.metadata.pop("papermill", None)
    files.write_text(folder / NOTEBOOK, nbformat.writes(filled))
    ident = f"{slug}-submit"
    described = {
        "id": f"{user}/{ident}",
        "title": ident.replace("-", " "),
        "code_file": NOTEBOOK,
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
    files.write_json(folder / bundled.KERNEL, described)


def _names(weights: Sequence[Path]) -> list[str]:
    """A file name for each, by the fold where there are several."""
    if len(weights) == 1:
        return ["weights.pth"]
    names = [f"{path.parent.name}.pth" for path in weights]
    return names if len(set(names)) == len(names) else [f"{k}-{name}" for k, name in enumerate(names)]


def _slug(run: str) -> str:
    """A name that Kaggle takes for a dataset, with and without "-submit": 6 to 50 small letters, digits and
    dashes."""
    words = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
    if not words:
        raise KitError(
            f"the run's name '{run}' has no letter or digit for Kaggle to know it by; rename its folder"
        )
    return f"kitlib-{words[:36].strip('-')}"
