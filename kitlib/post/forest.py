"""Boosted regression trees as plain numbers: fitted by scikit-learn, written as YAML, evaluated by numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.tree._tree import Tree

_DEPTH = 3
_NODES = 2**_DEPTH - 1
_TREES = 60
_RATE = 0.1
"""Each tree's share of what it learned."""
_LEAF = 20
"""Fewest samples in a leaf."""


@dataclass(frozen=True)
class Forest:
    """A sum of complete binary trees of depth 3; the children of node i are 2 i + 1 and 2 i + 2.

    Attributes:
        base: what the trees add to.
        feature: for each tree the column that each of its 7 inner nodes compares.
        threshold: for each tree the value up to which a node sends a sample to its first child.
        value: for each tree what its 8 leaves add.
    """

    base: float
    feature: tuple[tuple[int, ...], ...]
    threshold: tuple[tuple[float, ...], ...]
    value: tuple[tuple[float, ...], ...]

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of all trees for each sample, (N,) from (N, F); features count in single precision."""
        x = np.asarray(x, np.float32)
        feature = np.reshape(np.array(self.feature, np.int64), (-1, _NODES))
        threshold = np.reshape(self.threshold, (-1, _NODES))
        value = np.reshape(self.value, (-1, _NODES + 1))
        tree, sample = np.arange(len(feature)), np.arange(len(x))[:, None]
        node = np.zeros((len(x), len(tree)), np.int64)
        for _ in range(_DEPTH):
            node = 2 * node + 1 + (x[sample, feature[tree, node]] > threshold[tree, node])
        return self.base + value[tree, node - _NODES].sum(axis=1)


def grow(x: NDArray[np.float64], y: NDArray[np.float64], seed: int = 0) -> Forest:
    """Fit trees to the squared error, each on half of the samples (Friedman 2002).

    Args:
        x: (N, F) features.
        y: (N,) targets.
        seed: draws the samples of each tree.

    Returns:
        The trees; none where there are too few samples for two leaves.
    """
    if len(y) < 2 * _LEAF:
        return Forest(float(np.mean(y)) if len(y) else 0.0, (), (), ())
    # Imported only now, as the import takes a second.
    from sklearn.ensemble import GradientBoostingRegressor

    fit = GradientBoostingRegressor(
        n_estimators=_TREES,
        max_depth=_DEPTH,
        learning_rate=_RATE,
        subsample=0.5,
        min_samples_leaf=_LEAF,
        random_state=seed,
    ).fit(x, y)
    return from_sklearn(float(np.mean(y)), [each.tree_ for each in fit.estimators_[:, 0]], _RATE)


def from_sklearn(base: float, trees: list[Tree], rate: float) -> Forest:
    """The forest of scikit-learn's trees.

    Args:
        base: what the trees add to.
        trees: none deeper than 3.
        rate: factor on what they add.
    """
    complete = [_complete(tree) for tree in trees]
    return Forest(
        base=base,
        feature=tuple(tuple(f.tolist()) for f, _, _ in complete),
        threshold=tuple(tuple(t.tolist()) for _, t, _ in complete),
        value=tuple(tuple((rate * v).tolist()) for _, _, v in complete),
    )


def _complete(tree: Tree) -> tuple[NDArray, NDArray, NDArray]:
    """Features, thresholds and leaves; below an early leaf every sample goes to the first child."""
    feature, threshold = np.zeros(_NODES, np.int64), np.full(_NODES, np.inf)
    value = np.zeros(_NODES + 1)
    # Numbers of each node, here and in scikit-learn's tree.
    places = [(0, 0)]
    for mine, its in places:
        if mine >= _NODES:
            value[mine - _NODES] = tree.value[its, 0, 0]
        elif tree.children_left[its] < 0:
            places.append((2 * mine + 1, its))
        else:
            feature[mine], threshold[mine] = tree.feature[its], tree.threshold[its]
            places += [(2 * mine + 1, tree.children_left[its]), (2 * mine + 2, tree.children_right[its])]
    return feature, threshold, value
