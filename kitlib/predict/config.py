"""What a prediction job needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kitlib.errors import KitError

Turn = Literal["none", "flip_h", "flip_v", "rot90", "rot180", "rot270", "transpose", "antitranspose"]
Fuse = Literal["wbf", "nms", "soft_nms", "proposals"]


@dataclass(frozen=True)
class PredictConfig:
    """How instances are found in a frame.

    Every model looks at the frame at every scale and in every turn, whole or in tiles; what these sources
    find becomes one set of instances, with masks in the frame's own pixels.

    Attributes:
        scales: factors by which the frame is resized for the network.
        scales_by_type: other factors for the frames of a type, whose cells may be ten times as large as
            another's; the type is what the first model sees in a look at the first of ``scales``, at which
            every type should have been trained as well.
        tta: test-time augmentation: how the frame is turned, see ``kitlib.predict.views.TURNS``.
        tile: (height, width) in the frame's pixels of the tiles that the network sees; None: whole frames.
        stride: (down, right) from tile to tile; None: half a tile. The overlap that is left should be as
            large as a cell: one that no tile sees whole may stay in pieces.
        fuse: how the sources become one, see ``kitlib.predict.fuse``; "proposals" has models share their
            proposals within each view (``kitlib.predict.proposals``) and fuses views as "wbf" does.
        fuse_iou: detections that overlap more are of one cell: IoU of boxes for wbf and proposals, of masks
            for nms and soft_nms.
        mask_threshold: a pixel belongs to a cell where its probability is at least this; by the type that the
            frame's cells vote for, and ``default`` for the others.
        levels: further mask thresholds, each with a table of its own, for the tuner.
        score_floor: instances below this score are not even written down; post-processing chooses among the
            rest. The best instance of a frame always stays.
        max_cells: the most instances of a frame, the best ones.
        batch: views of a frame that go through a network together.
        amp: mixed precision on a GPU; a T4 has fp16 only.
    """

    scales: tuple[float, ...] = (1.0,)
    scales_by_type: dict[str, tuple[float, ...]] = field(default_factory=dict)
    tta: tuple[Turn, ...] = ("none",)
    tile: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    fuse: Fuse = "wbf"
    fuse_iou: float = 0.6
    mask_threshold: dict[str, float] = field(default_factory=lambda: {"default": 0.5})
    levels: tuple[float, ...] = ()
    score_floor: float = 0.05
    max_cells: int = 1000
    batch: int = 1
    amp: Literal["off", "bf16", "fp16"] = "off"

    def __post_init__(self) -> None:
        by_type = {f"scales_by_type of {name}": values for name, values in self.scales_by_type.items()}
        for name, values in {"scales": self.scales, "tta": self.tta, **by_type}.items():
            if not values or len(set(values)) != len(values):
                raise KitError(f"{name} must be different values, at least one, not {list(values)}")
        for name, values in {
            "scales": self.scales,
            "tile": self.tile,
            "stride": self.stride,
            **by_type,
        }.items():
            if min(values or (1,)) <= 0:
                raise KitError(f"{name} must be positive, not {list(values or ())}")
        cut = {"levels": self.levels, "mask_threshold": tuple(self.mask_threshold.values())}
        for name, values in cut.items():
            if not all(0 < value < 1 for value in values):
                raise KitError(f"{name} must lie between 0 and 1, as probabilities do, not {list(values)}")
        for name in ("score_floor", "fuse_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise KitError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        for name in ("max_cells", "batch"):
            if getattr(self, name) < 1:
                raise KitError(f"{name} must be at least 1, not {getattr(self, name)}")
        if len({round(level, 2) for level in self.levels}) != len(self.levels):  # as their files are named
            raise KitError(f"levels must differ by 0.01 or more, not {list(self.levels)}")
        if self.stride and not self.tile:
            raise KitError("stride is the distance of tiles, but there is no tile; set tile as well")
        if "default" not in self.mask_threshold:
            raise KitError("mask_threshold needs a 'default' for types that it does not name")

    def mask_threshold_of(self, category: str | None) -> float:
        """The mask threshold of a frame whose cells are of this type."""
        return self.mask_threshold.get(category or "default", self.mask_threshold["default"])


@dataclass(frozen=True)
class PredictJob:
    """One run over many frames.

    Attributes:
        weights: checkpoints of ``kitlib.train``, an ensemble if several.
        frames: a file of ``records.write_frames``.
        out: the predictions.csv to write.
        until: the time (``time.monotonic()``, which all processes of a host share and which no change of its
            clock moves) at which it must have ended; where that is short, less is done, see
            ``kitlib.predict.budget``.
    """

    weights: tuple[str, ...]
    frames: str
    out: str
    config: PredictConfig = field(default_factory=PredictConfig)
    until: float | None = None

    def __post_init__(self) -> None:
        if not self.weights:
            raise KitError("weights must name at least one checkpoint; train first")
