"""The steps of the six notebooks that grow with the data, each for a process of its own.

``python full_size_steps.py STEP DATA WORK`` does one step with the product's own functions, as the notebook
calls them. It writes the times of its parts, in seconds, to WORK/STEP.json.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from made_up import predictions

from kitlib import config as configs
from kitlib import files, records, train
from kitlib.data import competition, folds, livecell, tables
from kitlib.errors import KitError
from kitlib.post import thresholds
from kitlib.post.tuning import cross_validation
from kitlib.predict import pseudo
from kitlib.records import Frame
from kitlib.stages import notebooks, runner
from kitlib.stages.notebooks import notebook
from kitlib.submission import writer

LEVELS = (0.5, 0.4)
ITERATIONS = 20
PROCESSES = 2
SEED = 0


class Parts(dict[str, float]):
    """Seconds by the name of a step's part, in a file as soon as they are known: a step may be stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        files.write_json(path, self)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.note(name, time.monotonic() - start)

    def note(self, name: str, seconds: float) -> None:
        self[name] = round(seconds, 2)
        files.write_json(self.path, self)


# -------------------------------------------------------------------------------- data


def eda(data: Path, work: Path, parts: Parts) -> None:
    """Notebook 01 whole, in papermill."""
    values = {**notebooks.parameters(notebook("01_eda")), "data": str(data), "out": str(work)}
    runner.execute(notebook("01_eda"), values, files.make_folder(work / "01_eda"))


def livecell_read(data: Path, work: Path, parts: Parts) -> None:
    """The training split of LIVECell, as notebook 02 reads it: the first time, and from the cache."""
    with parts.time("reading"):
        cells = livecell.load(data, ["train"], cache=work / "livecell")
    print(cells.summary)


def fold_assignment(data: Path, work: Path, parts: Parts) -> None:
    """The labelled images, read and split into each of five folds."""
    with parts.time("reading"):
        frames = competition.labelled(data)
    with parts.time("folds"):
        for fold in range(5):
            folds.split(frames, fold, 5, SEED)


# -------------------------------------------------------------------------------- trainings


def pretrain(data: Path, work: Path, parts: Parts) -> None:
    """Notebook 02 up to its 20th iteration, in two processes."""
    with parts.time("reading"):
        frames = livecell.load(data, ["train"], cache=work / "cache").frames
    out = work / "02_pretrain_livecell"
    with parts.time("job file"):
        job = records.write_frames(out / "train.npz", frames)
    _train(out, job, (livecell.CATEGORY,), parts)


def finetune(data: Path, work: Path, parts: Parts) -> None:
    """Notebook 03 up to its 20th iteration on the training images of one fold, in two processes."""
    with parts.time("reading"):
        frames = competition.labelled(data)
    out = work / "03_train"
    with parts.time("job file"):
        training, held_out = folds.split(frames, 0, 5, SEED)
        job = records.write_frames(out / "train.npz", training)
        records.write_frames(out / "val.npz", held_out)
    _train(out, job, competition.CATEGORIES, parts)


def _train(out: Path, job: Path, categories: tuple[str, ...], parts: Parts) -> None:
    """Twenty iterations of the smallest model on small crops: start-up and memory are what counts here."""
    values = {
        "out": str(out),
        "train": str(job),
        "categories": list(categories),
        "model": {"preset": "tiny", "num_classes": len(categories), "options": {"roi_batch": 64}},
        "max_iter": ITERATIONS,
        "images_per_batch": PROCESSES,
        "schedule": {"name": "cosine", "max_lr": 6e-4, "min_lr": 1e-5, "warmup_iters": 10},
        "optim": {"name": "adamw", "weight_decay": 0.01, "clip_norm": 5.0},
        "augment": {"crop": [128, 128], "scale": [1.0, 1.5]},
        "checkpoint_every": 0,
        "workers": 1,
    }
    config = configs.from_dict(train.TrainConfig, values, out.name)
    with parts.time("training"), _first_iteration(out / train.events.METRICS, parts):
        train.run(config, processes=PROCESSES)


@contextmanager
def _first_iteration(metrics: Path, parts: Parts) -> Iterator[None]:
    """Note after how long the first row of ``metrics`` is there."""
    start, over = time.monotonic(), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if metrics.is_file() and metrics.stat().st_size:
                parts.note("first iteration", time.monotonic() - start)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# -------------------------------------------------------------------------------- pseudo labels


def select(data: Path, work: Path, parts: Parts) -> None:
    """Notebook 04 after its prediction."""
    with parts.time("reading"):
        unlabelled = competition.unlabelled(data)
        predicted = tables.read_cells(_table(work, "unlabelled"))
    with parts.time("selection"):
        kept, report = pseudo.select(unlabelled, predicted, pseudo.PseudoConfig())
    with parts.time("writing"):
        out = files.make_folder(work / "04_pseudolabel")
        tables.write_annotations(out / "pseudo.csv", kept)
        records.write_frames(out / "pseudo.npz", kept)
    print(f"{len(report.labelled)} of {len(unlabelled)} images kept, {sum(report.cells.values())} cells")


def retrain_job(data: Path, work: Path, parts: Parts) -> None:
    """Notebook 05's job file: the training images of 03's fold with the pseudo-labelled ones."""
    with parts.time("reading"):
        kept = records.read_frames(work / "04_pseudolabel" / "pseudo.npz")
        training = records.read_frames(work / "03_train" / "train.npz")
        held_out = records.read_frames(work / "03_train" / "val.npz")
    with parts.time("job file"):
        together = training + folds.apart(kept, held_out)
        records.write_frames(files.make_folder(work / "05_retrain") / "train.npz", together)
    print(f"{len(together)} images")


# -------------------------------------------------------------------------------- predictions


def tuning(share: float) -> Callable[[Path, Path, Parts], None]:
    """The post-processing of notebook 03, tuned and judged on that share of the labelled images."""

    def step(data: Path, work: Path, parts: Parts) -> None:
        with parts.time("reading"):
            chosen = competition.labelled(data)[:: round(1 / share)]
            read = {level: tables.read_cells(_table(work, "labelled", level)) for level in LEVELS}
        ids = {frame.id for frame in chosen}
        found = {level: [frame for frame in frames if frame.id in ids] for level, frames in read.items()}
        parameters = notebooks.parameters(notebook("03_train"))
        kinds, methods = parameters["score_kinds"], parameters["tuning_methods"]
        with parts.time("cross-validation"):
            done = cross_validation.cross_validate(chosen, found, seed=SEED, kinds=kinds, methods=methods)
        print(f"{len(chosen)} images: {done.best.name} {done.best.mean:.3f}")

    return step


def submit(data: Path, work: Path, parts: Parts) -> None:
    """Notebook 06 after its prediction, the writing of the predictions included."""
    test = competition.submitted(data)
    predicted = tables.read_cells(_table(work, "test"))
    out = files.make_folder(work / "06_submit")
    with parts.time("write predictions"):
        tables.write_predictions(out / "predictions.csv", predicted)
    with parts.time("post-processing"):
        final = thresholds.apply_each(predicted, thresholds.PostConfig())
    with parts.time("write submission"):
        path = writer.write(out / "submission.csv", final, test)
    with parts.time("check"):
        problems = writer.check(path, data)
    if problems:
        raise KitError(f"{path} is not valid: {problems[0]}")


def make_predictions(data: Path, work: Path, parts: Parts) -> None:
    """Made-up predictions for the labelled, the unlabelled and the test images, for the steps above."""
    labelled = competition.labelled(data)
    for level, frames in zip(LEVELS, predictions(labelled, SEED), strict=True):
        tables.write_predictions(_table(work, "labelled", level), frames)
    tables.write_predictions(_table(work, "test"), predictions(competition.truth(data), SEED + 1)[0])
    unlabelled = _with_cells_of(competition.unlabelled(data), labelled)
    tables.write_predictions(_table(work, "unlabelled"), predictions(unlabelled, SEED + 2)[0])


def _with_cells_of(unlabelled: list[Frame], labelled: list[Frame]) -> list[Frame]:
    """The unlabelled frames, each with the cells of a labelled one of its type."""
    by_type: dict[str | None, list[Frame]] = {}
    for frame in labelled:
        by_type.setdefault(frame.category, []).append(frame)
    sources = {category: cycle(frames) for category, frames in by_type.items()}
    return [replace(frame, cells=next(sources[frame.category]).cells) for frame in unlabelled]


def predictions_made(work: Path) -> bool:
    """Whether ``make_predictions`` came to its end."""
    return _table(work, "unlabelled").is_file()


def _table(work: Path, images: str, level: float = LEVELS[0]) -> Path:
    return work / "predictions" / f"{images}@{level}.csv"


PREPARATION = "predictions"
STEPS: dict[str, Callable[[Path, Path, Parts], None]] = {
    "01": eda,
    "livecell": livecell_read,
    "livecell-again": livecell_read,
    "folds": fold_assignment,
    "02": pretrain,
    "03": finetune,
    "04": select,
    "05": retrain_job,
    "tuning-1/8": tuning(1 / 8),
    "tuning-1/4": tuning(1 / 4),
    "tuning-1/2": tuning(1 / 2),
    "tuning": tuning(1),
    "06": submit,
}


def result_file(work: Path, step: str) -> Path:
    """Where a step writes the times of its parts."""
    return work / f"{step.replace('/', '_')}.json"


def main(step: str, data: Path, work: Path) -> None:
    """Do one step; an error that the user can mend is one sentence, and exit status 1."""
    do = make_predictions if step == PREPARATION else STEPS[step]
    try:
        do(data, work, Parts(result_file(work, step)))
    except KitError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
