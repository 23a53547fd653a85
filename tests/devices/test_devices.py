"""Nothing of a training step or a prediction is left on the CPU, told without a GPU; see ``posing``."""

from __future__ import annotations

from typing import Any

import cv2
import pytest
import torch
from detectron2.utils.events import EventStorage
from posing import GPU, Posing, posing
from torch import nn

from kitlib.forecast import random_weights
from kitlib.inputs import ignored, mask_targets
from kitlib.predict.config import PredictConfig
from kitlib.predict.predictor import Predictor
from kitlib.train.build import build_loader, build_model
from kitlib.train.processes import Processes
from kitlib.train.trainer import Trainer

VIEWS = PredictConfig(
    scales_by_type={"cort": (1.2,), "astro": (0.8, 1.0)},
    tta=("none", "rot90"),
    candidate_mask_thresholds=(0.4,),
    score_floor=0.2,
    max_cells=30,
    batch=2,
    amp="bf16",
)


def test_a_posing_tensor_computes_and_refuses_one_of_the_cpu() -> None:
    with posing():
        ours = torch.arange(6.0, device="cuda").view(2, 3)
        assert ours.device == GPU
        assert ours.is_cuda
        assert (2 * ours + torch.tensor(1.0)).tolist() == [[1.0, 3.0, 5.0], [7.0, 9.0, 11.0]]
        assert torch.equal(ours[ours > 3].cpu(), torch.tensor([4.0, 5.0]))
        with pytest.raises(RuntimeError, match="expected all tensors on cuda:0"):
            ours + torch.ones(2, 3)
        with pytest.raises(TypeError, match="numpy"):
            ours.numpy()


def test_gradients_of_posing_tensors_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    image = torch.rand(1, 1, 9, 9)
    layers(image).pow(2).sum().backward()
    expected = [parameter.grad.clone() for parameter in layers.parameters()]
    with posing():
        layers.zero_grad()
        layers.to("cuda")
        layers(image.to("cuda")).pow(2).sum().backward()
        for parameter, gradient in zip(layers.parameters(), expected, strict=True):
            assert isinstance(parameter.grad, Posing)
            assert torch.allclose(parameter.grad.cpu(), gradient, atol=1e-5)


def step(config: Any, frames: Any) -> Trainer:
    """A trainer after a step."""
    model, _ = build_model(config, Processes(0, 1, GPU))
    random_weights.settle(model)
    trainer = Trainer(config, Processes(0, 1, GPU), model, build_loader(config, Processes(0, 1, GPU), frames))
    with EventStorage():
        batch = next(iter(trainer.loader))
        assert any(sample["instances"].has("gt_ignored") for sample in batch)
        outcome = trainer.step(batch)
    # The scaler of fp16 begins too high, and leaves out its first steps.
    assert outcome.applied or (config.amp == "fp16" and not outcome.faulty)
    assert {f"loss_mask_stage{stage}" for stage in range(3)} <= outcome.losses.keys()
    if trainer.average is not None:
        trainer.average.update(trainer.model)
    return trainer


@pytest.mark.parametrize(("preset", "amp"), [("r50", "fp16"), ("x152", "bf16")])
def test_a_step_and_a_prediction_leave_nothing_on_the_cpu(
    training: Any, frames: Any, preset: str, amp: str
) -> None:
    with posing():
        trainer = step(training(preset, amp=amp, ema_decay=0.9), frames)
        model = trainer.model
        random_weights.expect_cells(model)
        image = cv2.imread(str(frames[0].path), cv2.IMREAD_GRAYSCALE)
        found = Predictor([model], ("cort", "astro"), VIEWS)(image)
    assert all(found.tables)
    assert all(cell.mask["size"] == [96, 96] for cell in found.tables[0])


@pytest.mark.parametrize("owner", [mask_targets, ignored])
def test_a_tensor_left_on_the_cpu_is_noticed(
    training: Any, frames: Any, monkeypatch: pytest.MonkeyPatch, owner: Any
) -> None:
    """Each of two modules asks for a tensor without its device, as a careless change would."""

    class Careless:
        """torch, but ``arange`` and ``zeros`` forget the device."""

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        @staticmethod
        def arange(*args: Any, device: Any = None, **kwargs: Any) -> Any:
            return torch.arange(*args, **kwargs)

        @staticmethod
        def zeros(*args: Any, device: Any = None, **kwargs: Any) -> Any:
            return torch.zeros(*args, **kwargs)

    monkeypatch.setattr(owner, "torch", Careless())
    with posing(), pytest.raises(RuntimeError, match=r"expected all tensors on cuda:0|is on cpu"):
        step(training("tiny"), frames)
