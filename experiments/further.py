"""Train every fold of a run further, and from there in two ways: at scales by type, with pseudo labels.

python experiments/further.py RUN --data DIR [--unlabelled DIR ...] [--folds 0 1 2 3 4]
    [--iterations 480 960 1500 1000 150]

RUN is the folder of a run that trained every fold (``fold: -1``). Each fold goes on from its weights of
03_train. From what it has become it goes on three times more, at scales that fit the size of each type's
cells, the last time at wider ones, and, beside that, labels the unlabelled images and trains on with them: no
image that a fold holds out reaches it through another fold's labels. The weights lie in RUN/further,
RUN/by_type, RUN/longer, RUN/wide and RUN/pseudo, where ``ablation.py --stage`` judges them. Interrupted, it
goes on where it stopped; folds may be shared out to several processes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ablation import predicted

from kitlib import config as configs
from kitlib import files, records, train
from kitlib.data import competition, folds
from kitlib.data.images import image_files, whole_size
from kitlib.predict import PredictConfig, pseudo
from kitlib.records import Frame

BEST = "weights_best.pth"
SCALES = (1.0, 2.2)
# A crop of 256 pixels then shows an astrocyte whole, and a neuron in more than a few pixels.
BY_TYPE = {"astro": (0.5, 1.1), "cort": (1.2, 2.2), "shsy5y": (1.6, 2.8)}
# The first look, which tells the type, lies in all of these: else blur alone would tell it.
WIDE = {"astro": (0.5, 1.6), "cort": (1.2, 2.2), "shsy5y": (1.4, 2.8)}
PSEUDO_SHARE = 0.25
# Of shsy5y, by the first model's cross-validation, three of four cells with a score of 0.2 are true.
BELIEVED = pseudo.PseudoConfig(
    score_threshold={"default": 0.5, "astro": 0.3, "shsy5y": 0.2},
    ignore_threshold={"default": 0.1, "shsy5y": 0.05},
)


def unlabelled(data: Path, folders: list[Path]) -> list[Frame]:
    """The competition's unlabelled images and those of further folders; names may tell the type."""
    frames = competition.unlabelled(data)
    for folder in folders:
        for name, path in image_files(folder).items():
            frames.append(
                Frame(name, path, *whole_size(path), category=competition.category_of(name.lower()))
            )
    return frames


def _train(
    settings: train.TrainConfig, out: Path, start: Path, fold: tuple[list[Frame], list[Frame]], lr: float
) -> None:
    """Train one fold on."""
    files.make_folder(out)
    job = replace(
        settings,
        out=str(out),
        train=str(records.write_frames(out / "train.npz", fold[0])),
        val=str(records.write_frames(out / "val.npz", fold[1])),
        weights=str(start),
        schedule=replace(settings.schedule, max_lr=lr),
    )
    train.run(job)


def _label(weights: Path, bare: list[Frame], folder: Path) -> list[Frame]:
    """What one model is sure of."""
    (found,) = predicted([str(weights)], bare, folder, PredictConfig(scales=(2.0,))).values()
    believed, report = pseudo.select(bare, found, BELIEVED)
    print(f"{folder.name}: images {report.images}, cells {report.cells}, {report.ignored:.1%} ignored")
    return believed


def main() -> None:
    """Train, and from there at scales by type; label, train."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--unlabelled", type=Path, nargs="*", default=[])
    options.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options.add_argument("--iterations", type=int, nargs=5, default=[480, 960, 1500, 1000, 150])
    options.add_argument("--lr", type=float, nargs=5, default=[6e-4, 8e-4, 8e-4, 6e-4, 4e-4])
    given = options.parse_args()
    settings = configs.load(train.TrainConfig, given.run / "03_train" / "config.yaml")
    settings = replace(
        settings,
        augment=replace(settings.augment, scale=SCALES, cell_centred=0.85),
        sampler=replace(settings.sampler, balance=0.7),
    )

    def folder(name: str, fold: int) -> Path:
        return given.run / name / f"fold_{fold}"

    frames = competition.labelled(given.data)
    bare = unlabelled(given.data, given.unlabelled)
    parts = {k: folds.split(frames, k) for k in given.folds}
    steps = {"further": {}, "by_type": BY_TYPE, "longer": BY_TYPE, "wide": WIDE}
    *lengths, last = given.iterations
    before = "03_train"
    for (name, scales), length, lr in zip(steps.items(), lengths, given.lr, strict=False):
        augment = replace(settings.augment, scale_by_type=scales)
        config = replace(settings, max_iter=length, augment=augment)
        for k, part in parts.items():
            _train(config, folder(name, k), folder(before, k) / BEST, part, lr)
        before = name
    settings = replace(settings, max_iter=last)
    settings = replace(settings, sampler=replace(settings.sampler, pseudo_share=PSEUDO_SHARE))
    for k, (seen, held_out) in parts.items():
        start = folder("further", k) / BEST
        labels = _label(start, bare, folder("labels", k))
        _train(settings, folder("pseudo", k), start, (seen + labels, held_out), given.lr[-1])


if __name__ == "__main__":
    main()
