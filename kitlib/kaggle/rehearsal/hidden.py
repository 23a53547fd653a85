"""A stand-in for Kaggle's machine: its folders in either layout, and a hidden test set of other images."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kitlib import files
from kitlib.data import competition, synthetic
from kitlib.data.images import image_files
from kitlib.errors import KitError
from kitlib.kaggle.bundle import Bundle

LAYOUTS = ("old", "new")
#: Parts of the competition's folder that do not change when the hidden test images are swapped in.
_UNCHANGED = ("train", "train.csv", "train_semi_supervised", "LIVECell_dataset_2021")


class Tree(NamedTuple):
    """A fake ``/kaggle``.

    Attributes:
        root: stands for ``/kaggle``.
        competition: the competition's folder in it, with the hidden test images.
        dataset: the bundle's folder in it.
        working: where a notebook runs and writes.
    """

    root: Path
    competition: Path
    dataset: Path
    working: Path

    @property
    def inputs(self) -> Path:
        return self.root / "input"


def make(root: Path, layout: str, bundle: Bundle, pictures: Sequence[Path], count: int) -> Tree:
    """Make the tree in ``root``; all but ``working`` can only be read.

    Args:
        root: an absent or empty folder.
        layout: "old": ``input/<slug>``; "new": ``input/competitions/<slug>`` and
            ``input/datasets/<owner>/<slug>``.
        bundle: of the run.
        pictures: PNG files that become the test images, repeated where ``count`` is larger.
        count: number of test images.
    """
    slug, (owner, name) = bundle.competition, bundle.dataset_id.split("/")
    inputs = root / "input"
    if layout == "old":
        tree = Tree(root, inputs / slug, inputs / name, root / "working")
    else:
        places = inputs / "competitions" / slug, inputs / "datasets" / owner / name
        tree = Tree(root, *places, root / "working")
    for folder in (tree.competition / "test", tree.dataset, tree.working):
        files.make_folder(folder)
    for path in sorted(bundle.dataset.iterdir()):
        _place(path, tree.dataset / path.name)
    _swap_in(tree.competition, pictures, count)
    _seal(inputs)
    return tree


def _place(path: Path, target: Path) -> None:
    """Put a file at a second place, as a hard link where both are on one disk.

    A symbolic link would lead code that looks for the file's neighbours away from there.
    """
    try:
        os.link(path.resolve(), target)
    except OSError:
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            raise files.cannot_write(target, error) from error


def _swap_in(folder: Path, pictures: Sequence[Path], count: int, seed: int = 6) -> list[str]:
    """Copy pictures to ``test/`` under new ids, and list these in ``sample_submission.csv``.

    The other parts of a competition's folder are linked from the folder that the pictures come from.

    Args:
        folder: the competition's, with an empty ``test/``.
        pictures: PNG files, repeated where ``count`` is larger.
        count: number of test images.
        seed: draws the ids.

    Returns:
        The ids: 12 hexadecimal digits, as the competition's.
    """
    draw = random.Random(seed)
    ids = [f"{draw.getrandbits(48):012x}" for _ in range(count)]
    for position, name in enumerate(ids):
        shutil.copyfile(pictures[position % len(pictures)], folder / "test" / f"{name}.png")
    rows = ["id,predicted\n", *(f"{name},\n" for name in ids)]
    files.write_text(folder / "sample_submission.csv", "".join(rows))
    source = pictures[0].resolve().parent.parent
    for name in _UNCHANGED:
        if (source / name).exists():
            (folder / name).symlink_to(source / name)
    return ids


def pictures(run: Path, synthetic_folder: Path, seed: int = 6) -> list[Path]:
    """The labelled and test images of a run's data, shuffled; synthetic cells where the data are gone.

    Args:
        run: the run's folder.
        synthetic_folder: where synthetic cells are written.
        seed: shuffles.

    Raises:
        KitError: ``synthetic_folder`` cannot be written.
    """
    for record in sorted(run.glob("*/stage.json"), reverse=True):
        try:
            found = _images(files.read_json(record)["parameters"]["data"])
        except (KitError, KeyError, TypeError):
            # The stage is unfinished, or its data are gone.
            continue
        if found:
            random.Random(seed).shuffle(found)
            return found
    return _images(synthetic.ensure(synthetic_folder, images=3))


def _images(data: Path | str) -> list[Path]:
    root = competition.locate(data) if data else None
    folders = [root / name for name in ("test", "train") if root and (root / name).is_dir()]
    return [path for folder in folders for path in image_files(folder).values() if path.suffix == ".png"]


def _seal(folder: Path) -> None:
    """Make a folder and its contents read-only, except files that are linked from elsewhere."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink() and (path.is_dir() or path.stat().st_nlink == 1):
            path.chmod(path.stat().st_mode & ~0o222)


def unseal(folder: Path) -> None:
    """Make the folders writable again, so that they can be removed."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o700)
