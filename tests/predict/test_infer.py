"""Inference: what becomes of raw instances, with a stand-in whose output is known, and a real tiny model."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kitlib import rle
from kitlib.errors import KitError
from kitlib.model import compat
from kitlib.predict.config import PredictConfig
from kitlib.predict.infer import predict_frame, predict_frames
from kitlib.records import Frame

compat.apply()  # before detectron2 is imported
from detectron2.structures import Boxes, Instances  # noqa: E402

CATEGORIES = ("astro", "cort", "shsy5y")


def instances(size, boxes, scores, classes=None, squares=None):
    n = len(boxes)
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(n, 4)),
        scores=torch.tensor(scores, dtype=torch.float32),
        pred_classes=torch.tensor(classes or [0] * n, dtype=torch.int64),
        pred_masks=torch.ones(n, 1, 28, 28) if squares is None else squares,
    )


class Known(nn.Module):
    """A model that finds what it is told to, by the grey level of the image's first pixel."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.seen = answers, []

    def inference(self, inputs, do_postprocess=True):
        assert not do_postprocess
        assert not self.training
        self.seen += [tuple(i["image"].shape) for i in inputs]
        return [self.answers[int(i["image"][0, 0, 0])] for i in inputs]


def image(level=0, size=(40, 60)):
    return np.full(size, level, np.uint8)


def mask_of(cell):
    return rle.to_mask(cell.mask)


def test_cells_come_best_first_with_their_category():
    model = Known([instances((40, 60), [[0, 0, 5, 5], [10, 10, 20, 18]], [0.3, 0.9], [2, 1])])
    best, other = predict_frame(model, image(), PredictConfig(), CATEGORIES)
    assert (best.category, other.category) == ("cort", "shsy5y")
    assert best.score == pytest.approx(0.9)
    assert best.mask_score == pytest.approx(1.0)
    expected = np.zeros((40, 60), bool)
    expected[10:18, 10:20] = True
    np.testing.assert_array_equal(mask_of(best), expected)


def test_equal_scores_keep_the_model_s_order():
    model = Known([instances((40, 60), [[i, 0, i + 5, 5] for i in range(20)], [0.5] * 20)])
    cells = predict_frame(model, image(), PredictConfig(), CATEGORIES)
    assert [rle.boxes([c.mask])[0][0] for c in cells] == list(range(20))


def test_the_network_sees_the_scaled_image_and_masks_come_back_in_the_frame():
    model = Known([instances((60, 90), [[15, 15, 30, 27]], [0.9])])
    (cell,) = predict_frame(model, image(), PredictConfig(scales=(1.5,)), CATEGORIES)
    assert model.seen == [(3, 60, 90)]
    assert rle.boxes([cell.mask]).tolist() == [[10, 10, 20, 18]]
    assert rle.height_width(cell.mask) == (40, 60)


def test_rounded_sizes_are_stretched_on_each_axis():
    model = Known([instances((8, 13), [[0, 0, 13, 8]], [0.9])])  # 0.21 x (40, 60) is 8.4 x 12.6
    (cell,) = predict_frame(model, image(), PredictConfig(scales=(0.21,)), CATEGORIES)
    assert model.seen == [(3, 8, 13)]
    assert mask_of(cell).all()


def test_floor_limit_and_masks_that_vanish():
    boxes = [[0, 0, 9, 9], [10, 0, 19, 9], [20, 0, 29, 9], [30, 0, 30.2, 0.2], [40, 0, 49, 9]]
    model = Known([instances((40, 60), boxes, [0.9, 0.2, 0.8, 0.95, 0.1])])
    cells = predict_frame(model, image(), PredictConfig(score_floor=0.15, max_cells=3), CATEGORIES)
    assert [round(c.score, 2) for c in cells] == [0.9, 0.8]  # the best vanished


def test_the_mask_threshold_and_the_mean_probability():
    squares = torch.full((1, 1, 28, 28), 0.48)
    squares[:, :, :, 14:] = 0.8
    model = Known([instances((40, 60), [[0, 0, 28, 28]], [0.9], squares=squares)])
    (half,) = predict_frame(model, image(), PredictConfig(), CATEGORIES)
    assert mask_of(half).sum() == 28 * 14
    assert half.mask_score == pytest.approx(0.8)
    (whole,) = predict_frame(model, image(), PredictConfig(mask_threshold={"default": 0.45}), CATEGORIES)
    assert mask_of(whole).sum() == 28 * 28
    assert whole.mask_score == pytest.approx(0.64)


def test_nothing_found():
    model = Known([instances((40, 60), [], [])])
    assert predict_frame(model, image(), PredictConfig(), CATEGORIES) == ()


@pytest.fixture
def frames(tmp_path):
    made = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.fromarray(image(i)).save(path)
        made.append(Frame(str(i), path, 40, 60, category="cort", group="g"))
    return made


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_frames_keep_their_order_whatever_the_batch(frames, batch):
    model = Known([instances((40, 60), [[i, 0, i + 5, 5]], [0.9]) for i in range(5)])
    found = list(predict_frames(model, frames, PredictConfig(batch=batch), CATEGORIES))
    assert [f.id for f in found] == [f.id for f in frames]
    assert [rle.boxes([f.cells[0].mask])[0][0] for f in found] == list(range(5))
    assert found[0].group == "g"
    assert model.training  # as it came in


def test_no_frames_no_predictions():
    assert list(predict_frames(Known([]), [], PredictConfig(), CATEGORIES)) == []


def test_a_bad_image_is_named(frames, tmp_path):
    model = Known([instances((40, 60), [], [])] * 5)
    with pytest.raises(KitError, match="frame x has no image file"):
        list(predict_frames(model, [Frame("x", None, 40, 60)], PredictConfig(), CATEGORIES))
    frames[1].path.write_bytes(frames[0].path.read_bytes()[:60])
    with pytest.raises(KitError, match=r"1\.png"):
        list(predict_frames(model, frames, PredictConfig(), CATEGORIES))


def test_the_same_masks_as_detectron2_s_own_postprocessing(network, images):
    config = PredictConfig(scales=(1.5,), score_floor=0.0, max_cells=30)
    network.eval()
    for frame in images[:2]:
        grey = np.asarray(Image.open(frame.path))
        cells = predict_frame(network, grey, config, CATEGORIES)
        larger = cv2.resize(grey, (192, 144), interpolation=cv2.INTER_LINEAR)
        given = {"image": torch.from_numpy(larger).expand(3, -1, -1), "height": 96, "width": 128}
        with torch.inference_mode():
            theirs = network.inference([given])[0]["instances"]
        full = [m for m in theirs.pred_masks.numpy() if m.any()]
        assert len(cells) > 10
        for cell, mask in zip(cells, full, strict=False):
            ours = mask_of(cell)
            assert (ours & mask).sum() >= 0.99 * (ours | mask).sum() - 1
    network.train()


def test_the_floor_and_the_limit_hold_in_the_network_and_are_put_back(network, images):
    grey = np.asarray(Image.open(images[0].path))
    before = [(p.test_score_thresh, p.test_topk_per_image) for p in network.roi_heads.box_predictor]
    cells = predict_frame(network, grey, PredictConfig(score_floor=0.0, max_cells=7), CATEGORIES)
    assert 3 < len(cells) <= 7
    between = (cells[2].score + cells[3].score) / 2
    fewer = predict_frame(network, grey, PredictConfig(score_floor=between, max_cells=7), CATEGORIES)
    assert [c.score for c in fewer] == pytest.approx([c.score for c in cells[:3]], abs=1e-5)
    assert before == [(p.test_score_thresh, p.test_topk_per_image) for p in network.roi_heads.box_predictor]
