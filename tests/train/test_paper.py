"""The paper's profile at full size: ResNeXt-152-32x8d trained, checkpointed and resumed on real frames."""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch

import kitlib
from kitlib import config as configs
from kitlib import model as models
from kitlib.data import competition
from kitlib.data.images import read_image
from kitlib.model.augment import AugmentConfig
from kitlib.model.presets import ModelConfig
from kitlib.records import write_frames
from kitlib.train import checkpoint, events
from kitlib.train.build import build
from kitlib.train.config import OptimConfig, TrainConfig
from kitlib.train.schedule import ScheduleConfig, cosine_periodic

PROFILE = Path(kitlib.__file__).parents[1] / "notebooks/profiles/paper.yaml"


def save_calibrated(preset: str, path: Path, image: torch.Tensor) -> Path:
    """Random weights with the statistics that an image gives them: frozen as they start they overflow."""
    torch.manual_seed(0)
    net = models.build(preset, norm="BN", freeze_at=0)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        net.backbone.bottom_up(net.preprocess_image([{"image": image}]).tensor)
    return checkpoint.save_weights(path, {"model": net.state_dict()})


@pytest.mark.slow
def test_the_papers_profile_trains_for_two_iterations_and_resumes(real_competition, alone, tmp_path):
    profile = configs.read_yaml(PROFILE)["03_train"]
    assert profile["preset"] == "x152"
    frames = [f for f in competition.labelled(real_competition) if f.category == "cort"][:2]
    image = torch.tensor(read_image(frames[0].path)).expand(3, -1, -1)
    config = TrainConfig(
        out=str(tmp_path / "out"),
        train=str(write_frames(tmp_path / "train.npz", frames)),
        categories=competition.CATEGORIES,
        weights=str(save_calibrated("x152", tmp_path / "start.pth", image)),
        model=ModelConfig("x152"),
        augment=dataclasses.replace(configs.from_dict(AugmentConfig, profile["augment"]), crop=(384, 384)),
        schedule=configs.from_dict(ScheduleConfig, profile["schedule"]),
        optim=configs.from_dict(OptimConfig, profile["optim"]),
        max_iter=1,
        images_per_batch=1,
        workers=0,
    )
    build(config, alone).run()
    assert checkpoint.load(config.out).state["iteration"] == 1
    (tmp_path / "start.pth").unlink()  # a resumed training needs its checkpoint only
    build(dataclasses.replace(config, max_iter=2), alone).run()
    rows = [row for row in events.read(config.out) if "total_loss" in row]
    assert [row["iteration"] for row in rows] == [1, 2]
    assert [row["lr"] for row in rows] == [cosine_periodic(t, 0.005, 1e-5, 200) for t in (0, 1)]
    for stage in range(3):
        assert rows[0][f"loss_mask_stage{stage}"] == pytest.approx(
            math.log(2), abs=0.2
        )  # it knows nothing yet
        assert math.isfinite(rows[1][f"loss_mask_stage{stage}"])
    assert all(math.isfinite(value) for row in rows for value in row.values())
    shutil.rmtree(tmp_path)  # 4 GB
