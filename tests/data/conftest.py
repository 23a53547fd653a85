"""A competition folder small enough to know by heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kitlib.data.synthetic import full_size

HEIGHT, WIDTH = 6, 8

#: Ids that a careless reader takes for numbers: 30 x 10^5 with zeros, an integer, a float.
ANNOTATIONS = """id,annotation,width,height,cell_type,plate_time,sample_date,sample_id,elapsed_timedelta
0030e5,1 2 9 2,8,6,shsy5y,11h30m00s,2019-06-16,shsy5y[diff]_E10-4_Vessel-714_Ph_3,0 days 11:30:00
0030e5,48 1,8,6,shsy5y,11h30m00s,2019-06-16,shsy5y[diff]_E10-4_Vessel-714_Ph_3,0 days 11:30:00
001234567890,10 3 18 3,8,6,cort,,,,
1e1234567890,20 4,8,6,astro,,,,
1e1234567890,21 4,8,6,astro,,,,
"""
UNLABELLED = (
    "astros[cereb]_D1-1_Vessel-361_2020-09-14_13h00m00s_Ph_1",
    "astros[cereb]_D1-1_Vessel-361_2020-09-15_13h00m00s_Ph_1",
    "cort[6-OHDA]_B3-2_Vessel-401_2020-05-11_11h30m00s_Ph_2",
    "1e55de6c2a34",
)


def write_image(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """A grey ramp, so that no two sizes give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    Image.fromarray((pixels % 251).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def competition_folder(tmp_path: Path) -> Path:
    """Three labelled images of 6 x 8 pixels with five cells, four unlabelled and two test images."""
    root = tmp_path / "sartorius-cell-instance-segmentation"
    for name in ("0030e5", "001234567890", "1e1234567890"):
        write_image(root / "train" / f"{name}.png")
    for name in UNLABELLED:
        write_image(root / "train_semi_supervised" / f"{name}.png", 7, 9)
    for name in ("00b", "00a"):
        write_image(root / "test" / f"{name}.png")
    (root / "train.csv").write_text(ANNOTATIONS)
    (root / "sample_submission.csv").write_text("id,predicted\n00a,\n00b,\n")
    return root


@pytest.fixture(name="write_image")
def write_image_fixture():
    """``write_image(path, height, width)``."""
    return write_image


@pytest.fixture(scope="session")
def full_size_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.005 of the published data in frames of 96 x 128 pixels, with each fault of LIVECell at least once."""
    folder = tmp_path_factory.mktemp("full_size") / "data"
    return full_size.ensure(folder, share=0.005, size=(96, 128))
