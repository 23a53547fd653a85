"""Masks in the boxes of true cells: in the right place, of the right class, whatever the scale and tiles."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kitlib import records
from kitlib.masks import rle
from kitlib.predict import PredictConfig, PredictJob, models, run, true_boxes
from kitlib.predict.predictor import Predictor
from kitlib.records import Cell, Frame

CATEGORIES = ("astro", "cort", "shsy5y")
HEIGHT, WIDTH = 96, 128


class Bright(nn.Module):
    """Draws what is bright in each box that it is given, if it is given the class of cort."""

    def inference(self, inputs, given, do_postprocess=True):
        assert not do_postprocess
        ((image,), (cells,)) = [i["image"][0].numpy() for i in inputs], given
        squares = np.zeros((len(cells), 1, 144, 144), np.float32)
        for square, box in zip(squares, cells.pred_boxes.tensor.tolist(), strict=True):
            x0, y0, x1, y1 = map(round, box)
            rows, columns = (np.arange(144) * side // 144 for side in (y1 - y0, x1 - x0))
            square[0] = image[y0:y1, x0:x1][np.ix_(rows, columns)] > 127
        cells.pred_masks = torch.from_numpy(squares)
        cells.pred_masks[cells.pred_classes != 1] = 0
        return given


def frame_of(*boxes, category="cort"):
    """A frame with an L in each box, and its image: the Ls are bright."""
    image, cells = np.zeros((HEIGHT, WIDTH), np.uint8), []
    for x, y, side in boxes:
        shape = np.ones((side, side), bool)
        shape[: side // 2, side // 2 :] = False
        image[y : y + side, x : x + side][shape] = 255
        cells.append(Cell(rle.from_crop(shape, x, y, HEIGHT, WIDTH), category))
    return Frame("a", None, HEIGHT, WIDTH, tuple(cells), category), image


BOXES = [(4, 6, 12), (40, 6, 18), (60, 40, 12), (100, 70, 24)]


@pytest.mark.parametrize(
    "config",
    [
        PredictConfig(),
        PredictConfig(scales=(2.0, 1.0), tta=("flip_h", "none")),
        PredictConfig(scales=(2.0,), tile=(48, 64), stride=(24, 32)),
        PredictConfig(scales_by_type={"cort": (3.0,)}),
        PredictConfig(max_cells=1, score_floor=0.9),
    ],
)
def test_each_true_cell_is_drawn_in_its_box(config):
    frame, image = frame_of(*BOXES)
    drawn = true_boxes.draw(Predictor([Bright()], CATEGORIES, config), image, frame)
    assert {cell.category for cell in drawn} == {"cort"}
    iou = rle.iou([cell.mask for cell in frame.cells], [cell.mask for cell in drawn])
    assert iou.shape == (4, 4)
    assert (iou.max(axis=1) > 0.99).all()


def test_the_masks_are_those_of_the_cell_s_type_and_empty_ones_are_left_out():
    frame, image = frame_of(*BOXES, category="astro")
    assert true_boxes.draw(Predictor([Bright()], CATEGORIES, PredictConfig()), image, frame) == ()
    frame, image = frame_of()
    assert true_boxes.draw(Predictor([Bright()], CATEGORIES, PredictConfig()), image, frame) == ()


def test_short_of_memory_nothing_is_drawn():
    class Large(Bright):
        def inference(self, inputs, given, do_postprocess=True):
            raise MemoryError

    frame, image = frame_of(*BOXES)
    assert true_boxes.draw(Predictor([Large()], CATEGORIES, PredictConfig()), image, frame) == ()


def test_a_network_draws_in_its_own_boxes_what_it_has_predicted(network):
    _, image = frame_of(*BOXES)
    with models.ready([network], 0.0, 10):
        (found,) = models.infer(network, [image])
        expected = found.pred_masks[:, 0].numpy().copy()
        found.remove("pred_masks")
        drawn = models.masks_in(network, image, found)
    assert len(drawn) == 10
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


@pytest.mark.usefixtures("predict_here")
def test_a_job_draws_besides_what_it_predicts(tmp_path, checkpoint):
    frame, image = frame_of(*BOXES)
    Image.fromarray(image).save(tmp_path / "a.png")
    frames = records.write_frames(
        tmp_path / "frames.npz", [Frame("a", tmp_path / "a.png", HEIGHT, WIDTH, frame.cells, "cort")]
    )
    config = PredictConfig(score_floor=0.0, max_cells=6, candidate_mask_thresholds=(0.4, 0.5))
    job = PredictJob((str(checkpoint),), str(frames), str(tmp_path / "out.csv"), config, in_true_boxes=True)
    result = run(job)
    (drawn,) = result.in_true_boxes
    assert drawn.id == "a"
    boxes, found = (rle.boxes([cell.mask for cell in cells]) for cells in (frame.cells, drawn.cells))
    assert 0 < len(found) <= len(boxes)
    for x0, y0, x1, y1 in found.tolist():
        assert ((boxes[:, :2] <= (x0, y0)) & (boxes[:, 2:] >= (x1, y1))).all(axis=1).any()
    assert [len(found[0].cells) for found in result.by_mask_threshold.values()] == [6, 6]
