"""What the front end asks for, and the answers: frames, thresholds, orders and corrections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kitlib.errors import KitError
from kitlib.records import UNTYPED, Cell, Frame, voted_category
from kitlib.viewer import corrected as corrections
from kitlib.viewer import order, picture, scene
from kitlib.viewer.corrected import Corrected, Edited
from kitlib.viewer.layers import PREDICTION, PSEUDO, Layers, Predicted, Thresholds

TRUTH, REMOVED = "truth", "removed"
Reply = tuple[dict[str, Any], list[bytes]]


class Session:
    """The state behind one viewer."""

    def __init__(self, layers: Layers, corrected: Corrected, by: str) -> None:
        self._layers, self._corrected = layers, corrected
        self.places = order.order(layers, corrected, by)
        self.by = by

    def overview(self) -> dict[str, Any]:
        """What the front end needs before the first frame."""
        path = self._corrected.path
        return {
            "orders": order.names(self._layers),
            "by": self.by,
            "frames": self._list(),
            "layers": self._names(),
            "colors": picture.COLORS,
            "masks": sorted(self._layers.predictions),
            "post": self._layers.post is not None,
            "corrections": None if path is None else path.name,
        }

    def answer(self, request: Mapping[str, Any]) -> Reply:
        """The answer to a message of the front end, and its blocks of bytes.

        Raises:
            KitError: something that the user can correct, such as a line that cuts no cell.
        """
        kind = request["kind"]
        if kind == "order":
            self.by = request["by"]
            self.places = order.order(self._layers, self._corrected, self.by)
            return {"kind": kind, "by": self.by, "frames": self._list()}, []
        if kind == "undo":
            frame_id = self._corrected.undo()
            return self._scene(frame_id, _asked(request), {TRUTH}, said=f"undone in {frame_id}")
        if kind == "edit":
            return self._edit(request)
        parts = {"image", TRUTH, PSEUDO} if kind == "frame" else set()
        # A frame may have a thousand of these, which are mostly not looked at.
        parts |= {REMOVED} if request.get("removed") else set()
        return self._scene(request["id"], _asked(request), parts)

    def fallback(self) -> bytes:
        """The first frame as a PNG, for readers without a kernel."""
        frame = self._corrected.frame(self.places[0].frame_id)
        predicted = self._layers.predicted(frame.id, Thresholds())
        cells = {TRUTH: list(frame.cells), PSEUDO: self._pseudo(frame.id)}
        title = f"{frame.id}, frame 1 of {len(self.places)}"
        if predicted is not None:
            cells[PREDICTION] = list(predicted.frame.cells)
        if predicted is not None and self._has_truth(frame.id):
            found = scene.match(frame.cells, predicted.frame.cells)
            title += f", score {found.score:.3f}"
            cells = _compared(frame.cells, predicted.frame.cells, found)
        return picture.drawn(frame, {name: given for name, given in cells.items() if given}, title)

    # ------------------------------------------------------------------------------------ frames

    def _names(self) -> list[str]:
        layers = self._layers
        names = [TRUTH] if layers.annotated or self._corrected.path else []
        names += [PREDICTION] if layers.predictions else []
        names += [PSEUDO] if layers.pseudo else []
        return names + ([REMOVED] if layers.predictions else [])

    def _list(self) -> list[dict[str, Any]]:
        return [{"id": name, "why": why, **self._facts(name)} for name, why in self.places]

    def _facts(self, frame_id: str) -> dict[str, Any]:
        frame = self._corrected.frame(frame_id)
        category = frame.category or ""
        return {"type": category, "cells": len(frame.cells), "corrected": frame_id in self._corrected}

    def _has_truth(self, frame_id: str) -> bool:
        return self._layers.annotated or frame_id in self._corrected

    def _pseudo(self, frame_id: str) -> list[Cell]:
        frame = self._layers.pseudo.get(frame_id)
        return list(frame.cells) if frame else []

    def _scene(
        self, frame_id: str, asked: Thresholds, outlined: set[str], said: str = "", made: Sequence[int] = ()
    ) -> Reply:
        """A frame at thresholds.

        Args:
            frame_id: which frame.
            asked: score and mask threshold.
            outlined: what is sent beside the outlines of the predicted cells: the image, the outlines of
                other layers.
            said: a sentence about what was done.
            made: the places of annotated cells that an edit made.
        """
        frame, blocks = self._corrected.frame(frame_id), list[bytes]()
        predicted = self._layers.predicted(frame_id, asked)
        cells = self._cells(frame, predicted)
        columns, numbers = self._columns(frame, predicted, cells)
        outlined = {*outlined, PREDICTION} & {*cells, "image"}
        for name in sorted(outlined):
            blocks.append(picture.png(frame) if name == "image" else scene.packed(cells[name]))
        reply = {
            "kind": "scene",
            "frame": {"id": frame_id, "height": frame.height, "width": frame.width, **self._facts(frame_id)},
            "layers": columns,
            "numbers": numbers,
            "blocks": sorted(outlined),
            "said": said,
            "made": list(made),
        }
        return reply, blocks

    def _cells(self, frame: Frame, predicted: Predicted | None) -> dict[str, list[Cell]]:
        found = {TRUTH: list(frame.cells), PSEUDO: self._pseudo(frame.id)}
        if predicted is not None:
            found[PREDICTION] = list(predicted.frame.cells)
            found[REMOVED] = [each.cell for each in predicted.removed]
        return found

    def _columns(
        self, frame: Frame, predicted: Predicted | None, cells: Mapping[str, list[Cell]]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Columns about the cells of each layer, and the numbers of the frame."""
        columns = {name: scene.describe(given) for name, given in cells.items()}
        numbers: dict[str, Any] = {"cells": len(frame.cells)}
        if predicted is None:
            return columns, numbers
        annotated = frame.cells if self._has_truth(frame.id) else None
        columns[REMOVED] = scene.removed_columns(predicted.removed, annotated)
        numbers |= {
            "predicted": len(predicted.frame.cells),
            "score_threshold": predicted.score_threshold,
            "mask_threshold": predicted.mask_threshold,
        }
        if annotated is not None:
            found = scene.match(annotated, predicted.frame.cells)
            columns[TRUTH], columns[PREDICTION] = scene.compared(annotated, predicted.frame.cells, found)
            numbers |= {"score": found.score, "matched": found.pairs}
        return columns, numbers

    # ------------------------------------------------------------------------------------ corrections

    def _edit(self, request: Mapping[str, Any]) -> Reply:
        frame, asked = self._corrected.frame(request["id"]), _asked(request)
        edited = self._edited(frame, request, asked)
        self._corrected.change(frame.id, edited.cells)
        said = f"{_DONE[request['edit']]} in {frame.id}, saved"
        return self._scene(frame.id, asked, {TRUTH}, said, edited.made)

    def _edited(self, frame: Frame, request: Mapping[str, Any], asked: Thresholds) -> Edited:
        edit, chosen = request["edit"], request["cells"]
        if edit == "delete":
            return corrections.delete(frame.cells, chosen)
        if edit == "merge":
            return corrections.merge(frame.cells, chosen)
        if edit == "split":
            return corrections.split(frame.cells, chosen, request["points"])
        predicted = self._layers.predicted(frame.id, asked)
        if edit == "draw":
            return corrections.outline(frame, chosen, request["points"], self._category(frame, predicted))
        given = self._cells(frame, predicted)[request["layer"]]
        adopted = [given[place] for place in chosen]
        if not adopted:
            raise KitError("choose predicted cells to adopt first")
        before = len(frame.cells)
        return Edited((*frame.cells, *adopted), range(before, before + len(adopted)))

    def _category(self, frame: Frame, predicted: Predicted | None) -> str:
        """The type of a cell that is drawn: that of the frame, as annotated or else as predicted."""
        voted = voted_category((cell.category, 1.0) for cell in frame.cells)
        return frame.category or voted or (predicted and predicted.frame.category) or UNTYPED


_DONE = {"delete": "deleted", "split": "split", "merge": "merged", "draw": "outlined", "adopt": "adopted"}


def _asked(request: Mapping[str, Any]) -> Thresholds:
    return Thresholds(request.get("score"), request.get("mask"))


def _compared(
    annotated: Sequence[Cell], predicted: Sequence[Cell], found: scene.FrameMatch
) -> dict[str, list[Cell]]:
    """Matched and wrong predicted cells, and missed annotated ones."""
    partners = set(found.partner.tolist())
    return {
        scene.MATCHED: [cell for place, cell in enumerate(predicted) if place in partners],
        scene.WRONG: [cell for place, cell in enumerate(predicted) if place not in partners],
        scene.MISSED: [c for c, partner in zip(annotated, found.partner, strict=True) if partner < 0],
    }
