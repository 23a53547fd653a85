"""The command ``kit``."""

from __future__ import annotations

import json
import locale
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import click

from kitlib.errors import KitError
from kitlib.forecast.cards import CARDS

if TYPE_CHECKING:
    from kitlib.stages import Plan

Command = TypeVar("Command", bound=Callable[..., Any])


def main() -> None:
    """Run ``kit``; an error that the user can correct is one sentence on stderr and exit status 1."""
    _use_utf8()
    try:
        kit(prog_name="kit")
    except KitError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale asks for another encoding of files and names."""
    encodings = {sys.getfilesystemencoding(), locale.getpreferredencoding(False).lower()}
    if encodings != {"utf-8"} and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="kitlib")
def kit() -> None:
    """Cell instance segmentation: train, predict, score and submit."""


@kit.command()
@click.argument("truth", type=click.Path(path_type=Path))
@click.argument("predicted", type=click.Path(path_type=Path))
@click.option(
    "--by",
    type=click.Choice(["category", "threshold", "image"]),
    default="category",
    show_default=True,
    help="The rows of the table: measures, with a column a type; IoU thresholds; or images.",
)
@click.option("--predicted-only", is_flag=True, help="Leave out the true images that have no predictions.")
@click.option("--out", type=click.Path(path_type=Path), help="A .json or .csv file for all measures.")
@click.option("--json", "as_json", is_flag=True, help="Print what --out FILE.json has, instead of a table.")
def score(
    truth: Path, predicted: Path, by: str, predicted_only: bool, out: Path | None, as_json: bool
) -> None:
    """Score the cells of PREDICTED against those of TRUTH.

    Each is a CSV table (train.csv, out_of_fold.csv, submission.csv), a COCO JSON file, or a folder of label
    images, COCO JSON, Cellpose's files or ROIs of ImageJ, with or without images, such as kit predict writes.
    """
    from kitlib import scoring

    if out:
        scoring.check_out(out)
    scored = scoring.score(truth, predicted, predicted_only)
    if out:
        scoring.write(out, scored)
    click.echo(json.dumps(scoring.document(scored)) if as_json else scoring.text(scored, by))


class _FormatOption(click.Option):
    """An option whose help is made when it is shown, since it takes a second to import the formats."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        from kitlib.export import FORMATS

        names = "; ".join(f"{name}: {kind.help}" for name, kind in FORMATS.items())
        self.help = f"Names of formats, with commas between them; left out: all. {names}."
        return super().get_help_record(ctx)


def _channel(context: click.Context, option: click.Parameter, text: str | None) -> int | str | None:
    """The number of a channel, or "grey"."""
    if text in (None, "grey"):
        return text
    if not text.isdecimal():
        raise click.BadParameter(f"'{text[:80]}' is neither a number from 0 nor grey")
    return int(text)


@kit.command()
@click.argument("run_or_weights")
@click.argument("images", nargs=-1, required=True)
@click.option("--out", required=True, help="The folder for the results.")
@click.option("--format", "formats", default="", cls=_FormatOption)
@click.option("--gpus", default=-1, type=click.IntRange(min=-1), help="Left out: all there are; 0: the CPU.")
@click.option(
    "--pixel-size",
    type=click.FloatRange(0, min_open=True),
    help="Micrometres, for the tables; left out: what the file of an image says.",
)
@click.option("--plane", type=click.IntRange(min=0), help="Of several planes in a file, this one, from 0.")
@click.option("--projection", type=click.Choice(["max", "mean"]), help="All planes of a file as one image.")
@click.option("--channel", callback=_channel, help="Of several channels, this one, from 0; grey: their mean.")
def predict(
    run_or_weights: str,
    images: tuple[str, ...],
    out: str,
    formats: str,
    gpus: int,
    pixel_size: float | None,
    **choices: int | str | None,
) -> None:
    """Find the cells of IMAGES (files, folders, patterns) with a run's best weights, or a .pth file.

    Each plane and channel of a file is an image of its own, unless the run's training or an option chooses.
    A call that was interrupted goes on where it stopped; images that are finished are not done again.
    """
    from kitlib.export import check as check_formats
    from kitlib.stages import new_images, notebooks, segment, trained

    chosen = check_formats(name.strip() for name in formats.split(",")) if formats else None
    given = {name: value for name, value in choices.items() if value is not None}
    recipe, folder = trained.recipe(run_or_weights, given), notebooks.whole_path(out)
    found, unreadable = new_images.find(images, recipe.reading, folder)
    if not found:
        raise KitError(f"not one image can be read; {next(iter(unreadable.values()))}")
    done = segment.segment(recipe, found, folder, chosen, gpus, pixel_size)
    for name, reason in (unreadable | done.skipped).items():
        click.echo(f"left out: {name}: {reason}", err=True)
    if done.limited:
        limit = f"images at the limit of {recipe.predict.max_cells:,} instances"
        click.echo(f"{limit}: {done.limited}; cut them into parts if cells are missing")
    before = f", {done.unchanged} of them finished before" if done.unchanged else ""
    click.echo(f"{folder}: {done.images} images{before}, {done.cells:,} cells")
    if unreadable or done.skipped:
        sys.exit(1)


@kit.command()
@click.argument("run_or_weights")
@click.option("--out", required=True, help="The TorchScript file to write, such as network.pt.")
def export_model(run_or_weights: str, out: str) -> None:
    """Write the network of a run, or of a .pth file, for programs that have PyTorch and torchvision alone.

    Tiles, scales and post-processing are not part of it; the README says what it takes and gives.
    """
    from kitlib.predict import traced
    from kitlib.stages import notebooks, trained

    recipe, target = trained.recipe(run_or_weights), notebooks.whole_path(out)
    if len(recipe.weights) > 1:
        names = ", ".join(map(str, recipe.weights))
        raise KitError(f"{run_or_weights} has an ensemble of networks; name one of them: {names}")
    categories = traced.write(recipe.weights[0], target, recipe.predict)
    click.echo(f"{target}: classes {', '.join(categories)}")


@kit.command()
@click.argument("submission", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="The competition's folder.")
def check(submission: Path, data: Path) -> None:
    """Check SUBMISSION as Kaggle would; print every problem and exit with 1 if there is any."""
    from kitlib.submission import writer as submissions

    problems = submissions.check(submission, data)
    for problem in problems:
        click.echo(problem)
    if problems:
        click.echo(f"{submission}: {len(problems)} problems", err=True)
        sys.exit(1)
    click.echo(f"{submission}: valid")


@kit.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option("--images", type=int, help="Labelled training images.  [default: 24]")
@click.option(
    "--size", metavar="HxW", help="Height and width in pixels.  [default: 256x256; with --like 520x704]"
)
@click.option(
    "--like",
    type=click.Choice(["competition"]),
    help="With the published numbers of files, cells and faults: 1.4 GB in a few minutes.",
)
@click.option("--share", type=float, help="Of the published numbers, with --like.  [default: 1]")
def synth(
    folder: Path, seed: int, images: int | None, size: str | None, like: str | None, share: float | None
) -> None:
    """Make a competition folder of synthetic cells in FOLDER."""
    from kitlib.data import synthetic
    from kitlib.data.synthetic import full_size

    if like and images is not None:
        raise KitError("--like makes the published number of images; give --share instead of --images")
    if share is not None and not like:
        raise KitError("--share is of the published numbers; give --like competition as well, or --images")
    sides: dict[str, tuple[int, int]] = {} if size is None else {"size": _size(size)}
    if like:
        share = 1.0 if share is None else share
        click.echo(full_size.ensure(folder, share=share, seed=seed, say=click.echo, **sides))
    else:
        click.echo(synthetic.ensure(folder, images=24 if images is None else images, seed=seed, **sides))


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise KitError(f"--size '{text[:80]}' must look like 256x256 (height x width)")
    return int(height), int(width)


def _print_parameters(context: click.Context, option: click.Parameter, stage: str | None) -> None:
    if stage is None:
        return
    from kitlib.stages import notebooks, parameter_help

    chosen = notebooks.STAGES if stage == "all" else [notebooks.resolve(stage)]
    click.echo("\n\n".join(map(parameter_help.table, chosen)))
    context.exit()


def _with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Decorate a command with options that another one has, too; in the order of its help."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_settings_options = _with_options(
    click.option(
        "--profile", default="demo", show_default=True, help="A file of notebooks/profiles, or a path to one."
    ),
    click.option(
        "--data", default="", help="The competition's folder, or your own images; left out: synthetic cells."
    ),
    click.option("--out", default="", help="The run's folder; left out: outputs/PROFILE."),
    click.option(
        "--gpus",
        default=-1,
        type=click.IntRange(min=-1),
        help="GPUs to use; left out: all there are. 0: the CPU, also with a profile that is made for GPUs.",
    ),
    click.option(
        "--folds-at-once",
        type=click.IntRange(min=1),
        help="Trainings of folds side by side, on a share of the GPUs each; left out: as the profile says.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="STAGE.NAME=VALUE",
        help="A parameter: 03_train.max_iter=100, 03.optim.name=sgd, all.seed=1; see --help-parameters.",
    ),
)
_stages_options = _with_options(
    click.option("--from", "first", default="01", help="First stage to run, e.g. 03."),
    click.option("--to", "last", default="06", help="Last stage to run."),
)
_engine_options = _with_options(
    click.option(
        "--engine",
        default="local",
        type=click.Choice(["local", "ray"]),
        help="Where trainings and predictions run: here, or on the nodes of a Ray cluster.",
    ),
    click.option(
        "--address", default="", help="Of the Ray cluster, HOST:PORT; left out: the one started here."
    ),
)


def _check_nodes(engine: Literal["local", "ray"], address: str, out: Path, data: Path) -> None:
    """Choose the engine, and see that all nodes of a cluster see the folders."""
    from kitlib.runtime import cluster
    from kitlib.runtime import engine as engines

    engines.choose(engine, address)
    if cluster.is_chosen():
        cluster.check_folders(out, data)
        click.echo(f"Ray cluster of {cluster.size()} nodes for jobs")


class _Run(NamedTuple):
    """What a run does: its parameters, data, folder and stages; and whether the data are the user's own."""

    plan: Plan
    data: Path
    out: Path
    first: str
    last: str
    own: bool


def _common(gpus: int, folds_at_once: int | None) -> dict[str, int]:
    """The values that options give every notebook which has such a parameter."""
    common = {"gpus": gpus} if gpus >= 0 else {}
    return {**common, "folds_at_once": folds_at_once} if folds_at_once else common


def _run_of(
    profile: str,
    data: str,
    out: str,
    gpus: int,
    folds_at_once: int | None,
    first: str,
    last: str,
    settings: tuple[str, ...],
) -> _Run:
    from kitlib.stages import notebooks, profiles, stage_data

    notebooks.check_text(notebooks.ROOT)
    first, last = notebooks.resolve(first), notebooks.resolve(last)
    common, own = _common(gpus, folds_at_once), stage_data.is_own(data)
    # Before synthetic cells are made.
    plan = profiles.plan(profile, settings, common, own_data=own)
    target = notebooks.whole_path(out) if out else notebooks.default_out(plan.profile)
    folder = stage_data.locate_data(data)
    return _Run(plan.in_folders(folder, target), folder, target, first, last, own)


def _dry_run(wanted: _Run, card: str, json_file: Path | None) -> None:
    from kitlib.stages import runner
    from kitlib.stages.dry_run import page, run

    chosen = runner.chosen_stages(wanted.first, wanted.last)
    found = run.forecast(wanted.plan, wanted.data, wanted.out, chosen, card, wanted.own)
    click.echo(page.text(found))
    click.echo(f"\nthe same as JSON: {page.write(found, json_file or wanted.out / 'plan.json')}")
    if not found.fine:
        sys.exit(1)


@kit.command()
@_settings_options
@_stages_options
@click.option("--card", default="", help=f"Calculate for this GPU: {', '.join(CARDS)}.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Left out: plan.json in the run's folder."
)
def plan(card: str, json_file: Path | None, **options: Any) -> None:
    """Tell what a run would take, before it begins: time, memory, disk, and what does not fit.

    It measures two training steps and a prediction of each stage on the device that is here. For a --card,
    or where a profile made for GPUs finds none, it calculates them.
    """
    _dry_run(_run_of(**options), card, json_file)


@kit.command()
@_settings_options
@_stages_options
@click.option(
    "--help-parameters",
    metavar="STAGE",
    expose_value=False,
    is_eager=True,
    callback=_print_parameters,
    help='List the parameters of a stage, such as 03, or of "all", and exit.',
)
@click.option("--force", is_flag=True, help="Run finished stages again.")
@click.option("--track", type=click.Choice(["mlflow"]), help="Also keep the run in MLflow.")
@click.option("--dry-run", is_flag=True, help="Tell what the run would take, as `kit plan`, and do nothing.")
@_engine_options
def run(
    force: bool,
    track: str | None,
    dry_run: bool,
    engine: Literal["local", "ray"],
    address: str,
    **options: Any,
) -> None:
    """Run the notebooks from raw images to a valid submission.csv."""
    from kitlib.stages import record, runner, tracking

    wanted = _run_of(**options)
    if dry_run:
        _dry_run(wanted, card="", json_file=None)
        return
    plan, folder, target, first, last, _ = wanted
    _check_nodes(engine, address, target, folder)
    click.echo(f"profile {plan.profile}, data {folder}, results in {target}")
    with tracking.track(track, target) as after:
        rows = runner.run(plan, folder, target, first, last, force, click.echo, after)
    click.echo("\n" + record.table(rows))
    click.echo(f"\nthe report: {target / 'report.html'}")


@kit.command()
@_settings_options
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="03.NAME=RANGE",
    help="What to vary: 03.schedule.max_lr=1e-4..1e-3:log, 03.max_iter=200..800, 03.optim.name=[sgd, adamw]; "
    "it wins over the section search of the profile.",
)
@click.option(
    "--trials", type=click.IntRange(min=1), required=True, help="Trials in all, earlier ones counted."
)
@click.option(
    "--storage", default="", help="Of Optuna, an address; left out: SQLite in search.db of the folder."
)
@_engine_options
def search(
    profile: str,
    data: str,
    out: str,
    gpus: int,
    folds_at_once: int | None,
    settings: tuple[str, ...],
    params: tuple[str, ...],
    trials: int,
    storage: str,
    engine: Literal["local", "ray"],
    address: str,
) -> None:
    """Search for better parameters of 03_train with Optuna; by the score on its validation images.

    With 03.eval_every set, a trial that is worse than the median of earlier ones is stopped. A search that
    was interrupted goes on.
    """
    from kitlib.stages import notebooks, profiles, stage_data
    from kitlib.stages.search import space, study

    own = stage_data.is_own(data)
    common = _common(gpus, folds_at_once)
    plan = profiles.plan(profile, settings, common, own_data=own)
    varied = space.read(params, plan.search)
    target = notebooks.whole_path(out) if out else notebooks.default_out(f"{plan.profile}-search")
    base = study.Base(profile, settings, common, stage_data.locate_data(data), target, own)
    _check_nodes(engine, address, target, base.data)
    page = study.search(base, varied, trials, storage, click.echo)
    click.echo(f"\nthe page: {page}")


@kit.command()
@click.argument("outputs", required=False, type=click.Path(path_type=Path))
def runs(outputs: Path | None) -> None:
    """List the runs in OUTPUTS: stages done, scores, time, profile and data.  [default: outputs]"""
    from kitlib.stages import notebooks
    from kitlib.stages.report import runs as found

    click.echo(found.table(outputs or notebooks.ROOT / "outputs"))


@kit.command()
@click.argument("folders", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
def compare(folders: tuple[Path, ...]) -> None:
    """Compare each RUN with the first: parameters, scores with 90 % intervals, losses; writes a page.

    Scores are of the validation images that all runs have, each predicted by a model that never saw it.
    """
    from kitlib.stages.report import compare as comparison

    found, page = comparison.compare([folder.resolve() for folder in folders])
    click.echo(comparison.text(found.table()))
    click.echo("\n" + "\n".join([*found.sentences, f"the page: {page}"]))


@kit.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", metavar="[JUPYTERLAB OPTIONS]", nargs=-1, type=click.UNPROCESSED)
def lab(options: tuple[str, ...]) -> None:
    """Open JupyterLab on copies of the notebooks, in outputs/lab.

    A copy that you changed is never overwritten.
    """
    from kitlib.stages import lab as jupyter

    jupyter.start(options, click.echo)


@kit.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--competition",
    default="sartorius-cell-instance-segmentation",
    show_default=True,
    help="Its name in the address of its page.",
)
@click.option("--keep-archive", is_flag=True, help="Leave the archive in DIR as well.")
def download(folder: Path, competition: str, keep_archive: bool) -> None:
    """Download a competition's data from Kaggle into DIR, or what is missing of it there."""
    from kitlib.kaggle.remote import download as downloads

    downloads.download(folder, competition, keep_archive, say=click.echo)
    click.echo(f"{folder}: complete")


@kit.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the calls of the official client, and do nothing.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="For the notebook's run on Kaggle.")
@click.option("--every", default=20.0, show_default=True, help="Seconds between two queries of its state.")
def push(run: Path, dry_run: bool, wait: bool, every: float) -> None:
    """Send RUN's bundle to Kaggle, run its notebook there and fetch what it writes."""
    from kitlib.kaggle.remote import push as pushes

    if dry_run:
        click.echo("\n".join(pushes.commands(run)))
    else:
        pushes.push(run, wait, every, say=click.echo)


@kit.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-m", "--message", default="", help="What the submission is called; left out: run and version.")
@click.option("--version", default=0, help="Of the notebook; left out: the one pushed last.")
@click.option("--dry-run", is_flag=True, help="Print the calls of the official client, and do nothing.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="For the scores.")
@click.option("--every", default=20.0, show_default=True, help="Seconds between two queries of its state.")
def submit(run: Path, message: str, version: int, dry_run: bool, wait: bool, every: float) -> None:
    """Submit what RUN's notebook wrote on Kaggle to the competition, and print its scores."""
    from kitlib.kaggle.remote import submit as submits

    if dry_run:
        click.echo("\n".join(submits.commands(run, message, version)))
        return
    scores = submits.submit(run, message, version, wait, every, say=click.echo)
    if scores:
        click.echo(
            f"public score {scores.public or 'not shown'}, private score {scores.private or 'not shown'}"
        )


@kit.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--user", default="", help="Your name on Kaggle; left out: `kit push` fills it in.")
@click.option("--half", is_flag=True, help="Weights in 16 bits: half the size to upload.")
def bundle(run: Path, user: str, half: bool) -> None:
    """Pack RUN (outputs/demo) for Kaggle: what the submission notebook needs without a network."""
    from kitlib.stages import bundling

    packed = bundling.write(run, user, half)
    for name, size in packed.sizes.items():
        click.echo(f"{size / 1e6:10.2f} MB  {name}")
    click.echo(f"{packed.size / 1e6:10.2f} MB  in {packed.folder}")


@kit.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--layout", default="both", type=click.Choice(["both", "old", "new"]), help="Of Kaggle's folders."
)
@click.option("--images", default=8, show_default=True, help="Hidden test images.")
@click.option("--python", default="", help="A Python whose packages stand for Kaggle's; left out: this one.")
@click.option("--hours", type=float, help="The notebook's time limit; left out: its own.")
@click.option(
    "--faults",
    is_flag=True,
    help="Also run it with broken images, missing files and so on: some ten minutes more.",
)
def rehearse(run: Path, layout: str, images: int, python: str, hours: float | None, faults: bool) -> None:
    """Run the bundle of RUN (outputs/demo) as Kaggle would, without a network, and check what it submits."""
    from kitlib.kaggle.rehearsal import rehearse as rehearsal
    from kitlib.stages import bundling

    bundling.check_competition(run)
    layouts = rehearsal.LAYOUTS if layout == "both" else (layout,)
    rehearsal.rehearse(run, layouts, images, python, hours, faults, click.echo)


if __name__ == "__main__":
    main()
