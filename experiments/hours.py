"""Hours and memory that the profiles for GPUs should take, calculated; prints README's figures.

python experiments/hours.py [PROFILE ...]

Counts the floating-point operations of whole models on this machine's CPU: a training step with all losses
and its backward pass, mask branches included, and a look at a frame. detectron2's authors measured a V100
(their MODEL_ZOO.md: cascade R50, 0.328 s for two images of a training step, 0.053 s for an image at
inference); the share of its peak that this is, by the same counting, is taken for all models. Another card is
taken to be as much faster as its memory or its arithmetic, whichever gains less, and mixed precision as 1.5
times as fast. What prepares images and matches cells in an evaluation is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kitlib import stages
from kitlib.model import build

# isort: split
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

#: (peak TFLOP/s of convolutions, GB/s), from NVIDIA's data sheets; TF32 where a card has it: PyTorch's
#: default.
CARDS = {"V100": (15.7, 900), "RTX 3090": (35.6, 936), "A100": (156, 1555), "L4": (60, 300), "T4": (8.1, 320)}
#: What tensor cores do with 16 bits, of which a card may use them.
HALF = {"RTX 3090": 71, "A100": 312, "L4": 121, "T4": 65}
MIXED_PRECISION = 1.5
PUBLISHED = {"train": 0.328 / 2, "predict": 0.053}  # seconds an image, cascade R50 on a V100

FRAME = (520, 704)
# Boxes that match a cell: a quarter of the 512 that each cascade stage learns from. A trained model proposes
# several boxes for a cell, so that frames of 121 cells, as the competition's have on average, reach that.
MATCHED, CELL = 128, 16  # and the side of a cell in pixels
COCO_MATCHED = 40  # 7 objects in an image, by some six boxes each
DETECTIONS = 250  # that get masks: a score floor of 0.05 leaves about twice as many as there are cells
LABELLED, UNLABELLED, TEST = 606, 1972, 240
TRAININGS = ("02_pretrain_livecell", "03_train", "05_retrain")


@dataclass
class Count:
    """Floating-point operations by part of the model, and bytes that wait for the backward pass."""

    operations: float = 0.0
    mask_operations: float = 0.0
    saved: float = 0.0
    weights: float = 0.0


def frame(height: int, width: int, cells: int, side: int) -> dict[str, Any]:
    """A training sample with square cells spread over a frame."""
    generator = torch.Generator().manual_seed(0)
    corner = (torch.rand(cells, 2, generator=generator) * torch.tensor([width - side, height - side])).int()
    boxes = torch.cat([corner, corner + side], 1)
    masks = torch.zeros(cells, height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    instances = Instances((height, width))
    instances.gt_boxes, instances.gt_masks = Boxes(boxes.float()), BitMasks(masks)
    instances.gt_classes = torch.zeros(cells, dtype=torch.int64)
    image = (120.0 + 40.0 * masks.any(0)).expand(3, height, width).clone()
    return {"image": image, "instances": instances, "height": height, "width": width}


@contextmanager
def saved_bytes(model: nn.Module, count: Count) -> Iterator[None]:
    """Add to ``count`` the tensors that the forward pass keeps, each once, weights left out."""
    seen = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            count.saved += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


@contextmanager
def grouped_surplus(model: nn.Module) -> Iterator[list[float]]:
    """Collect what PyTorch's counter adds too much: it ignores groups in the weights' gradient."""
    surplus: list[float] = []

    def add(layer: nn.Conv2d, _: Any, output: torch.Tensor) -> None:
        if layer.weight.requires_grad:
            without_groups = 2.0 * output[:, 0].numel() * layer.weight.numel() * layer.groups
            surplus.append(without_groups * (1 - 1 / layer.groups))

    hooks = [m.register_forward_hook(add) for m in model.modules() if getattr(m, "groups", 1) > 1]
    yield surplus
    for hook in hooks:
        hook.remove()


def training(model: nn.Module, sample: dict[str, Any]) -> Count:
    """One image forward and backward.

    A trained model keeps most of the boxes that match a cell from stage to stage. Random weights would move
    them away; here no box is moved, and each stage's mask branch sees the boxes of all cells.
    """
    count = Count(weights=sum(4.0 * p.numel() for p in model.parameters()))
    model.train()
    for predictor in model.roi_heads.box_predictor:
        nn.init.zeros_(predictor.bbox_pred.weight)
    with FlopCounterMode(display=False) as counter, EventStorage():
        with saved_bytes(model, count), grouped_surplus(model) as surplus:
            losses = sum(model([sample]).values())
        by_module = counter.get_flop_counts()
        masks = sum(sum(v.values()) for name, v in by_module.items() if _is_mask_branch(name))
        losses.backward()
    model.zero_grad(set_to_none=True)
    count.operations = float(counter.get_total_flops()) - sum(surplus)
    count.mask_operations = 3.0 * masks  # the gradients of inputs and of weights cost as much again, each
    return count


def _is_mask_branch(name: str) -> bool:
    *_, parent, module = ["", *name.split(".")]
    return module == "mask_head" or parent == "mask_head_stages"


@torch.no_grad()
def looking(model: nn.Module, height: int, width: int, detections: int) -> float:
    """Operations of one view of a frame, with masks for ``detections`` cells."""
    model.eval()
    for predictor in model.roi_heads.box_predictor:
        predictor.test_score_thresh = 1.0  # random weights would give every proposal a mask
    with FlopCounterMode(display=False) as counter:
        model([{"image": torch.full((3, height, width), 128.0), "height": height, "width": width}])
    heads = [model.roi_heads.mask_head, *getattr(model.roi_heads, "mask_head_stages", ())]
    with FlopCounterMode(display=False) as masks:
        for head in heads:
            head.layers(torch.zeros(1, 256, 14, 14))
    return counter.get_total_flops() + detections * masks.get_total_flops()


def sides(augment: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of a training view in the middle of its scales."""
    scale = sum(augment["scale"]) / 2
    whole = [round(side * scale) for side in FRAME]
    return tuple(map(min, whole, augment.get("crop") or whole))


@dataclass
class Work:
    """What a profile computes: operations in fp32 and in mixed precision, of training and of prediction."""

    train: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    predict: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})

    def hours(self, card: str, shares: Mapping[str, float]) -> float:
        """GPU hours on one card."""
        return sum(
            work[half] / (shares[kind] * 1e12 * CARDS["V100"][0] * speed(card, half)) / 3600
            for kind, work in (("train", self.train), ("predict", self.predict))
            for half in work
        )


def speed(card: str, half: bool) -> float:
    """How many times as fast as a V100 in fp32."""
    peak, bandwidth = CARDS[card]
    if not half or card not in HALF:
        return min(peak / CARDS["V100"][0], bandwidth / CARDS["V100"][1])
    with_half = min(HALF[card] / CARDS["V100"][0], 2 * bandwidth / CARDS["V100"][1])
    return min(with_half, MIXED_PRECISION * bandwidth / CARDS["V100"][1])


def shares_of_peak() -> dict[str, float]:
    """What share of a V100's peak detectron2's published cascade R50 reaches, by the same counting."""
    stock = {"rpn_pre_nms_topk": (2000, 1000), "rpn_post_nms_topk": (1000, 1000)}
    model = build("r50", 80, "last", **stock)
    operations = {
        "train": training(model, frame(800, 1088, COCO_MATCHED, 120)).operations,
        "predict": looking(model, 800, 1088, 30),
    }
    peak = 1e12 * CARDS["V100"][0]
    return {kind: count / PUBLISHED[kind] / peak for kind, count in operations.items()}


def profile(name: str, shares: Mapping[str, float]) -> None:
    """Print what a profile should take."""
    plan = stages.plan(name).parameters
    work, folds = Work(), (5 if plan["03_train"]["fold"] < 0 else 1)
    looks = plan["03_train"]["predict_config"]
    counted: dict[str, Count] = {}
    for stage in TRAININGS:
        values = {**plan["03_train"], **plan[stage]}
        model = build(values["preset"], 3, values["mask_stages"], **values["model_options"])
        height, width = sides(values["augment"])
        key = f"{values['preset']} {height} x {width}"
        if key not in counted:
            side = round(CELL * sum(values["augment"]["scale"]) / 2)
            counted[key] = training(model, frame(height, width, MATCHED, side))
            _tell(name, key, counted[key], shares, values["amp"] != "off")
        trainings = 1 if stage == TRAININGS[0] else folds
        images = trainings * values["max_iter"] * values["images_per_batch"]
        work.train[values["amp"] != "off"] += images * counted[key].operations
    view = sum(
        looking(model, *(round(side * scale) for side in FRAME), DETECTIONS) for scale in looks["scales"]
    ) * len(looks.get("tta", [1]))
    held_out = LABELLED * folds // 5
    evaluations = sum(
        1 + (plan[s]["max_iter"] // plan[s]["eval_every"] if plan[s]["eval_every"] else 1)
        for s in TRAININGS[1:]
    )
    frames = evaluations * held_out + folds * (UNLABELLED + TEST)
    work.predict[looks.get("amp", "off") != "off"] += frames * view
    print(f"{name}: {view / 1e12:.2f} TFLOP a frame at prediction, {frames:,} frames")
    hours = "  ".join(f"{card} {work.hours(card, shares):.1f}" for card in CARDS)
    print(f"{name}: GPU hours  {hours}\n")


def _tell(name: str, key: str, count: Count, shares: Mapping[str, float], half: bool) -> None:
    saved = count.saved / 2**30 * (0.6 if half else 1.0)  # normalisation and losses stay in 32 bits
    # Weights, gradients, momentum, and their average or the copy that is sent; CUDA itself and its work
    # space.
    fixed = 4 * count.weights / 2**30 + 1.5
    seconds = count.operations / (shares["train"] * 1e12 * CARDS["V100"][0])
    print(
        f"{name}: {key}: {count.operations / 1e12:.2f} TFLOP an image in training, "
        f"{count.mask_operations / count.operations:.0%} of it in mask branches; "
        f"{seconds:.3f} s on a V100 in fp32; memory {fixed:.1f} GiB + {saved:.1f} GiB an image",
        flush=True,
    )


def main() -> None:
    """Print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profiles", nargs="*", default=["t4", "paper", "gold"])
    torch.manual_seed(0)
    shares = shares_of_peak()
    print("share of a V100's peak:", "  ".join(f"{kind} {share:.0%}" for kind, share in shares.items()))
    for name in parser.parse_args().profiles:
        profile(name, shares)


if __name__ == "__main__":
    main()
