"""The stages' names and where their notebooks and results lie."""

from __future__ import annotations

from pathlib import Path

from kitlib.errors import KitError, unknown

STAGES = ("01_eda", "02_pretrain_livecell", "03_train", "04_pseudolabel", "05_retrain", "06_submit")

#: What each stage reads of earlier ones; 03 may start from other weights, and nothing reads what 01 finds.
NEEDS = {
    "03_train": ("02_pretrain_livecell",),
    "04_pseudolabel": ("03_train",),
    "05_retrain": ("03_train", "04_pseudolabel"),
    "06_submit": ("03_train",),
}

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


def default_out(name: str) -> Path:
    """Where a run leaves its results unless told otherwise; ``name``: of its profile, or of the data."""
    return ROOT / "outputs" / name
