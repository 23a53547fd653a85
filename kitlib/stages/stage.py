"""What a notebook calls: its folder, its data, the stages that it needs, and its last words."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kitlib import config as configs
from kitlib import files, offline
from kitlib.data import proposals
from kitlib.errors import KitError, unknown
from kitlib.kaggle import bundle as bundles
from kitlib.records import Frame
from kitlib.runtime import lock, machine
from kitlib.stages import checks, fitting, notebooks, parameters, record, results, runner
from kitlib.stages.by_hand import Session
from kitlib.stages.notebooks import NEEDS, STAGES, default_out, notebook, whole_path
from kitlib.stages.parameters import Training
from kitlib.stages.report import spared, summary
from kitlib.stages.report.finished import Finished, finished
from kitlib.stages.stage_data import StageData, locate_data
from kitlib.train.config import TrainConfig

if TYPE_CHECKING:
    from IPython.display import HTML, Image
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Stage(StageData):
    """A stage that is being run, by papermill or by hand.

    Attributes:
        session: what is recorded of it where no run does so.
    """

    session: Session = field(default_factory=Session, compare=False)

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
            whole |= fitting.left_to_data({self.name: given})[self.name]
        read = parameters.read(self.name, whole)
        checks.check_cell_types(read, self.categories)
        self.session.parameters = {**whole, **self._places}
        return read

    @property
    def _places(self) -> dict[str, str]:
        """The parameters that all stages of a run have in common."""
        return {"data": str(self.data), "out": str(self.out)}

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

    def fit(self, given: Training, frames: Sequence[Frame]) -> Training:
        """The parameters of 03 with what the user's own images decide in their place, which is printed.

        Args:
            given: the parameters.
            frames: the labelled images.
        """
        if not self.is_own or not given.from_data:
            return given
        start = given.weights or self.start("02_pretrain_livecell")
        changed, decided = fitting.fitted(given, proposals.propose(frames), start)
        for name, reason in decided.items():
            print(f"from the data: {name} = {reason}")
        return changed

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
        """The weights of an earlier stage that predict together; it is run first where it was not."""
        self.need(earlier)
        return results.weights(self.out, earlier)

    def folds(self, earlier: str, fold: int = -1) -> dict[str, Path]:
        """An earlier stage's weights by their validation fold ("fold_0"): of all, or of one if given.

        Of several phases they are the last one's.

        Raises:
            KitError: it was not trained with that validation fold.
        """
        trained: dict[str, Path] = {}
        for path in self.weights(earlier):  # the last phase of each fold comes first
            trained.setdefault(path.relative_to(self.out / earlier).parts[0], path)
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
        """How an earlier stage predicted the frames that its post-processing was tuned on."""
        return results.views(bundles.trained(self.bundle) if self.bundle else self.out / name / "config.yaml")

    def best(self) -> bundles.Best:
        """What predicts: the weights of the chosen stage, all folds together, and their post-processing."""
        if self.bundle:
            return bundles.read(self.bundle)
        self.need(self.chosen())
        return results.best(self.out)

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
    notebooks.quiet_errors()
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
