"""Whether retrained weights replace the earlier ones: only if the gain is beyond what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kitlib import metric
from kitlib.errors import KitError
from kitlib.metric import means
from kitlib.records import Frame


@dataclass(frozen=True)
class Decision:
    """Whether to ``replace`` the earlier weights, and why.

    Attributes:
        gain: the mean over the images of what the metric rose by.
        at_least: the lower bound of the gain, one-sided.
        confidence: of that bound.
        images: how many were compared.
    """

    replace: bool
    gain: float
    at_least: float
    confidence: float
    images: int
    margin: float = 0.0

    @property
    def sentence(self) -> str:
        """The decision in words."""
        what = (
            "the retrained weights replace the earlier ones" if self.replace else "the earlier weights stay"
        )
        sure = f"at least {self.at_least:+.4f} with {self.confidence:.0%} confidence"
        wanted = "0" if self.margin == 0 else f"{self.margin:+.4f}"
        if self.images == 1:
            return f"{what}: a gain of {self.gain:+.4f} on one held-out image may be chance"
        return (
            f"{what}: a gain of {self.gain:+.4f} on {self.images} held-out images, {sure}, "
            f"which is {'' if self.replace else 'not '}more than {wanted}"
        )


def decide(
    truth: Sequence[Frame],
    before: Sequence[Frame],
    after: Sequence[Frame],
    margin: float = 0.0,
    confidence: float = 0.8,
    seed: int = 0,
) -> Decision:
    """Compare two sets of post-processed predictions image by image.

    The bound is a paired bootstrap's: images are drawn with replacement, each with both of its scores. Before
    and after should be post-processed alike, best each with limits that were tuned on other images
    (``validate.Validation.frames``).

    A single image never decides: it says nothing of chance.

    Args:
        margin: the bound has to be above this, 0 for any gain at all.
        confidence: of the one-sided bound; an even bet is 0.5.

    Raises:
        KitError: an image was not predicted, before or after; or as ``metric.score``.
    """
    for when, frames in {"before": before, "after": after}.items():
        missing = sorted({f.id for f in truth} - {f.id for f in frames})
        if missing:
            some = f"{len(missing)} of the {len(truth)} held-out images, '{missing[0]}' for one,"
            raise KitError(f"{some} were not predicted {when} retraining; take folds that both have")
    old, new = (metric.score(truth, frames).by_image for frames in (before, after))
    gains = [new[f.id] - old[f.id] for f in truth]
    bound = float(np.quantile(means(gains, seed), 1 - confidence))
    better = bound > margin and len(gains) > 1
    return Decision(better, float(np.mean(gains)), bound, confidence, len(gains), margin)
