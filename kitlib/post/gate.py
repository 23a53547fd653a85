"""Whether retrained weights replace the earlier ones: only if the gain is beyond what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kitlib.errors import KitError
from kitlib.metric import competition
from kitlib.records import Frame


@dataclass(frozen=True)
class Decision:
    """Whether to ``replace`` the earlier weights, and why.

    Attributes:
        gain: the mean over the images of what the metric rose by.
        at_least: the lower bound of the gain, one-sided.
        confidence: of that bound.
        images: how many were compared.
        margin: what the lower bound had to exceed.
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
        bound = f"at least {self.at_least:+.4f} with {self.confidence:.0%} confidence"
        wanted = "0" if self.margin == 0 else f"{self.margin:+.4f}"
        if self.images == 1:
            return f"{what}: a gain of {self.gain:+.4f} on one validation image may be chance"
        return (
            f"{what}: a gain of {self.gain:+.4f} on {self.images} validation images, {bound}, "
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

    The lower bound is that of a paired bootstrap: images are drawn with replacement, each with both of its
    scores. Both sets should be post-processed by the same method, best each with thresholds that were tuned
    on other images (``Validation.frames`` of ``kitlib.post.tuning.cross_validation``). A single image never
    decides, as nothing about chance can be learned from it.

    Args:
        truth: validation frames with their true cells.
        before: the same frames as the earlier weights predict them.
        after: the same frames as the retrained weights predict them.
        margin: the bound has to be above this, 0 for any gain at all.
        confidence: of the one-sided bound; an even bet is 0.5.
        seed: draws the images.

    Raises:
        KitError: an image was not predicted, before or after; or as ``kitlib.metric.score``.
    """
    for when, frames in {"before": before, "after": after}.items():
        missing = sorted({f.id for f in truth} - {f.id for f in frames})
        if missing:
            some = f"{len(missing)} of the {len(truth)} validation images, '{missing[0]}' for one,"
            raise KitError(f"{some} were not predicted {when} retraining; take folds that both have")
    scores_before, scores_after = (competition.score(truth, frames).by_image for frames in (before, after))
    gains = [scores_after[f.id] - scores_before[f.id] for f in truth]
    bound = float(np.quantile(competition.means(gains, seed), 1 - confidence))
    better = bound > margin and len(gains) > 1
    return Decision(better, float(np.mean(gains)), bound, confidence, len(gains), margin)
