"""The stages' names and where their notebooks and results lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from kitlib.errors import KitError, unknown

STAGES = ("01_eda", "02_pretrain_livecell", "03_train", "04_pseudolabel", "05_retrain", "06_submit")

#: What each stage reads of earlier ones; 03 may start from other weights, and nothing reads what 01 finds.
NEEDS = {
    "03_train": ("02_pretrain_livecell",),
    "04_pseudolabel": ("03_train",),
    "05_retrain": ("03_train", "04_pseudolabel"),
    "06_submit": ("03_train",),
}

TextOrPath = TypeVar("TextOrPath", str, Path)

#: The checkout: notebooks/ and outputs/ lie beside the package.
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"


def resolve(name: str) -> str:
    """The stage that ``name`` or a beginning of it ("03") names.

    Raises:
        KitError: none does, or several do.
    """
    found = [stage for stage in STAGES if stage.startswith(name)] if name else []
    if len(found) > 1:
        raise KitError(f"stage '{name}' may be any of {', '.join(found)}; write more of it")
    if not found:
        raise unknown("stage", name, STAGES)
    return found[0]


def notebook(stage: str, folder: Path = NOTEBOOKS) -> Path:
    """The notebook of a stage.

    Raises:
        KitError: it is not there.
    """
    path = folder / f"{stage}.ipynb"
    if not path.is_file():
        raise KitError(f"{path} does not exist; run from a whole checkout of the kit")
    return path


def whole_path(text: str | Path) -> Path:
    """The absolute path of a folder that the user named.

    Raises:
        KitError: it has bytes that are no UTF-8, which notebooks cannot hold, or the ~ of an unknown user.
    """
    try:
        return check_text(Path(text).expanduser().resolve())
    except RuntimeError:
        raise KitError(
            f"{text}: there is no such user's home folder; write the whole path, or ./{text}"
        ) from None


def check_text(text: TextOrPath) -> TextOrPath:
    """``text``, if it can be written as UTF-8.

    Raises:
        KitError: it is a path, or holds one, that the file system has in other bytes.
    """
    try:
        str(text).encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(str(text)).decode("utf-8", "backslashreplace")
        raise KitError(f"{shown[:80]} has bytes that are no UTF-8; rename that file or folder") from None
    return text


def default_out(name: str) -> Path:
    """Where a run leaves its results unless told otherwise; ``name``: of its profile, or of the data."""
    return ROOT / "outputs" / name
