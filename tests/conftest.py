"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from kitlib.runtime import threads

settings.register_profile(
    "kit", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("kit")


def pytest_configure() -> None:
    """Give each of pytest-xdist's workers cores of its own: threads that share cores wait for each other.

    Threads that wait sleep, in these processes and in those that tests start.
    """
    os.environ.update(threads.environment())
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores, count = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        mine = cores[int(worker.removeprefix("gw")) % len(cores) :: count]
        os.sched_setaffinity(0, mine)
        os.environ.setdefault("OMP_NUM_THREADS", str(len(mine)))


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
