"""What a prediction job is given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kitlib.config import Float, Int, Positive, Precision, Share, configuration

Orientation = Literal["none", "flip_h", "flip_v", "rot90", "rot180", "rot270", "transpose", "antitranspose"]
Fuse = Literal["wbf", "nms"]
_Pixels = Annotated[Int, Field(gt=0)]
Scales = Annotated[tuple[Positive, ...], Field(min_length=1)]
Probability = Annotated[Float, Field(gt=0, lt=1)]


@configuration
class PredictConfig:
    """How instances are found in a frame.

    Every model predicts the frame at every scale and in every orientation, whole or in tiles; what these
    sources detect becomes one set of instances, with masks in the frame's own pixels.
    """

    scales: Scales = (1.0,)
    """Factors by which the frame is resized for the network."""
    scales_by_type: dict[str, Scales] = Field(default_factory=dict)
    """Other factors for the frames of a type, whose cells may be ten times as large as another's; the type is
    what the first model predicts at the first of ``scales``, at which every type should have been trained."""
    tta: Annotated[tuple[Orientation, ...], Field(min_length=1)] = ("none",)
    """Test-time augmentation: the frame's orientations, see ``kitlib.predict.views.ORIENTATIONS``."""
    tile: tuple[_Pixels, _Pixels] | None = None
    """Height and width in the frame's pixels of the tiles that the network sees; None: whole frames."""
    stride: tuple[_Pixels, _Pixels] | None = None
    """Pixels down and right from tile to tile; None: half a tile. The overlap that is left should be as large
    as a cell: one that no tile sees whole may stay in pieces."""
    fuse: Fuse = "wbf"
    """How the sources become one, see ``kitlib.predict.fuse``."""
    fuse_iou: Share = 0.6
    """Detections that overlap more are of one cell: IoU of boxes for wbf, of masks for nms."""
    mask_threshold: dict[str, Probability] = Field(default_factory=lambda: {"default": 0.5})
    """A pixel belongs to a cell where its probability is at least this; by the type that the frame's cells
    vote for, and ``default`` for the others."""
    candidate_mask_thresholds: tuple[Probability, ...] = ()
    """Further mask thresholds at which masks are cut, for the tuner to choose from."""
    score_floor: Share = 0.05
    """Instances below this score are left out; post-processing chooses among the rest. The best instance of
    a frame always stays."""
    max_cells: Annotated[Int, Field(ge=1)] = 1000
    """The most instances of a frame, the best ones."""
    batch: Annotated[Int, Field(ge=1)] = 1
    """Views that go through a network together, of frames of one size; under a time limit of one frame."""
    workers: Annotated[Int, Field(ge=-1)] = -1
    """Processes that make cells of what networks detect while these see the next frame, for each GPU; -1: one
    for each core that is left, 0: none."""
    amp: Precision = "off"
    """Mixed precision on a GPU; a T4 has fp16 only."""

    def __post_init__(self) -> None:
        by_type = {f"scales_by_type of {name}": values for name, values in self.scales_by_type.items()}
        for name, values in {"scales": self.scales, "tta": self.tta, **by_type}.items():
            if len(set(values)) != len(values):
                raise ValueError(f"{name} must be different values, at least one, not {list(values)}")
        candidates = self.candidate_mask_thresholds
        # Closer ones cut nearly the same masks.
        if len({round(threshold, 2) for threshold in candidates}) != len(candidates):
            raise ValueError(f"candidate_mask_thresholds must differ by 0.01 or more, not {list(candidates)}")
        if self.stride and not self.tile:
            raise ValueError("stride is the distance of tiles, but there is no tile; set tile as well")
        if "default" not in self.mask_threshold:
            raise ValueError("mask_threshold needs a 'default' for types that it does not name")

    def mask_threshold_of(self, category: str | None) -> float:
        """The mask threshold of a frame whose cells are of this type."""
        return self.mask_threshold.get(category or "default", self.mask_threshold["default"])


@configuration
class PseudoConfig:
    """Which predicted cells become pseudo labels, and what they weigh in training."""

    score_threshold: dict[str, Share] = Field(default_factory=lambda: {"default": 0.6})
    """Least score of a confident cell, by type."""
    agreement: dict[str, Share] = Field(default_factory=lambda: {"default": 0.0})
    """Least share of the models and views that saw it, by type."""
    min_area: dict[str, Int] = Field(default_factory=lambda: {"default": 20})
    """Least area of a cell in pixels, by type."""
    max_area: dict[str, Int | None] = Field(default_factory=lambda: dict[str, int | None](default=None))
    """Largest area, by type; None: any."""
    ignore_threshold: dict[str, Share] = Field(default_factory=lambda: {"default": 0.3})
    """Score from which what is no label is ignored, by type."""
    min_cells: Int = 4
    """Images with fewer confident cells are dropped."""
    loss_weight: Float = 0.5
    """Factor on the training loss of pseudo-labelled images."""
    weight_by_score: bool = False
    """That factor times the mean score of the image's cells."""

    def __post_init__(self) -> None:
        for name in ("score_threshold", "agreement", "min_area", "max_area", "ignore_threshold"):
            if "default" not in getattr(self, name):
                raise ValueError(f"{name} needs a 'default' for types that it does not name")


@configuration
class PredictJob:
    """One run over many frames."""

    weights: Annotated[tuple[str, ...], Field(min_length=1)]
    """Checkpoints of ``kitlib.train``, an ensemble if several."""
    frames: str
    """A file of ``records.write_frames``."""
    out: str
    """The predictions.csv to write."""
    config: PredictConfig = PredictConfig()
    in_true_boxes: bool = False
    """Whether the masks are drawn besides that the model makes of the boxes of the frames' own cells."""
    until: Float | None = None
    """The time (``time.monotonic()``, which all processes of a host share and which no change of its clock
    moves) at which it must have ended; where that is short, less is done, see ``kitlib.predict.budget``."""
