"""What a prediction job needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PredictConfig:
    """How instances are found in a frame.

    Attributes:
        scales: factors by which the frame is resized for the network; masks come back in its own pixels.
        mask_threshold: a pixel belongs to a cell where its probability is at least this; by the type that the
            frame's cells vote for, and ``default`` for the others.
        score_floor: instances below this score are not even written down; post-processing chooses among the
            rest.
        max_cells: the most instances of a frame, the best ones.
        batch: frames that go through the network together.
    """

    scales: tuple[float, ...] = (1.0,)
    mask_threshold: dict[str, float] = field(default_factory=lambda: {"default": 0.5})
    score_floor: float = 0.05
    max_cells: int = 1000
    batch: int = 1


@dataclass(frozen=True)
class PredictJob:
    """One run over many frames: ``weights`` (checkpoints of ``kitlib.train``), ``frames`` (JSON lines of
    ``records.write_frames``) and ``out`` (the predictions.csv to write)."""

    weights: tuple[str, ...]
    frames: str
    out: str
    config: PredictConfig = field(default_factory=PredictConfig)
