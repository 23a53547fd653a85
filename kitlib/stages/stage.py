"""What a notebook calls: its folder, its data, the stages that it needs, and its last words."""

from __future__ import annotations

import dataclasses
import html
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kitlib import config as configs
from kitlib import files, offline
from kitlib.data import competition, synthetic
from kitlib.errors import KitError, unknown
from kitlib.kaggle import bundle as bundles
from kitlib.runtime import lock
from kitlib.stages import notebooks, profiles, record, runner, sections
from kitlib.stages.names import ROOT, STAGES, default_out, notebook, whole_path
from kitlib.stages.notebooks import parameters
from kitlib.train.config import TrainConfig

if TYPE_CHECKING:
    from IPython.display import HTML, Image
    from matplotlib.figure import Figure


STANDING = "standing"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage that is being run, by papermill or by hand.

    Attributes:
        name: "03_train".
        data: the competition's folder.
        out: the run's folder; results of this stage lie in ``out``/<name>.
        bundle: on Kaggle, the folder that takes the place of the earlier stages; results then lie in ``out``.
    """

    name: str
    data: Path
    out: Path
    bundle: Path | None = None

    @property
    def folder(self) -> Path:
        """Where this stage's results lie."""
        return self.out if self.bundle else self.out / self.name

    @property
    def cache(self) -> Path:
        """Where files are kept that save reading the data a second time; it may be removed at any time."""
        return self.out / "cache"

    def parameters(self, namespace: Mapping[str, Any]) -> dict[str, Any]:
        """The notebook's parameters, checked: as its first cell has them, or as papermill was given them.

        A dictionary that papermill was given is laid over the notebook's own.

        Args:
            namespace: the notebook's ``globals()``.

        Raises:
            KitError: papermill was given a name that the notebook does not have (the nearest is named), or a
                value is of a wrong type or makes no sense.
        """
        if (
            self.bundle
        ):  # the notebook that runs is not one of the checkout, and was checked when it was packed
            return {}
        defaults = parameters(notebook(self.name))
        given = notebooks.injected()
        for name in given:
            if name not in defaults:
                raise unknown(f"parameter of {self.name}:", name, defaults)
        values = {}
        for name, default in defaults.items():
            value = namespace[name]
            value = configs.overlay(default, value) if name in given else value
            values[name] = profiles.check(self.name, name, value, defaults)
        sections.check_alone(self.name, values)
        return values

    def training(self, parameters: Mapping[str, Any], categories: Sequence[str], **rest: Any) -> TrainConfig:
        """The configuration of this stage's training, see ``sections.training``; it leaves its results in
        ``folder``."""
        return sections.training(self.name, parameters, categories, out=str(self.folder), **rest)

    def need(self, earlier: str) -> Path:
        """The folder of an earlier stage's results; a stage that was not run is run now, with its defaults.

        Raises:
            KitError: running it failed.
        """
        folder = self.out / earlier
        if not record.has_results(folder):
            print(f"{earlier} has not been run yet; running it first")
            values = {**parameters(notebook(earlier)), "data": str(self.data), "out": str(self.out)}
            runner.execute(notebook(earlier), values, files.make_folder(folder))
        return folder

    def weights(self, earlier: str) -> tuple[Path, ...]:
        """The weights that an earlier stage kept, one file a training; it is run first where it was not."""
        folder = self.need(earlier)
        kept = files.read_json(folder / record.METRICS)["weights"]
        return tuple(folder / name for name in ([kept] if isinstance(kept, str) else kept))

    def folds(self, earlier: str, fold: int = -1) -> dict[str, Path]:
        """An earlier stage's weights by the fold that was held out ("fold_0"): of all, or of one if given.

        Raises:
            KitError: it was not trained with that fold held out.
        """
        trained = {path.relative_to(self.out / earlier).parts[0]: path for path in self.weights(earlier)}
        chosen = trained if fold < 0 else {f"fold_{fold}": trained.get(f"fold_{fold}")}
        if None in chosen.values():
            raise unknown(f"fold of {earlier}:", f"fold_{fold}", trained)
        return chosen

    def chosen(self) -> str:
        """The stage whose weights are the best known: 05_retrain if it was run and accepted them (its gate
        let them pass, or ``use_retrained`` is "always"), else what they had to beat (``keep``), else
        03_train."""
        last = self.out / "05_retrain"
        if record.has_results(last) and files.read_json(last / record.METRICS).get("accepted", False):
            return "05_retrain"
        kept = (f"{stage}/{STANDING}" for stage in ("05_retrain", "04_pseudolabel"))
        return next((name for name in kept if record.has_results(self.out / name)), "03_train")

    def keep(self, name: str) -> None:
        """Copy what the stage ``name`` predicts and is judged with, as results that stand until better ones
        come: a further round of pseudo labels moves them aside.

        Raises:
            KitError: a file of it is missing or cannot be copied.
        """
        source = self.out / name
        weights = [path.relative_to(source) for path in self.weights(name)]
        # Last the mark that all is there.
        for file in [*weights, "config.yaml", "post.yaml", "judged.csv", record.METRICS]:
            if not (source / file).is_file():
                raise KitError(f"{source / file} does not exist; run {name} again")
            with files.atomic(self.folder / STANDING / file) as temporary:
                shutil.copyfile(source / file, temporary)

    def standing(self) -> Path:
        """The folder of the results that retraining has to beat: of the round before, if 04 kept any, else of
        03_train, which is run first where it was not."""
        kept = self.out / "04_pseudolabel" / STANDING
        return kept if record.has_results(kept) else self.need("03_train")

    def views(self, name: str) -> dict[str, Any]:
        """The section ``predict`` of an earlier stage's config.yaml, without further mask thresholds: how the
        held-out frames were predicted that its limits were tuned on."""
        path = bundles.trained(self.bundle) if self.bundle else self.out / name / "config.yaml"
        found = configs.read_yaml(path).get("predict", {}) if path and path.is_file() else {}
        return {key: value for key, value in found.items() if key != "levels"}

    def best(self) -> bundles.Best:
        """What predicts: the weights of the chosen stage, all folds together, and their post-processing."""
        if self.bundle:
            return bundles.read(self.bundle)
        chosen = self.chosen()
        return bundles.Best(chosen, self.weights(chosen), self.out / chosen / "post.yaml")

    @contextmanager
    def extra(self) -> Iterator[None]:
        """For what comes after the submission: on Kaggle its failure is told, and costs nothing else."""
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

    def finish(
        self, artefacts: Iterable[Path | str] = (), config: Any = None, **metrics: Any
    ) -> dict[str, Any]:
        """Write metrics.json, the mark that the stage is finished, and return it.

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
        if path.is_file() and files.read_json(path) != values:
            record.by_hand(self.folder)
        files.write_json(path, values)
        lock.leave(self.out)
        return values


def begin(name: str, data: str = "", out: str = "") -> Stage:
    """Begin a stage: find its data, make its folder, and lock the run's folder until the stage is finished.

    Errors that the user can mend show as one sentence.

    Args:
        data: the competition's folder, or one that holds it; empty: on Kaggle where it is attached there,
            elsewhere synthetic cells, made on first use.
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
    return stage


def locate_data(data: str = "") -> Path:
    """The competition's folder in ``data``; where that is empty, the one attached on Kaggle, or else
    synthetic cells in outputs/synthetic."""
    if data:
        return competition.locate(whole_path(data))
    try:
        attached = offline.competition()
    except offline.OfflineError as error:
        raise KitError(f"{error}, or name it in the parameter data") from error
    if attached:
        return competition.locate(attached)
    return competition.locate(synthetic.ensure(ROOT / "outputs" / "synthetic"))


def quiet_errors() -> None:
    """Let a notebook show a KitError as its one sentence instead of a traceback."""
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
        lines = [f"\x1b[31m{kind.__name__}\x1b[0m: {error}"]
        shell._showtraceback(kind, error, lines)
        return lines

    shell.set_custom_exc((KitError,), show)
