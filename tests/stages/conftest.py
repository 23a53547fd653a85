"""Six notebooks with the kit's own parameters, which do what stages do within a second."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kitlib.stages import STAGES
from kitlib.stages import notebooks as nb

#: ``do.py`` beside the notebooks is run between what a stage writes first and what it writes last.
WORK = """\
import json, os, sys
from pathlib import Path
folder = Path(out, "STAGE")
max_iter = globals().get("max_iter", 10)
with (folder / "history.txt").open("a") as history:
    history.write(f"{max_iter}\\n")
exec(Path("do.py").read_text())
score = {"map": max_iter / 100} if "STAGE" in ("03_train", "05_retrain") else {}
values = {"stage": "STAGE", **score, "weights": "w.pth", "artefacts": ["history.txt"]}
(folder / "metrics.json").write_text(json.dumps(values))
"""

PAPER = """\
03_train: {max_iter: 5000, ema_decay: 0, gpus: 8}
04_pseudolabel:
05_retrain: {schedule: {max_lr: 1.0e-4}}
"""


def cell(kind: str, source: str, **metadata: Any) -> dict[str, Any]:
    outputs = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {
        "cell_type": kind,
        "id": hashlib.sha256(source.encode()).hexdigest()[:8],
        "metadata": metadata,
        "source": source,
        **outputs,
    }


def write_notebook(path: Path, *cells: dict[str, Any]) -> Path:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook))
    return path


@pytest.fixture(name="write_notebook")
def write_notebook_fixture():
    """``write_notebook(path, cell("code", source, tags=["parameters"]), ...)``, and ``cell``."""
    return write_notebook, cell


@pytest.fixture
def notebooks(tmp_path: Path) -> Path:
    """A folder with six notebooks, and profiles ``demo`` (empty) and ``paper``."""
    folder = tmp_path / "notebooks"
    for stage in STAGES:
        first = nb.code(nb.notebook(stage))[0]
        write_notebook(
            folder / f"{stage}.ipynb",
            cell("markdown", f"# {stage}\n\n| **takes** | two minutes on a CPU with the values below |"),
            cell("code", first.source, tags=["parameters"]),
            cell("code", WORK.replace("STAGE", stage)),
        )
    (folder / "do.py").write_text("")
    (folder / "profiles").mkdir()
    (folder / "profiles" / "demo.yaml").write_text("# nothing differs\n")
    (folder / "profiles" / "paper.yaml").write_text(PAPER)
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, which finds something everywhere."""
    import torch

    from kitlib import model
    from kitlib.model import checkpoint

    torch.manual_seed(0)
    network = model.build("tiny", detections=20, rpn_post_nms_topk=(40, 40))
    options = {"detections": 20, "rpn_post_nms_topk": [40, 40]}
    described = {"preset": "tiny", "num_classes": 3, "mask_stages": "all", "options": options}
    content = {"model_config": described, "categories": ["astro", "cort", "shsy5y"], "iteration": 1}
    path = tmp_path_factory.mktemp("weights") / "weights_best.pth"
    torch.save({**content, "model": network.state_dict()}, path)
    assert checkpoint.load(path).categories == ("astro", "cort", "shsy5y")
    return path


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two images in a folder and one in a folder below it."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.tif", "plate_1/a.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(90, 160, (64, 80)).astype(np.uint8)).save(path)
    return tmp_path / "scans"
