"""What a notebook calls: its folder, its data, the stages that it needs, and its last words."""

from __future__ import annotations

import dataclasses
import functools
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kitlib import config as configs
from kitlib import export, files, offline
from kitlib.data import competition, planes, proposals, synthetic
from kitlib.data import corrections as manual
from kitlib.data import dataset as datasets
from kitlib.data.config import ReadingConfig
from kitlib.data.images import read_image
from kitlib.data.tiff import pixel_size
from kitlib.errors import KitError, unknown
from kitlib.inputs.config import AugmentConfig
from kitlib.kaggle import bundle as bundles
from kitlib.kaggle import image
from kitlib.records import Frame
from kitlib.runtime import lock, machine
from kitlib.runtime.launch import Interrupted
from kitlib.stages import fitting, notebooks, parameters, record, runner
from kitlib.stages.by_hand import Session
from kitlib.stages.notebooks import NEEDS, NOTEBOOKS, ROOT, STAGES, default_out, notebook, whole_path
from kitlib.stages.parameters import Training
from kitlib.stages.report import spared, summary
from kitlib.stages.report.finished import Finished, finished
from kitlib.train.config import TrainConfig

if TYPE_CHECKING:
    from IPython.display import HTML, Image
    from matplotlib.figure import Figure


#: In a stage's folder: how it has read images of the user's own.
_READING = "reading.yaml"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage that is being run, by papermill or by hand.

    Attributes:
        name: "03_train".
        data: the competition's folder, or one of the user's own images.
        out: the run's folder; results of this stage lie in ``out``/<name>.
        bundle: on Kaggle, the folder that takes the place of the earlier stages; results then lie in ``out``.
        session: what is recorded of it where no run does so.
    """

    name: str
    data: Path
    out: Path
    bundle: Path | None = None
    session: Session = dataclasses.field(default_factory=Session, compare=False)

    @property
    def folder(self) -> Path:
        """Where this stage's results lie."""
        return self.out if self.bundle else self.out / self.name

    @property
    def cache(self) -> Path:
        """Files that spare a second reading of the data; the folder may be removed at any time."""
        return self.out / "cache"

    def parameters(self, namespace: Mapping[str, Any]) -> Any:
        """The notebook's parameters, checked: as its first cell has them, or as papermill was given them.

        A dictionary that papermill was given is laid over the notebook's own.

        Args:
            namespace: the notebook's ``globals()``.

        Returns:
            An instance of the stage's class in ``kitlib.stages.parameters``.

        Raises:
            KitError: papermill was given a name that the notebook does not have (the nearest is named), or a
                value is of a wrong type or makes no sense.
        """
        given = {name: namespace[name] for name in notebooks.injected()}
        names = configs.fields(parameters.MODELS[self.name])
        values = {name: namespace[name] for name in names if name in namespace} | given
        # On Kaggle no notebook lies beside the library, and the one that runs was given all values.
        own = {} if self.bundle else notebooks.parameters(notebook(self.name))
        laid = {name: configs.overlay(own.get(name), value) for name, value in given.items()}
        whole = values | laid
        if self.is_own and given and "from_data" in names and "from_data" not in given:
            whole |= parameters.left_to_data({self.name: given})[self.name]
        read = parameters.read(self.name, whole)
        parameters.check_cell_types(read, self.categories)
        self.session.parameters = {**whole, **self._places}
        return read

    @property
    def _places(self) -> dict[str, str]:
        """The parameters that all stages of a run have in common."""
        return {"data": str(self.data), "out": str(self.out)}

    # ---------------------------------------------------------------- data

    @property
    def is_own(self) -> bool:
        """Whether the data are images of the user's own."""
        return not self.bundle and not datasets.is_competition(self.data)

    @property
    def categories(self) -> tuple[str, ...]:
        """The types of cells; of the user's own images those that 03 trained, none before that."""
        if not self.is_own:
            return competition.CATEGORIES
        trained = self.out / "03_train" / "config.yaml"
        return tuple(configs.read_yaml(trained).get("categories", ())) if trained.is_file() else ()

    @property
    def reading(self) -> ReadingConfig:
        """How 03 has read images of the user's own."""
        known = self.out / "03_train" / _READING
        return configs.load(ReadingConfig, known) if known.is_file() else ReadingConfig()

    def dataset(self, reading: ReadingConfig | None = None) -> datasets.Dataset:
        """The frames of the data, ready for training and prediction.

        Args:
            reading: how images of the user's own are read, which later stages then do as well; None: as 03
                has read them.

        Raises:
            KitError: as ``kitlib.data.dataset.open_folder``; or no image is labelled, with ``reading`` given.
        """
        chosen = reading or self.reading
        found = datasets.open_folder(self.data, chosen)
        if reading is not None:
            configs.save(reading, self.folder / _READING)
            if not found.labelled:
                others = len(found.unlabelled) + len(found.test)
                raise KitError(
                    f"{self.data} holds {others} images and the cells of none; put label images beside the "
                    "images, or find their cells with the weights of another run: kit predict"
                )
        return datasets.prepared(found, chosen, self.cache / "images") if self.is_own else found

    def corrected(self, frames: Sequence[Frame], corrections: str) -> list[Frame]:
        """The labelled images with cells that were corrected by hand.

        Args:
            frames: as they were annotated.
            corrections: a file of the viewer, see ``kitlib.data.corrections``; "" for none.
        """
        if not corrections:
            return list(frames)
        found = manual.apply(frames, _named(corrections))
        changed = sum(new is not old for new, old in zip(found, frames, strict=True))
        print(f"{changed} images have the cells of {corrections}")
        return found

    @functools.cached_property
    def _as_trained(self) -> datasets.Dataset:
        """The user's own images as 03 has read them; read once."""
        return self.dataset()

    def unlabelled(self) -> list[Frame]:
        """The images for pseudo labels."""
        return self._as_trained.unlabelled if self.is_own else competition.unlabelled(self.data)

    def test(self) -> list[Frame]:
        """The images to predict, without cells."""
        return self._as_trained.test if self.is_own else competition.submitted(self.data)

    def truth(self) -> list[Frame]:
        """Those of ``test`` whose cells are known, with them."""
        return self._as_trained.truth if self.is_own else competition.truth(self.data) or []

    def fit(self, given: Training, frames: Sequence[Frame]) -> Training:
        """The parameters of 03 with what the user's own images decide in their place, which is printed.

        Args:
            given: the parameters.
            frames: the labelled images.
        """
        if not self.is_own or not given.from_data:
            return given
        starts = given.weights or self.start("02_pretrain_livecell")
        changed, decided = fitting.fitted(given, proposals.propose(frames), from_random=not starts)
        for name, reason in decided.items():
            print(f"from the data: {name} = {reason}")
        return changed

    def views_of(self, augment: AugmentConfig, earlier: AugmentConfig) -> AugmentConfig:
        """How 05 augments: with the user's own images at the scales of 03, which their cells decided."""
        return fitting.as_before(augment, earlier) if self.is_own else augment

    # ---------------------------------------------------------------- the training and earlier stages

    def training(self, given: Any, categories: Sequence[str], **fields: Any) -> TrainConfig:
        """The configuration of this stage's training, which leaves its results in ``folder``.

        Args:
            given: the notebook's parameters.
            categories: the classes in the model's order.
            fields: further fields of ``TrainConfig``; they win over the parameters.
        """
        own = {"out": str(self.folder), "train": "", "categories": tuple(categories)}
        return TrainConfig(**{**parameters.training_settings(given), **own, **fields})

    def need(self, earlier: str) -> Path:
        """The folder of an earlier stage's results; a stage that was not run is run now, with its defaults.

        Where it was not, all stages without results that this one needs are run, after a sentence on them.

        Raises:
            KitError: running one of them failed.
        """
        if not record.has_results(self.out / earlier):
            missing = self._missing(earlier)
            shown = " and ".join(f"{stage} ({notebooks.takes(notebook(stage))})" for stage in missing)
            print(f"{shown} {'has' if len(missing) == 1 else 'have'} to run first")
            for number, stage in enumerate(missing, 1):
                print(f"running {stage}, {number} of {len(missing)}")
                self._run_with_defaults(stage)
        return self.out / earlier

    def _missing(self, earlier: str) -> list[str]:
        """The stages without results that this one needs, ``earlier`` among them, in order."""
        wanted = {earlier, *NEEDS.get(self.name, ())}
        for stage in reversed(STAGES):
            if stage in wanted and not record.has_results(self.out / stage):
                wanted |= set(NEEDS.get(stage, ()))
        return [stage for stage in STAGES if stage in wanted and not record.has_results(self.out / stage)]

    def _run_with_defaults(self, stage: str) -> None:
        path, folder = notebook(stage), self.out / stage
        begun = record.by_hand({**notebooks.parameters(path), **self._places}, {}, record.read(folder))
        # Its time is its own, and not that of the cell which needs it.
        self.session.seconds -= runner.run_stage(path, begun, folder).seconds

    def start(self, earlier: str) -> str:
        """What a training starts from after an earlier stage: its weights, or, where it had nothing to do,
        what it would have started from; "" for random weights."""
        folder = self.need(earlier)
        metrics = files.read_json(folder / record.METRICS)
        return str(metrics["start"] if record.IDLE in metrics else self.weights(earlier)[0])

    def weights(self, earlier: str) -> tuple[Path, ...]:
        """The weights that an earlier stage left, one file a training; it is run first where it was not."""
        folder = self.need(earlier)
        names = files.read_json(folder / record.METRICS)["weights"]
        return tuple(folder / name for name in ([names] if isinstance(names, str) else names))

    def folds(self, earlier: str, fold: int = -1) -> dict[str, Path]:
        """An earlier stage's weights by their validation fold ("fold_0"): of all, or of one if given.

        Raises:
            KitError: it was not trained with that validation fold.
        """
        trained = {path.relative_to(self.out / earlier).parts[0]: path for path in self.weights(earlier)}
        if fold < 0:
            return trained
        name = f"fold_{fold}"
        if name not in trained:
            raise unknown(f"fold of {earlier}:", name, trained)
        return {name: trained[name]}

    def chosen(self) -> str:
        """The stage whose weights are the best known, see ``record.chosen``."""
        return record.chosen(self.out)

    def views(self, name: str) -> dict[str, Any]:
        """The section ``predict`` of an earlier stage's config.yaml, without further mask thresholds: how the
        validation frames were predicted that its post-processing was tuned on."""
        path = bundles.trained(self.bundle) if self.bundle else self.out / name / "config.yaml"
        found = configs.read_yaml(path).get("predict", {}) if path and path.is_file() else {}
        return {key: value for key, value in found.items() if key != "candidate_mask_thresholds"}

    def best(self) -> bundles.Best:
        """What predicts: the weights of the chosen stage, all folds together, and their post-processing."""
        if self.bundle:
            return bundles.read(self.bundle)
        chosen = self.chosen()
        return bundles.Best(chosen, self.weights(chosen), self.out / chosen / "post.yaml")

    def export(self, frames: Sequence[Frame], images: Sequence[Frame], formats: Sequence[str]) -> None:
        """Write the cells of the user's own images into ``predictions/`` in some formats.

        Args:
            frames: final predictions.
            images: the frames that were predicted, with the paths of their images.
            formats: names out of ``kitlib.export.FORMATS``.
        """
        if not self.is_own or not formats:
            return
        shown, folder = {frame.id: frame.path for frame in images}, self.folder / "predictions"
        # What was predicted may be a copy of 8 bits; the file has the numbers to measure.
        sources = datasets.sources(self.data, self.reading)
        written = []
        for frame in frames:
            path, source = shown[frame.id], sources[frame.id]
            if path is not None:
                pixels = planes.read_channels(source, self.reading)
                result = export.Result(frame, pixels, read_image(path), pixel_size(source))
                written.append(export.write(result, folder, formats))
        export.join(folder, written)
        print(f"{folder}: the cells of {len(written)} images as {', '.join(formats)}")

    @contextmanager
    def extra(self) -> Iterator[None]:
        """For what comes after the submission: on Kaggle a failure is printed and costs nothing else."""
        try:
            yield
        except Exception as error:
            if not self.bundle:
                raise
            print(f"left out: {offline.reason(error)}")

    def show(self, name: str, figure: Figure) -> Image:
        """Save a figure as ``figures/<name>.png`` and return it for the notebook to show."""
        from IPython.display import Image

        path = self.folder / "figures" / f"{name}.png"
        with files.atomic(path) as temporary:
            figure.savefig(temporary, dpi=110, bbox_inches="tight", facecolor="white")
        return Image(filename=str(path))

    def describe(self, config: Any) -> HTML:
        """The stage's configuration, folded, for the notebook to show."""
        from IPython.display import HTML

        text = html.escape(configs.dumps(config))
        return HTML(f"<details><summary>the configuration</summary><pre>{text}</pre></details>")

    def nothing_to_do(self, reason: str, **metrics: Any) -> None:
        """Finish the stage, print the reason, and let the notebook's further cells do nothing.

        Args:
            reason: a sentence.
            metrics: as for ``finish``.
        """
        self.finish(**{record.IDLE: reason}, **metrics)
        print(f"Nothing to do: {reason} The cells below do nothing.")
        notebooks.skip_cells()

    def finish(self, artefacts: Iterable[Path | str] = (), config: Any = None, **metrics: Any) -> Finished:
        """Write metrics.json, the mark that the stage is finished, and return it.

        A notebook shows what is returned as a table, with a sentence on how good it is and what to try next.

        Args:
            artefacts: files of the stage's folder worth naming in the run's table.
            config: what the results were made with, for config.yaml: not earlier, as a configuration that is
                refused must not take its place.
            metrics: plain values; ``map`` is the stage's score.
        """
        names = [str(Path(a).relative_to(self.folder) if Path(a).is_absolute() else a) for a in artefacts]
        values = {"stage": self.name, **metrics, "artefacts": names}
        if config is not None:
            configs.save(config, self.folder / "config.yaml")
        path = self.folder / record.METRICS
        changed = not path.is_file() or files.read_json(path) != values
        files.write_json(path, values)
        if not self.bundle:
            self._record(changed)
        lock.leave(self.out)
        return finished(values, None if self.bundle else self.out)

    def _record(self, changed: bool) -> None:
        """Record the stage and bring the report up to date, unless a run does both once the notebook ends.

        Args:
            changed: whether the stage's metrics are new.
        """
        self.session.close()
        former = record.read(self.folder)
        was_finished = former is not None and former.done
        if notebooks.injected() and former is not None and not was_finished:
            return
        # The same results as those of a finished run are that run's.
        if changed or not was_finished:
            begun = record.by_hand(self.session.parameters, machine.describe(), former)
            begun.finished(self.session.elapsed()).save(self.folder)
        with spared("the report"):
            summary.write(self.out)


def begin(name: str, data: str = "", out: str = "") -> Stage:
    """Begin a stage: find its data, make its folder, and lock the run's folder until the stage is finished.

    Errors that the user can correct show as one sentence.

    Args:
        data: the competition's folder, one that holds it, or one of the user's own images and cells; empty:
            on Kaggle the folder that is attached there, elsewhere synthetic cells, made on first use.
        out: the run's folder; empty: on Kaggle its working folder, elsewhere outputs/demo or, for data of
            one's own, outputs/<name of that folder>.

    Raises:
        KitError: no such stage or data, the folder cannot be made, or a run is writing into it.
    """
    quiet_errors()
    if name not in STAGES:
        raise KitError(f"'{name}' is no stage; the stages are {', '.join(STAGES)}")
    bundle = offline.bundle() if name == STAGES[-1] and not out else None
    found = locate_data(data)
    if out:
        target = whole_path(out)
    elif bundle:
        target = offline.working()
    else:
        target = default_out(found.name if data else "demo")
    stage = Stage(name, found, target, bundle)
    files.make_folder(stage.folder)
    if not bundle:
        lock.enter(target, name)
        stage.session.watch()
    return stage


def locate_data(data: str = "") -> Path:
    """The folder of the data: ``data``, or the competition's folder in it; where that is empty, the one
    attached on Kaggle, or else synthetic cells in outputs/synthetic."""
    if data:
        return datasets.locate(whole_path(data))
    try:
        attached = offline.competition()
    except offline.OfflineError as error:
        raise KitError(f"{error}, or name it in the parameter data") from error
    if attached:
        return competition.locate(attached)
    return competition.locate(synthetic.ensure(ROOT / "outputs" / "synthetic"))


def is_own(data: str) -> bool:
    """Whether ``data``, as a user names it, are images of one's own."""
    return bool(data) and not datasets.is_competition(whole_path(data))


def quiet_errors() -> None:
    """Let a notebook show a KitError or an interrupt as one sentence instead of a traceback."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return

    def show(
        shell: Any, kind: type, error: BaseException, traceback: Any, tb_offset: int | None = None
    ) -> list:
        if isinstance(error, KeyboardInterrupt):
            kept = error if isinstance(error, Interrupted) else "interrupted; finished stages stay"
            error = Interrupted(f"{kept}, run the cell again to go on")
        lines = [f"\x1b[31m{kind.__name__}\x1b[0m: {error}"]
        shell._showtraceback(kind, error, lines)
        return lines

    shell.set_custom_exc((KitError, KeyboardInterrupt), show)


def write_bundle(run: Path, user: str = "", half: bool = False) -> bundles.Bundle:
    """Bundle a run: ``run``/kaggle/dataset and ``run``/kaggle/kernel.

    The notebook gets the parameters that it was run with here, or its own where it was not.

    Args:
        user, half: as ``kitlib.kaggle.bundle.write`` takes them.

    Raises:
        KitError: the folder is no run or nothing was trained in it, or as ``kitlib.kaggle.bundle.write``.
    """
    run, stage = run.expanduser().resolve(), STAGES[-1]
    done = record.read(run / stage)
    values: dict[str, Any] = {
        **notebooks.parameters(notebook(stage)),
        **(done.parameters if done else {}),
    }
    parameters.read(stage, values)
    best = Stage(stage, run, run).best() if record.has_results(run / "03_train") else None
    if best is None:
        raise KitError(f"{run} holds no trained weights; run ./run_all.sh --out {run} first")
    if values["weights"]:
        best = dataclasses.replace(best, weights=tuple(map(_named, values["weights"])))
    if values["post_processing"]:
        best = dataclasses.replace(best, post=_named(values["post_processing"]))
    for path in (*best.weights, best.post):
        if not path.is_file():
            remedy = f"run {best.stage} again, or name another in {stage}'s weights and post_processing"
            raise KitError(f"{path} does not exist; {remedy}")
    hours = values["hours"] or image.HOURS
    values |= {"data": "", "out": "", "gpus": -1, "weights": [], "post_processing": "", "hours": hours}
    return bundles.write(run, best, notebook(stage), values, user or bundles.NOBODY, half)


def _named(path: str) -> Path:
    """A file that a parameter names, from where the notebook ran."""
    return NOTEBOOKS / Path(path).expanduser()
