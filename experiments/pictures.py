"""The pictures of README and docs/, made from runs on synthetic cells.

python experiments/pictures.py folder DIR          # a folder of own images, with label images
./run_all.sh --data DIR --out OWN_RUN
python experiments/pictures.py draw RUN OWN_RUN    # docs/pictures/*.png

RUN is a finished run of the demo (outputs/demo).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image

from kitlib import config, files, viz
from kitlib.data import competition, synthetic, tables
from kitlib.post import thresholds
from kitlib.post.config import Tuned
from kitlib.records import Frame
from kitlib.stages import record, stage

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"


def before_and_after(run: Path, path: Path, rows: int) -> None:
    """Save the test images of a run beside the true and the predicted cells, the most crowded first."""
    found = record.read(run / "06_submit")
    submit = stage.Stage("06_submit", Path(str(found.parameters["data"])), run)
    post = config.load(Tuned, submit.best().post).post
    predicted = thresholds.apply_each(tables.read_cells(run / "06_submit" / "predictions.csv"), post)
    figure = viz.before_after(_one_a_type(submit.truth())[:rows], predicted)
    with files.atomic(path) as temporary:
        figure.savefig(temporary, dpi=80, bbox_inches="tight", facecolor="white")


def _one_a_type(frames: list[Frame]) -> list[Frame]:
    """The most crowded frames, one of each type before a second one of any."""
    crowded = sorted(frames, key=lambda frame: -len(frame.cells))
    of_type = {frame.category: frame for frame in reversed(crowded)}
    return sorted(crowded, key=lambda frame: frame is not of_type[frame.category])


def own_folder(folder: Path) -> None:
    """Synthetic cells of one type as a lab would have them: images, and a label image beside each."""
    made = synthetic.ensure(folder.with_name(f"{folder.name}-competition"), images=36, seed=1)
    for part, frames in (("train", competition.labelled(made)), ("test", competition.truth(made))):
        for frame in frames:
            if frame.category == "cort" and frame.path is not None:
                path = files.make_folder(folder / part) / f"{frame.id}.png"
                shutil.copy(frame.path, path)
                Image.fromarray(frame.to_labels()).save(path.with_name(f"{frame.id}_masks.png"))


def main() -> None:
    """Make a folder, or all pictures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = options.add_subparsers(dest="command", required=True)
    commands.add_parser("folder").add_argument("folder", type=Path)
    draw = commands.add_parser("draw")
    draw.add_argument("run", type=Path)
    draw.add_argument("own_run", type=Path)
    given = options.parse_args()
    if given.command == "folder":
        own_folder(given.folder)
        return
    before_and_after(given.run, PICTURES / "cells.png", rows=2)
    before_and_after(given.own_run, PICTURES / "own-cells.png", rows=2)


if __name__ == "__main__":
    main()
