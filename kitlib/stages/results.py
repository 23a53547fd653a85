"""What the stages of a run left for later ones: weights, and how images were read and predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kitlib import config as configs
from kitlib import files
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError
from kitlib.kaggle.bundle import Best
from kitlib.stages import record

#: In a stage's folder, where the data are images of the user's own: how it has read them.
_READING = "reading.yaml"


def is_own(run: Path) -> bool:
    """Whether 03 was trained on images of the user's own."""
    return (run / "03_train" / _READING).is_file()


def reading(run: Path) -> ReadingConfig:
    """How 03 has read images of the user's own."""
    return configs.load(ReadingConfig, run / "03_train" / _READING) if is_own(run) else ReadingConfig()


def keep_reading(folder: Path, reading: ReadingConfig | None) -> None:
    """Remember in a stage's folder how it reads images of the user's own; None for the competition's."""
    if reading is not None:
        configs.save(reading, folder / _READING)
    else:
        (folder / _READING).unlink(missing_ok=True)


def categories(run: Path) -> tuple[str, ...]:
    """The classes that 03 trained; none before that."""
    trained = run / "03_train" / "config.yaml"
    return tuple(configs.read_yaml(trained).get("categories", ())) if trained.is_file() else ()


def weights(run: Path, stage: str) -> tuple[Path, ...]:
    """The weights of a stage that predict together: of each fold one, or one of each of its last phases.

    Raises:
        KitError: the file of its results is missing or damaged, or names no weights.
    """
    path = run / stage / record.METRICS
    found = files.read_json(path)
    names = found.get("weights") if isinstance(found, dict) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise KitError(f"{path} names no weights; run {stage} again with --force")
    return tuple(run / stage / name for name in names)


def views(config: Path | None) -> dict[str, Any]:
    """How the validation frames were predicted that post-processing was tuned on: the section ``predict`` of
    the training's config.yaml, without further mask thresholds; empty where there is no such file."""
    found = configs.read_yaml(config).get("predict", {}) if config and config.is_file() else {}
    return {key: value for key, value in found.items() if key != "candidate_mask_thresholds"}


def best(run: Path) -> Best:
    """What predicts: the weights of the chosen stage, all folds together, and their post-processing."""
    chosen = record.chosen(run)
    return Best(chosen, weights(run, chosen), run / chosen / "post.yaml")
