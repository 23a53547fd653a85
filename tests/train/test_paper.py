"""The paper's profile against detectron2's own values, key by key, every difference with its reason in
docs/paper.md; and the model at full size, trained, checkpointed and resumed on real frames."""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import GeneralizedRCNN, build_anchor_generator
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.solver.build import get_default_optimizer_params

import kitlib
from kitlib import config as configs
from kitlib import model as models
from kitlib import stages
from kitlib.data import competition
from kitlib.data.images import read_image
from kitlib.inputs.config import AugmentConfig
from kitlib.model import sources
from kitlib.model.architecture import to_cfg
from kitlib.model.detector import WeightedRCNN
from kitlib.model.presets import ModelConfig
from kitlib.predict.config import PredictConfig
from kitlib.records import write_frames
from kitlib.train import events, optim, resume
from kitlib.train.build import build
from kitlib.train.config import OptimConfig, TrainConfig
from kitlib.train.schedule import ScheduleConfig, cosine_periodic

ROOT = Path(kitlib.__file__).parents[1]
PAGE = (ROOT / "docs/paper.md").read_text()
PARAMETERS = stages.plan("paper").parameters
TRAININGS = ("02_pretrain_livecell", "03_train", "05_retrain")

#: detectron2's cascade with standard convolutions and fully connected heads, and its X-152 with neither.
CASCADE = "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"
X152 = "Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv.yaml"

#: Where `paper` differs from that cascade: the values here. docs/paper.md gives the reason for each.
DIFFERENCES = {
    "MODEL.RESNETS.DEPTH": 152,
    "MODEL.RESNETS.NUM_GROUPS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.WEIGHTS": "catalog://ImageNetPretrained/FAIR/X-152-32x8d-IN5k",
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.META_ARCHITECTURE": "WeightedRCNN",
    "MODEL.BACKBONE.NAME": "build_cell_fpn_backbone",
    "MODEL.BACKBONE.TIMM": "",
    "MODEL.BACKBONE.TIMM_NORM": "FrozenBN",
    "MODEL.PROPOSAL_GENERATOR.NAME": "IgnoringRPN",
    "MODEL.ROI_HEADS.NAME": "CascadeMaskPerStage",
    "MODEL.ROI_MASK_HEAD.NAME": "IgnoringMaskHead",
    "MODEL.ROI_MASK_HEAD.STAGES": "all",
    "SOLVER.MAX_ITER": 5000,
    "SOLVER.BASE_LR": 0.005,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.LR_SCHEDULER_NAME": "cosine_periodic",
    "SOLVER.CHECKPOINT_PERIOD": 500,
    "INPUT.MASK_FORMAT": "bitmask",
    "INPUT.MIN_SIZE_TRAIN": (640, 800),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
    "TEST.DETECTIONS_PER_IMAGE": 1000,
}
#: They say on what it runs, or belong to detectron2's own data sets and steps, which the kit does not use.
UNUSED = {"MODEL.DEVICE", "DATASETS.TRAIN", "DATASETS.TEST", "SOLVER.STEPS"}
LOSSES = {
    "loss_rpn_cls",
    "loss_rpn_loc",
    *(f"loss_{kind}_stage{stage}" for kind in ("cls", "box_reg", "mask") for stage in range(3)),
}


def flat(node, prefix=""):
    """A nested configuration as one table with keys such as MODEL.RESNETS.DEPTH."""
    table = {}
    for key, value in node.items():
        table |= flat(value, f"{prefix}{key}.") if hasattr(value, "items") else {prefix + key: value}
    return table


def different(ours, theirs):
    """The values of ``ours`` that are others in ``theirs``; None where they are missing in ours."""
    return {k: ours.get(k) for k in sorted(ours.keys() | theirs.keys()) if ours.get(k) != theirs.get(k)}


def model_config(stage):
    """The model that a stage trains; 05 takes that of 03."""
    given = PARAMETERS["03_train" if stage == "05_retrain" else stage]
    classes = 1 if stage == "02_pretrain_livecell" else 3
    return ModelConfig(given["preset"], classes, given["mask_stages"], given["model_options"])


def section(stage, cls, name):
    return configs.from_dict(cls, PARAMETERS[stage][name])


def training(stage):
    """What a stage's parameters say of the training and of prediction, in detectron2's words."""
    given = PARAMETERS[stage]
    schedule, optimiser = section(stage, ScheduleConfig, "schedule"), section(stage, OptimConfig, "optim")
    augment = section(stage, AugmentConfig, "augment")
    look = configs.from_dict(PredictConfig, PARAMETERS["03_train"]["predict_config"])
    assert (augment.flip, augment.flip_vertical, augment.rot90) == (True, False, False)
    assert augment.crop is None
    assert dataclasses.replace(augment, scale=(1.0, 1.0), flip_vertical=True, rot90=True) == AugmentConfig()
    assert optimiser.name == "sgd"
    assert max(augment.scale[1], *look.scales) * 704 <= 1333  # detectron2's longest side never matters
    fixed_in_the_kit = {
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
        "INPUT.MASK_FORMAT": "bitmask",
        "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range",
    }
    return fixed_in_the_kit | {
        "SOLVER.IMS_PER_BATCH": given["images_per_batch"],
        "SOLVER.MAX_ITER": given["max_iter"],
        "SOLVER.BASE_LR": schedule.max_lr,
        "SOLVER.LR_SCHEDULER_NAME": schedule.name,
        "SOLVER.WARMUP_ITERS": schedule.warmup_iters,
        "SOLVER.MOMENTUM": optimiser.momentum,
        "SOLVER.WEIGHT_DECAY": optimiser.weight_decay,
        "SOLVER.CLIP_GRADIENTS.ENABLED": optimiser.clip_norm > 0,
        "SOLVER.AMP.ENABLED": given["amp"] != "off",
        "SOLVER.CHECKPOINT_PERIOD": given["checkpoint_every"],
        "DATALOADER.NUM_WORKERS": given["workers"],
        "INPUT.MIN_SIZE_TRAIN": tuple(round(520 * scale) for scale in augment.scale),
        "INPUT.MIN_SIZE_TEST": round(520 * look.scales[0]),
        "TEST.AUG.ENABLED": (len(look.scales), look.tta, look.tile) != (1, ("none",), None),
        "TEST.DETECTIONS_PER_IMAGE": look.max_cells,
        "TEST.EVAL_PERIOD": given.get("eval_every", 0),
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": look.score_floor,
        "MODEL.WEIGHTS": sources.PUBLISHED[PARAMETERS["02_pretrain_livecell"]["weights"]]["x152"],
    }


# ------------------------------------------------------------------------------------ against detectron2


@pytest.mark.parametrize("stage", TRAININGS)
def test_every_value_is_detectron2s_but_for_those_with_a_reason(stage):
    ours = flat(to_cfg(model_config(stage))) | training(stage)
    found = different(ours, flat(model_zoo.get_config(CASCADE)))
    expected = DIFFERENCES | {"MODEL.ROI_HEADS.NUM_CLASSES": model_config(stage).num_classes}
    assert {key: value for key, value in found.items() if key not in UNUSED} == expected


@pytest.mark.parametrize("key", DIFFERENCES)
def test_each_difference_has_its_reason_on_the_page(key):
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{key}`" in line]
    assert len(rows) == 1
    reason = rows[0].strip("|").split("|")[-1].strip()
    assert len(reason.split()) >= 4, rows[0]


def test_the_backbone_is_the_zoos_x152_without_deformable_convolution():
    """So are its pixels: BGR means, nothing divided by a deviation."""
    ours, zoo = to_cfg(model_config("03_train")), model_zoo.get_config(X152)
    for part in ("RESNETS", "FPN", "ANCHOR_GENERATOR", "RPN", "ROI_BOX_CASCADE_HEAD"):
        found = different(flat(ours.MODEL[part]), flat(zoo.MODEL[part]))
        wanted = {"DEFORM_ON_PER_STAGE": [False] * 4} if part == "RESNETS" else {}
        assert found == wanted, part
    assert ours.MODEL.PIXEL_MEAN == zoo.MODEL.PIXEL_MEAN == [103.53, 116.28, 123.675]
    assert ours.MODEL.PIXEL_STD == zoo.MODEL.PIXEL_STD == [1.0, 1.0, 1.0]
    assert training("03_train")["MODEL.WEIGHTS"] == zoo.MODEL.WEIGHTS


@pytest.fixture(scope="module")
def model():
    """The model of 03 without storage."""
    with torch.device("meta"):
        return WeightedRCNN(to_cfg(model_config("03_train")))


def test_the_built_model_is_the_papers(model):
    kinds = {type(module).__name__ for module in model.modules()}
    assert not [name for name in kinds if "Deform" in name or "GroupNorm" in name]
    norms = [n for n, m in model.named_modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms
    assert all(name.startswith("backbone.bottom_up.") for name in norms)
    body = model.backbone.bottom_up
    assert [len(body.get_submodule(f"res{k}")) for k in (2, 3, 4, 5)] == [3, 8, 36, 3]
    assert body.res2[0].conv2.groups == 32
    frozen = [n for n, m in body.named_children() if not any(p.requires_grad for p in m.parameters())]
    assert frozen == ["stem", "res2"]
    assert len([*model.roi_heads.mask_head_stages, model.roi_heads.mask_head]) == 3
    assert [m.thresholds[1] for m in model.roi_heads.proposal_matchers] == [0.5, 0.6, 0.7]
    proposals, box = model.proposal_generator, model.roi_heads.box_predictor[2]
    assert (proposals.pre_nms_topk, proposals.post_nms_topk) == (
        {True: 2000, False: 1000},
        {True: 2000, False: 1000},
    )
    assert (box.test_nms_thresh, box.test_score_thresh, box.test_topk_per_image) == (0.5, 0.05, 1000)
    assert (proposals.batch_size_per_image, model.roi_heads.batch_size_per_image) == (256, 512)


def test_what_replaces_a_class_of_detectron2_is_one(model):
    for ours, theirs in {
        model: GeneralizedRCNN,
        model.proposal_generator: RPN,
        model.roi_heads: CascadeROIHeads,
        model.roi_heads.mask_head: MaskRCNNConvUpsampleHead,
    }.items():
        assert isinstance(ours, theirs)


def test_the_anchors_are_detectron2s():
    cfg = to_cfg(model_config("03_train"))
    anchors = build_anchor_generator(cfg, [ShapeSpec(stride=4 * 2**level) for level in range(5)])
    for side, cells in zip((32, 64, 128, 256, 512), anchors.cell_anchors, strict=True):
        width, height = cells[:, 2] - cells[:, 0], cells[:, 3] - cells[:, 1]
        torch.testing.assert_close((width * height).sqrt(), torch.full((3,), float(side)))
        torch.testing.assert_close(height / width, torch.tensor([0.5, 1.0, 2.0]))


def test_weight_decay_is_detectron2s(model):
    """Of every parameter, and SGD without Nesterov."""
    cfg = model_zoo.get_config(CASCADE).SOLVER
    norm = cfg.WEIGHT_DECAY_NORM
    theirs = get_default_optimizer_params(model, 0.005, cfg.WEIGHT_DECAY, weight_decay_norm=norm)
    config = section("03_train", OptimConfig, "optim")
    ours = optim.parameter_groups(model, config.weight_decay)
    wanted, found = (
        {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        for groups in (theirs, ours)
    )
    assert found == wanted
    [group] = optim.build(torch.nn.Linear(2, 2), config, 0.005).param_groups
    assert (group["momentum"], group["dampening"], group["nesterov"]) == (0.9, 0, False)


# ---------------------------------------------------------------------------------------------- training


def test_an_evaluation_at_the_end_keeps_the_last_weights(make_config, alone, tmp_path):
    build(make_config(max_iter=2, eval_every=PARAMETERS["03_train"]["eval_every"]), alone).run()
    best, last = (
        torch.load(tmp_path / f"out/weights_{name}.pth", weights_only=True) for name in ("best", "last")
    )
    assert best["iteration"] == last["iteration"] == 2
    assert all(torch.equal(best["model"][name], tensor) for name, tensor in last["model"].items())


def save_calibrated(preset: str, path: Path, image: torch.Tensor) -> Path:
    """Random weights with the statistics that an image gives them: frozen as they start they overflow."""
    torch.manual_seed(0)
    net = models.build(preset, norm="BN", freeze_at=0)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        net.backbone.bottom_up(net.preprocess_image([{"image": image}]).tensor)
    torch.save({"model": net.state_dict()}, path)
    return path


@pytest.mark.slow
def test_the_papers_profile_trains_for_two_iterations_and_resumes(real_competition, alone, tmp_path):
    profile, model = PARAMETERS["03_train"], model_config("03_train")
    frames = [f for f in competition.labelled(real_competition) if f.category == "cort"][:2]
    image = torch.tensor(read_image(frames[0].path)[:256, :256]).expand(3, -1, -1)
    config = TrainConfig(
        out=str(tmp_path / "out"),
        train=str(write_frames(tmp_path / "train.npz", frames)),
        categories=competition.CATEGORIES,
        weights=str(save_calibrated("x152", tmp_path / "start.pth", image)),
        model=model,
        augment=dataclasses.replace(configs.from_dict(AugmentConfig, profile["augment"]), crop=(256, 256)),
        schedule=configs.from_dict(ScheduleConfig, profile["schedule"]),
        optim=configs.from_dict(OptimConfig, profile["optim"]),
        max_iter=1,
        images_per_batch=1,
        workers=0,
    )
    build(config, alone).run()
    assert resume.load(config.out).checkpoint.iteration == 1
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
    assert {name for name in rows[0] if name.startswith("loss_")} == LOSSES
    shutil.rmtree(tmp_path)  # 4 GB
