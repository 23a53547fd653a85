"""Choosing the instances that raise the expected metric: how many is decided image by image.

At one IoU threshold let an image have n true cells, and let T of k chosen instances match. Its precision is
S = TP / (TP + FP + FN) = T / (n + k - T). One more instance, which matches with probability p, makes it
(T + p) / (n + k + 1 - T - p) in expectation; that is more than S if and only if

    p (1 + S) > S,  so  p > S / (1 + S):

the higher the precision of an image, the more probable the match of a further instance has to be. The metric
is the mean over ten thresholds t, so instances are added while the sum of p_t (1 + S_t) is above the sum of
S_t, if the denominators are taken as equal. Here they are not, and the means themselves are compared: with
T_t(k) the sum of the p_t of the k best instances, the k is chosen for which the mean over t of
T_t(k) / (n + k - T_t(k)) is highest. As every p_t grows with the score, no other choice of k instances is
better than the k best.

The expectation of T stands for T itself, so that the precision, convex in T, is estimated a little too low,
for all k alike. The number of true cells is not known: it is estimated as a multiple, learned on validation
frames, of all matches at IoU 0.5 that are expected among the candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_KNOTS = 33
"""Scores between which probabilities are interpolated; isotonic regression has hardly more steps."""


@dataclass(frozen=True)
class Calibration:
    """The probability that an instance of one type matches, by its score.

    Attributes:
        scores: ascending scores; between them probabilities are interpolated.
        match: for each of the ten IoU thresholds the probability of a match at those scores.
        cells: true cells for each match that is expected at IoU 0.5.
    """

    scores: tuple[float, ...]
    match: tuple[tuple[float, ...], ...]
    cells: float

    def probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a match at each IoU threshold, (K, 10)."""
        return np.stack([np.interp(scores, self.scores, match) for match in self.match], axis=1)

    def number(self, scores: NDArray[np.float64]) -> int:
        """How many of a frame's disjoint instances to choose, best first: at least one if there are any.

        Args:
            scores: (K,) descending.
        """
        if not len(scores):
            return 0
        matches = np.cumsum(self.probabilities(scores), axis=0)
        cells = max(self.cells * matches[-1, 0], 1.0)
        chosen = np.arange(1, len(scores) + 1)[:, None]
        return int((matches / (cells + chosen - matches)).mean(axis=1).argmax()) + 1


def calibrate(scores: NDArray[np.float64], matched: NDArray[np.bool_], cells: int) -> Calibration:
    """Isotonic regression of matches on scores, one for each IoU threshold.

    Args:
        scores: (K,) of the disjoint instances of validation frames.
        matched: (K, 10) whether each one matches a true cell at each IoU threshold.
        cells: how many true cells these frames have.
    """
    # Imported only now, as the import takes a second.
    from sklearn.isotonic import IsotonicRegression

    knots = np.unique(np.quantile(scores, np.linspace(0, 1, _KNOTS)).round(6))
    fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    match = [fit.fit(scores, column).predict(knots).round(6) for column in matched.T]
    found = np.interp(scores, knots, match[0]).sum()
    return Calibration(
        scores=tuple(knots.tolist()),
        match=tuple(tuple(row.tolist()) for row in match),
        cells=float(max(cells / max(found, 1.0), 1.0)),
    )
