"""What a GPU computes is what the CPU computes: a step, a prediction, a resumed training.

Each test runs on the CPU as well, where it shows that it compares what it should; ``pytest -m gpu`` runs
those that need a GPU. Networks have random weights, and learn from all anchors and all boxes, so that nothing
depends on the random numbers of a device.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from kitlib.errors import KitError
from kitlib.forecast import random_weights
from kitlib.masks import rle
from kitlib.model import checkpoint
from kitlib.model.presets import ModelConfig
from kitlib.predict.config import PredictConfig
from kitlib.predict.predictor import Predictor
from kitlib.records import write_frames
from kitlib.train import resume
from kitlib.train.build import build, build_loader, build_model
from kitlib.train.processes import Processes
from kitlib.train.trainer import Trainer

CPU = torch.device("cpu")
ALL = {
    **{"rpn_pre_nms_topk": [60, 60], "rpn_post_nms_topk": [30, 30], "rpn_batch": 100_000, "roi_batch": 4_000},
    **{"box_width": 64, "mask_convs": 1, "mask_width": 32},
}
TINY = ModelConfig("tiny", 2, options=ALL)
on_each = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True
)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device of a test, in full precision unless a test asks for less; skips where there is none."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU here")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param)
    torch.backends.cudnn.allow_tf32 = before


def make_trainer(config: Any, frames: Any, device: torch.device) -> Trainer:
    here = Processes(0, 1, device)
    model, _ = build_model(config, here)
    random_weights.settle(model)
    return Trainer(config, here, model, build_loader(config, here, frames))


def losses_and_weights(config: Any, frames: Any, device: torch.device) -> tuple[dict[str, float], Any]:
    """The losses of two steps, one after the other, and the weights after them, on the CPU."""
    trainer = make_trainer(config, frames, device)
    batches, losses = iter(trainer.loader), {}
    with EventStorage():
        for number in range(2):
            outcome = trainer.step(next(batches))
            losses |= {f"{name} of step {number}": loss for name, loss in outcome.losses.items()}
    return losses, {name: tensor.cpu() for name, tensor in trainer.model.state_dict().items()}


@on_each
def test_two_steps_are_those_of_the_cpu(training: Any, frames: Any, device: torch.device) -> None:
    config = training("tiny", model=TINY)
    expected, weights = losses_and_weights(config, frames, CPU)
    found, moved = losses_and_weights(config, frames, device)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    for name, tensor in weights.items():
        assert torch.allclose(moved[name], tensor, rtol=1e-2, atol=1e-4), name


@pytest.mark.parametrize(
    ("device", "amp", "tolerance"),
    [
        ("cpu", "bf16", 0.1),
        pytest.param("cuda", "bf16", 0.1, marks=pytest.mark.gpu),
        pytest.param("cuda", "fp16", 0.03, marks=pytest.mark.gpu),
    ],
    indirect=["device"],
)
def test_a_step_in_mixed_precision_is_nearly_that_of_the_cpu(
    training: Any, frames: Any, device: torch.device, amp: str, tolerance: float
) -> None:
    """bf16 has 8 bits of precision, fp16 has 11."""
    whole, _ = losses_and_weights(training("tiny", model=TINY), frames, CPU)
    rounded, weights = losses_and_weights(training("tiny", model=TINY, amp=amp), frames, device)
    first = [name for name in whole if name.endswith("step 0")]
    assert sum(rounded[name] for name in first) == pytest.approx(
        sum(whole[name] for name in first), rel=tolerance
    )
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


@on_each
def test_a_prediction_is_that_of_the_cpu(training: Any, frames: Any, device: torch.device) -> None:
    model, _ = build_model(training("tiny", model=TINY), Processes(0, 1, CPU))
    random_weights.settle(model)
    random_weights.expect_cells(model)
    for predictor in model.roi_heads.box_predictor:
        # Scores that lie apart, so that rounding changes no order.
        nn.init.normal_(predictor.cls_score.weight, std=0.5)
    config = PredictConfig(tta=("none", "rot90"), score_floor=0.2, max_cells=20, batch=2)
    image = cv2.imread(str(frames[0].path), cv2.IMREAD_GRAYSCALE)
    (expected,) = Predictor([model], ("cort", "astro"), config)(image).tables
    (found,) = Predictor([model.to(device)], ("cort", "astro"), config)(image).tables
    assert len(expected) > 5
    assert [cell.category for cell in found] == [cell.category for cell in expected]
    assert [cell.score for cell in found] == pytest.approx([cell.score for cell in expected], abs=2e-3)
    overlap = rle.iou([cell.mask for cell in found], [cell.mask for cell in expected]).diagonal()
    assert (overlap > 0.97).all()


@on_each
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(
    training: Any, frames: Any, device: torch.device, tmp_path: Path
) -> None:
    """The second training begins with the checkpoint that the first one wrote half-way."""
    file = str(write_frames(tmp_path / "train.npz", frames))
    config = training("tiny", model=TINY, train=file, max_iter=4, checkpoint_every=2, ema_decay=0.9)
    whole, rest = (replace(config, out=str(tmp_path / name)) for name in ("whole", "rest"))
    build(whole, Processes(0, 1, device)).run()
    resume.last(rest.out).parent.mkdir(parents=True)
    shutil.copy(resume.previous(whole.out), resume.last(rest.out))
    build(rest, Processes(0, 1, device)).run()
    one, other = (checkpoint.load(Path(c.out) / "weights_last.pth").tensors for c in (whole, rest))
    # A GPU adds in any order.
    close = {"rtol": 0.0, "atol": 0.0} if device.type == "cpu" else {"rtol": 1e-2, "atol": 1e-4}
    for name, tensor in one.items():
        assert torch.allclose(other[name], tensor, **close), name


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_too_little_memory_is_told_with_what_to_change(
    training: Any, frames: Any, device: torch.device
) -> None:
    trainer = make_trainer(training("tiny", model=TINY), frames, device)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (4 << 20)) / total)
    try:
        with (
            EventStorage(),
            pytest.raises(KitError, match=r"out of GPU memory on the images frame.*images_per_batch"),
        ):
            trainer.step(next(iter(trainer.loader)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
