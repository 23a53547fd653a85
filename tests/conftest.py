"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from kitlib.runtime import launch

settings.register_profile(
    "kit", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("kit")


def pytest_configure() -> None:
    """Give each of pytest-xdist's workers cores of its own: threads that share cores wait for each other.

    Threads that wait sleep, in these processes and in those that tests start.
    """
    os.environ.update(launch.environment())
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores, count = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        mine = cores[int(worker.removeprefix("gw")) % len(cores) :: count]
        os.sched_setaffinity(0, mine)
        os.environ.setdefault("OMP_NUM_THREADS", str(len(mine)))


# The files that take longest, the longest first: one of them begun last would leave the other cores idle.
_FIRST = (
    "notebooks/test_notebooks.py",
    "kaggle/test_rehearse.py",
    "inputs/test_ignored.py",
    "notebooks/test_own_images.py",
    "train/test_job.py",
    "stages/test_runner.py",
    "train/test_cluster.py",
    "train/test_paper.py",
    "setup/test_hygiene.py",
    "train/test_hanging.py",
    "predict/test_job.py",
    "train/test_shared_memory.py",
    "viewer/test_browser.py",
    "viewer/test_notebook.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests, put the files that take longest first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        rank = {Path(__file__).parent / name: place for place, name in enumerate(_FIRST)}
        items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real cells (``KIT_REAL_DATA``, or ../shared/data); skips where there is none."""
    default = Path(__file__).parents[1] / "../shared/data"
    folder = Path(os.environ.get("KIT_REAL_DATA") or default).resolve()
    if not (folder / "sartorius-real").is_dir():
        pytest.skip(
            f"no real cells: set KIT_REAL_DATA to a folder that holds sartorius-real/ (looked in {folder})"
        )
    return folder


@pytest.fixture(scope="session")
def real_competition(real_data: Path) -> Path:
    """The real competition folder (34 labelled frames)."""
    return real_data / "sartorius-real" / "sartorius-cell-instance-segmentation"


@pytest.fixture(scope="session")
def real_annotations(real_data: Path) -> Path:
    """41,479 real annotations of 506 images, without pixels."""
    return real_data / "sartorius-real" / "extra" / "train_annotations_no_hidden.csv.gz"


@pytest.fixture
def predict_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions run in the test's own process, by the same code: a child needs seconds to import torch."""
    from kitlib.predict import __main__, job
    from kitlib.runtime.progress import Row, follow

    def call(
        module: str, args: Sequence[str], out: Path, *, progress: str, on_row: Callable[[Row], None], **_: Any
    ) -> None:
        rows = follow(out / progress)
        next(rows)
        monkeypatch.setattr(sys, "argv", [module, *args])
        __main__.main()
        for row in next(rows):
            on_row(row)

    monkeypatch.setattr(job.launch, "launch", call)


@pytest.fixture
def storage() -> Iterator[Any]:
    """detectron2's heads log to one, and fail without."""
    from detectron2.utils.events import EventStorage

    with EventStorage() as events:
        yield events


@pytest.fixture
def item() -> Callable[..., dict[str, Any]]:
    """``item(cells, size=64, seed=0, classes=3)``: a model's input with rectangles of 8-20 px."""
    import torch
    from detectron2.structures import BitMasks, Boxes, Instances

    def make(cells: int, size: int = 64, seed: int = 0, classes: int = 3) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        corner = torch.randint(0, size - 20, (cells, 2), generator=generator)
        boxes = torch.cat([corner, corner + torch.randint(8, 21, (cells, 2), generator=generator)], 1)
        masks = torch.zeros(cells, size, size, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(boxes.float())
        instances.gt_classes = torch.randint(0, classes, (cells,), generator=generator)
        instances.gt_masks = BitMasks(masks)
        image = (120.0 + 40.0 * masks.any(0)).expand(3, size, size).clone()
        return {"image": image, "instances": instances, "height": size, "width": size}

    return make
