"""The configuration of training-image augmentation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kitlib.config import Float, Int, Positive, Share, configuration

Size = tuple[int, int]  # height, width in pixels
_Side = Annotated[Int, Field(gt=0)]
PositiveSize = tuple[_Side, _Side]
Range = tuple[Positive, Positive]


@configuration
class AugmentConfig:
    """How training images are augmented. None and 0 mean off."""

    scale: Range = (1.0, 1.0)
    """The frame is resized by a factor drawn from this range."""
    scale_by_type: dict[str, Range] = Field(default_factory=dict)
    """Other ranges for the frames of a type: a crop that shows a hundred neurons may cut through every
    astrocyte. If a first prediction at one scale decides each frame's type (PredictConfig.scales_by_type),
    every range should contain that scale; otherwise the model learns to distinguish the types by blur."""
    crop: PositiveSize | None = None
    """Height and width of the crop from the resized frame; a smaller frame is padded with its median grey."""
    cell_centred: Share = 0.5
    """Share of crops placed so that a randomly drawn cell lies in their middle half."""
    flip: bool = True
    """Flip left-right and top-bottom, each with probability 0.5."""
    flip_vertical: bool = True
    """If False, flip is left-right only, detectron2's default."""
    rot90: bool = True
    """Rotate by 0, 90, 180 or 270 degrees."""
    brightness: Share = 0.0
    """Grey levels are multiplied by a factor from 1 - b to 1 + b."""
    contrast: Share = 0.0
    """The distance of grey levels from their mean is multiplied by a factor from 1 - c to 1 + c."""
    gamma: Annotated[Float, Field(ge=0)] = 0.0
    """Grey levels, scaled to 0..1, are raised to a power from exp(-g) to exp(g)."""
    blur: Annotated[Float, Field(ge=0)] = 0.0
    """Gaussian blur of up to this standard deviation, in pixels."""
    noise: Annotated[Float, Field(ge=0)] = 0.0
    """Gaussian noise of up to this standard deviation, in grey levels."""
    copy_paste: Share = 0.0
    """Probability of pasting cells of another frame of the same type (Ghiasi et al., "Simple Copy-Paste",
    2021)."""
    min_visible: Share = 0.25
    """A cell that is cut off or covered is removed unless more than this share of it is left."""

    def __post_init__(self) -> None:
        by_type = {f"scale_by_type of {name}": values for name, values in self.scale_by_type.items()}
        for name, (lowest, highest) in {"scale": self.scale, **by_type}.items():
            if lowest > highest:
                raise ValueError(f"{name} must be (lowest, highest), not {(lowest, highest)}")
