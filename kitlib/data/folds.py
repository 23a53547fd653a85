"""Folds for cross-validation: alike in their types of cell, each sample in one fold alone."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence

from kitlib.data.images import first_few
from kitlib.errors import KitError
from kitlib.records import Frame

_log = logging.getLogger(__name__)


def assign(frames: Sequence[Frame], folds: int = 5, seed: int = 0) -> dict[str, int]:
    """The fold, 0 to ``folds - 1``, of each frame's id.

    Frames of one ``group`` (a sample or well) share a fold; a frame without a group is a group of its own.
    Groups go, largest first, to the fold where their categories are scarcest, which keeps every category
    spread evenly (greedy, as scikit-learn's StratifiedGroupKFold). Equal groups are ordered by SHA-256 of the
    seed and their name, so the result depends neither on the order of the frames nor on the versions of
    Python and its libraries. Fold 0 serves best as the only validation fold. With fewer groups
    than folds the last folds stay empty. Frames that all share one group are split as if they had none, with
    a warning.

    Args:
        frames: with unique ids.
        folds: number of folds.
        seed: orders equal groups.

    Raises:
        KitError: fewer than two folds or frames, more folds than frames, or one id twice.
    """
    _check(frames, folds)
    groups = _groups(frames)
    totals = Counter(_category(frame) for frame in frames)
    counts = [Counter[str]() for _ in range(folds)]
    members: list[list[Frame]] = [[] for _ in range(folds)]
    for group in _ordered(groups, seed):
        added = Counter(_category(frame) for frame in group)
        best = min(range(folds), key=lambda k: (_crowding(counts[k], added, totals), counts[k].total(), k))
        counts[best].update(added)
        members[best].extend(group)
    order = sorted(range(folds), key=lambda k: (_faults_as_validation(counts[k], totals, folds), k))
    result = {frame.id: fold for fold, k in enumerate(order) for frame in members[k]}
    return {frame.id: result[frame.id] for frame in frames}


def split(
    frames: Sequence[Frame], fold: int = 0, folds: int = 5, seed: int = 0
) -> tuple[list[Frame], list[Frame]]:
    """(training, validation) frames, both in the given order; validation frames are about 1 / ``folds``.

    Args:
        frames: with unique ids.
        fold: the validation fold.
        folds: number of folds.
        seed: as ``assign``.

    Raises:
        KitError: as ``assign``; also ``fold`` out of range, or empty because there are fewer groups than
            folds.
    """
    if not 0 <= fold < folds:
        raise KitError(f"fold {fold} does not exist; with {folds} folds they are 0 to {folds - 1}")
    places = assign(frames, folds, seed)
    train = [frame for frame in frames if places[frame.id] != fold]
    validation = [frame for frame in frames if places[frame.id] == fold]
    if not validation:
        used = len(set(places.values()))
        raise KitError(
            f"fold {fold} is empty: the {len(frames)} images come from only {used} groups; use folds={used}"
        )
    trained, judged = ({_category(frame) for frame in side} for side in (train, validation))
    for category in sorted(trained ^ judged):
        side = "training" if category in judged else "validation"
        message = "fold %d leaves no %s image of category '%s': it has too few images or groups"
        _log.warning(message, fold, side, category)
    return train, validation


def subset(frames: Sequence[Frame], share: float, seed: int = 0) -> list[Frame]:
    """A share of the frames, at least one, in the given order; a larger share holds all of a smaller one.

    Every category has as many of its frames in it as others, in proportion and to one frame.

    Args:
        frames: with unique ids.
        share: above 0, at most 1.
        seed: chooses among the frames of a category.
    """
    by_category: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_category[_category(frame)].append(frame)
    places: dict[str, tuple[float, bytes]] = {}
    for same in by_category.values():
        ranks = {frame.id: hashlib.sha256(f"{seed}/{frame.id}".encode()).digest() for frame in same}
        for number, name in enumerate(sorted(ranks, key=ranks.__getitem__)):
            places[name] = (number + 0.5) / len(same), ranks[name]
    count = max(round(share * len(frames)), 1)
    chosen = set(sorted(places, key=places.__getitem__)[:count])
    return [frame for frame in frames if frame.id in chosen]


def apart(frames: Sequence[Frame], validation: Sequence[Frame]) -> list[Frame]:
    """The frames that share no group with validation frames: trained on, they would flatter the scores."""
    groups = {frame.group for frame in validation} - {None}
    return [frame for frame in frames if frame.group not in groups]


def _check(frames: Sequence[Frame], folds: int) -> None:
    if folds < 2:
        raise KitError(f"folds is {folds}; at least 2 are needed for validation")
    if len(frames) < folds:
        raise KitError(f"{len(frames)} images cannot make {folds} folds; use fewer folds or add images")
    twice = [name for name, count in Counter(frame.id for frame in frames).items() if count > 1]
    if twice:
        raise KitError(f"frame ids must be unique, but these occur more than once: {first_few(twice)}")


def _groups(frames: Sequence[Frame]) -> dict[tuple[str, str], list[Frame]]:
    named = {frame.group for frame in frames}
    if len(named) == 1 and None not in named:
        _log.warning(
            "all %d images share the group %s: folds ignore it, so scores may flatter", len(frames), *named
        )
        named = {None}
    groups: dict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        grouped = frame.group is not None and frame.group in named
        groups[("group", str(frame.group)) if grouped else ("frame", frame.id)].append(frame)
    return groups


def _ordered(groups: dict[tuple[str, str], list[Frame]], seed: int) -> list[list[Frame]]:
    def rank(key: tuple[str, str]) -> tuple[int, bytes]:
        return -len(groups[key]), hashlib.sha256(f"{seed}/{key[0]}/{key[1]}".encode()).digest()

    return [groups[key] for key in sorted(groups, key=rank)]


def _crowding(counts: Counter[str], added: Counter[str], totals: Counter[str]) -> float:
    """How much a group adds to a fold's squared shares of its categories; even folds keep the sum lowest."""
    return round(sum((2 * counts[c] + n) * n / totals[c] ** 2 for c, n in added.items()), 12)


def _faults_as_validation(
    counts: Counter[str], totals: Counter[str], folds: int
) -> tuple[bool, int, bool, int, float]:
    """The faults of a fold as the only validation fold, worst first; lower is better.

    It is empty; it has all images of a category, so that none is left to train on; it is far too large; it
    lacks categories; it is larger or smaller than an even share.
    """
    share = totals.total() / folds
    taken = sum(counts[c] == n for c, n in totals.items())
    missing = sum(counts[c] == 0 for c in totals)
    return not counts, taken, counts.total() > 2 * share, missing, round(abs(counts.total() - share), 9)


def _category(frame: Frame) -> str:
    """A frame's category; of mixed cells, the most common one."""
    if frame.category is not None or not frame.cells:
        return frame.category or ""
    cells = Counter(cell.category for cell in frame.cells)
    return max(sorted(cells), key=cells.__getitem__)
