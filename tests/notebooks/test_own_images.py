"""The six notebooks on a folder of one's own: 16 bits, types as folders, no LIVECell, none unlabelled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
import tifffile
from PIL import Image

from kitlib import config, stages, train
from kitlib.data import competition, synthetic
from kitlib.data.images import read_image
from kitlib.stages import record, trainings

pytestmark = pytest.mark.slow

SETTINGS = [
    *("03.phases=[{max_iter: 2}, {max_iter: 1}]", "03.ensemble_phases=2", "03.workers=0"),
    *("all.folds=3", "all.reading={channel: 1, folders_are: category}"),
    '06.formats=["labels", "table"]',
]


def folder(place: Path) -> Path:
    """The frames of a synthetic competition as OME-TIFFs of two channels, the second of them the picture."""
    made = synthetic.write(place / "cells", images=12, size=(96, 96))
    frames = [f for f in competition.labelled(made) if f.category != "astro"]
    tests = {frame.id for frame in frames[::3]}
    for frame in frames:
        part = place / "own" / ("test" if frame.id in tests else "train") / str(frame.category)
        part.mkdir(parents=True, exist_ok=True)
        picture = read_image(frame.path).astype(np.uint16) * 200
        tifffile.imwrite(
            part / f"{frame.id}.ome.tif", np.stack([picture // 3, picture]), metadata={"axes": "CYX"}
        )
        tifffile.imwrite(part / f"{frame.id}_masks.tif", frame.to_labels())
    return place / "own"


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, run_notebooks: Callable[..., list[record.Row]]
) -> tuple[Path, list[record.Row]]:
    """The run's folder, and a row for each stage."""
    place = tmp_path_factory.mktemp("own")
    return place / "out", run_notebooks(folder(place), place / "out", SETTINGS, own_data=True)


def test_stages_without_work_say_so_and_the_others_do_theirs(run) -> None:
    _, rows = run
    found = {row.stage: row.artefacts for row in rows}
    assert found["02_pretrain_livecell"].startswith("There is no LIVECell in this folder")
    assert found["04_pseudolabel"] == "There are no unlabelled images, so there are no pseudo labels."
    assert found["05_retrain"].startswith("There are no pseudo labels to train with")
    assert found["06_submit"] == "submission.csv"


def test_no_notebook_failed_or_warned(run) -> None:
    out, _ = run
    for stage in stages.STAGES:
        executed = nbformat.read(out / stage / f"{stage}.ipynb", as_version=4)
        outputs = [o for cell in executed.cells for o in cell.get("outputs", ())]
        assert not [o for o in outputs if o.output_type == "error"]
        said = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")
        assert "Warning" not in said, said


def test_both_phases_predict_together_and_curves_show_both(run) -> None:
    out, _ = run
    weights = [f"fold_0/phase_{phase}/weights_best.pth" for phase in (1, 0)]
    assert json.loads((out / "03_train" / "metrics.json").read_text())["weights"] == weights
    submitted = json.loads((out / "06_submit" / "metrics.json").read_text())["weights"]
    assert submitted == [str(out / "03_train" / name) for name in weights]
    assert trainings.curves(out / "03_train" / "fold_0")["iteration"].tolist() == [1, 2, 3]


def test_types_scales_and_grey_levels_are_those_of_the_images(run) -> None:
    out, _ = run
    trained = config.load(train.TrainConfig, out / "03_train" / "config.yaml")
    assert trained.categories == ("cort", "shsy5y")
    assert trained.weights == ""
    assert trained.augment.scale != (1.2, 1.8)
    assert trained.predict.scales != (1.5,)
    assert trained.model.architecture.pixel_mean != 128.0


def test_predictions_are_there_in_every_format_that_was_asked_for(run) -> None:
    out, _ = run
    folder = out / "06_submit" / "predictions"
    metrics = json.loads((out / "06_submit" / "metrics.json").read_text())
    written = sorted((folder / "labels").rglob("*.png"))
    assert len(written) == metrics["images"] == 3
    cells = sum(len(np.unique(np.asarray(Image.open(path)))) - 1 for path in written)
    assert cells == metrics["cells"] == len((folder / "cells.csv").read_text().splitlines()) - 1
    assert 0 <= metrics["map"] <= 1  # the test images are annotated
