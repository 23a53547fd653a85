"""A network in TorchScript: the same output at sizes and numbers of cells that it was not traced with."""

import json

import pytest
import torch

from kitlib import model
from kitlib.errors import KitError
from kitlib.model import heads
from kitlib.predict import traced
from kitlib.predict.config import PredictConfig
from kitlib.predict.models import infer, load_model, ready

CONFIG = PredictConfig(score_floor=0.4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model with random weights and scores far apart."""
    torch.manual_seed(1)
    network = model.build("tiny", detections=40, rpn_post_nms_topk=(40, 40))
    for predictor in network.roi_heads.box_predictor:
        predictor.cls_score.weight.data *= 30
    options = {"detections": 40, "rpn_post_nms_topk": [40, 40]}
    described = {"preset": "tiny", "num_classes": 3, "mask_stages": "all", "options": options}
    content = {"model_config": described, "categories": ["astro", "cort", "shsy5y"], "iteration": 1}
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save({**content, "model": network.state_dict()}, path)
    return path


@pytest.mark.slow
def test_output_is_the_network_s(weights, tmp_path, monkeypatch):
    # The network itself makes masks in chunks.
    monkeypatch.setattr(heads, "CPU_CHUNK", 16)
    assert traced.write(weights, tmp_path / "w.pt", CONFIG) == ("astro", "cort", "shsy5y")
    extra = {"categories.json": ""}
    network = torch.jit.load(str(tmp_path / "w.pt"), _extra_files=extra)
    assert json.loads(extra["categories.json"]) == ["astro", "cort", "shsy5y"]
    original = load_model(weights).model
    counts = set()
    rng = torch.Generator().manual_seed(5)
    for height, width, spread in ((64, 64, 60), (97, 130, 40), (40, 80, 1)):
        image = (128 + torch.randint(-spread, spread, (height, width), generator=rng)).to(torch.uint8)
        boxes, scores, classes, masks = network(image.expand(3, -1, -1))
        with ready([original], CONFIG.score_floor, CONFIG.max_cells):
            (found,) = infer(original, [image.numpy()])
        counts.add(len(found))
        assert torch.allclose(boxes, found.pred_boxes.tensor, atol=1e-4)
        assert torch.allclose(scores, found.scores, atol=1e-4)
        assert torch.allclose(masks, found.pred_masks, atol=1e-4)
        assert classes.tolist() == found.pred_classes.tolist()
    assert len(counts) > 1
    assert max(counts) > 32


def test_another_output_is_refused(weights):
    same = (torch.zeros(2, 4), torch.ones(2), torch.zeros(2), torch.zeros(2, 1, 28, 28))
    traced._check_equal(same, same, weights)
    for other in (torch.zeros(2), torch.ones(3)):
        with pytest.raises(KitError, match="gives other results in TorchScript"):
            traced._check_equal((same[0], other, *same[2:]), same, weights)
