"""The parameters of each notebook: defaults, types, bounds, help, and what a change of each affects.

The first cell of a notebook repeats the names, defaults and help of its class here; a test holds both equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from kitlib import config
from kitlib.config import Affects, Count, Float, Int, Part, PositiveCount, configuration, with_defaults
from kitlib.data.cleaning import CleaningConfig
from kitlib.data.config import DEFAULTS, ReadingConfig
from kitlib.errors import KitError, unknown
from kitlib.inputs.config import AugmentConfig
from kitlib.model.presets import Architecture, MaskStages, ModelConfig
from kitlib.post.config import ScoreKind, TuningMethod
from kitlib.predict.config import PredictConfig, PseudoConfig
from kitlib.train.config import OptimConfig, Phase, TrainingSettings, ValidatedSettings
from kitlib.train.sampler import SamplerConfig
from kitlib.train.schedule import ScheduleConfig

#: Former names of parameters, of keys in them and of values in lists: refused for one release.
_RENAMED = {
    "average": "ema_decay, a number: 0.999, or 0 for no average",
    "generation": "weights: name the files of the round that shall label",
    "limits": "post_processing",
    "ways": "tuning_methods",
    "tuning_methods.limits for all": "one threshold for all types",
    "tuning_methods.limits by type": "thresholds by type",
    "predict_config.levels": "predict_config.candidate_mask_thresholds",
    "score": "score_threshold",
    "doubt": "ignore_threshold",
    "weight": "loss_weight",
    "soft": "weight_by_score",
}

ExportFormat = Literal["labels", "outlines", "rois", "coco", "geojson", "table"]
Fitted = Literal["scales", "crop", "anchors", "grey_levels"]
_ProperShare = Annotated[Float, Field(gt=0, lt=1)]
SomePredictConfig = Annotated[dict[str, Any], Part(PredictConfig)]
_ADAMW = OptimConfig("adamw", weight_decay=0.01, clip_norm=5.0)
_VIEWS = AugmentConfig(crop=(192, 192), scale=(1.2, 1.8))


@configuration
class _Folders:
    data: Annotated[str, Affects("place")] = ""
    """The competition's folder, or one of your own images and cells; empty: synthetic cells."""
    out: Annotated[str, Affects("place")] = ""
    """The run's folder; empty: outputs/demo, or outputs/ and the name of the data's folder."""


@configuration
class _Reading:
    reading: ReadingConfig = DEFAULTS
    """Of your own images: channel, plane, projection, mask_suffixes, folders_are, relabel."""


@configuration
class _Computing(_Folders):
    gpus: Annotated[Int, Field(ge=-1), Affects("place")] = -1
    """Processes with one GPU each; -1: all there are, 0: the CPU."""


@configuration
class Exploration(_Reading, _Folders):
    """Of 01_eda."""

    folds: Annotated[Int, Field(ge=2)] = 5
    """Folds for cross-validation; 5 gives the 80/20 split."""
    seed: Int = 0
    """The folds depend on this alone."""
    examples: PositiveCount = 3
    """Example images of each type."""
    few_cells: Annotated[Float, Field(ge=0, lt=1)] = 0.1
    """LIVECell images with fewer cells than this share of their neighbours' are faulty."""


@configuration
class _LiveCell(_Computing):
    splits: Annotated[tuple[Literal["train", "val", "test"], ...], Field(min_length=1)] = ("train",)
    """Parts of LIVECell to train on: train, val, test."""
    few_cells: Annotated[Float, Field(ge=0, lt=1)] = 0.1
    """Leave out images with fewer cells than this share of what their neighbours have."""
    weights: str = ""
    """Start from imagenet, coco, a file, an address or timm://NAME; empty: random."""


@configuration
class _Network:
    preset: str = "tiny"
    """The network: tiny, lite0, r50 or x152 (the paper's); the same in 02 and 03."""
    mask_stages: MaskStages = "all"
    """A mask branch at each cascade stage ("all") or at the last one ("last")."""
    model_options: Annotated[dict[str, Any], Part(Architecture)] = Field(
        default_factory=lambda: {"roi_batch": 64}
    )
    """What differs from the preset; the same in 02 and 03."""

    def model(self, num_classes: int) -> ModelConfig:
        """What the network is built from."""
        return ModelConfig(self.preset, num_classes, self.mask_stages, self.model_options)


@configuration
@with_defaults(
    max_iter=80,
    schedule=ScheduleConfig("cosine", max_lr=6e-4, min_lr=1e-5, warmup_iters=20),
    optim=_ADAMW,
    augment=_VIEWS,
    checkpoint_every=50,
)
class Pretraining(TrainingSettings, _Network, _LiveCell):
    """Of 02_pretrain_livecell."""

    def __post_init__(self) -> None:
        self.model(num_classes=1)


@configuration
@with_defaults(optim=_ADAMW, augment=_VIEWS, sampler=SamplerConfig(balance=1.0), checkpoint_every=50)
class _Tuned(ValidatedSettings):
    """A training that is followed by post-processing, tuned on validation images."""

    phases: tuple[Phase, ...] = ()
    """Trainings in a row, each with its own max_iter, schedule, augment or sampler; empty: one."""
    ensemble_phases: Annotated[PositiveCount, Affects("after")] = 1
    """How many of the last phases' weights of a fold predict together."""
    score_kinds: Annotated[tuple[ScoreKind, ...], Field(min_length=1), Affects("after")] = ("box", "product")
    """What may rank instances: box, mask, product, learned."""
    tuning_methods: Annotated[tuple[TuningMethod, ...], Field(min_length=1), Affects("after")] = (
        "one threshold for all types",
        "thresholds by type",
        "expected gain",
    )
    """How to tune."""
    folds_at_once: Annotated[PositiveCount, Affects("place")] = 1
    """Trainings side by side, on an equal share of the GPUs each."""

    def check(self, predict: Mapping[str, Any]) -> None:
        """What types and bounds cannot say; ``predict`` holds fields of ``PredictConfig``."""
        if self.patience and not self.eval_every:
            raise KitError(
                f"patience {self.patience} stops nothing while eval_every is 0; set both or neither"
            )
        for number, phase in enumerate(self.phases):
            phase.settings(self, f"phases.{number}.")
        if self.ensemble_phases > max(len(self.phases), 1):
            raise KitError(
                f"ensemble_phases {self.ensemble_phases} is more than the {len(self.phases)} of phases; "
                "lower it, or give more phases"
            )
        by_type = sorted(set(predict.get("mask_threshold", {})) - {"default"})
        if by_type:
            raise KitError(
                f"predict_config: the stage finds out mask_threshold by type ({', '.join(by_type)}); "
                "give what it may try as candidate_mask_thresholds"
            )


@configuration
class _Labelled(_Reading, _Computing):
    fold: Annotated[Int, Field(ge=-1)] = 0
    """The validation fold; -1: train once for each fold."""
    folds: Annotated[Int, Field(ge=2)] = 5
    """5: 80 % of the images train, 20 % validate."""
    weights: str = ""
    """Start from imagenet, coco, a file, an address or timm://NAME; empty: the weights of 02."""


@configuration
@with_defaults(max_iter=320, schedule=ScheduleConfig("cosine", max_lr=6e-4, min_lr=1e-5, warmup_iters=30))
class Training(_Tuned, _Network, _Labelled):
    """Of 03_train."""

    from_data: tuple[Fitted, ...] = ("scales", "crop", "anchors", "grey_levels")
    """Of your own images: what the cells decide."""
    corrections: str = ""
    """Cells corrected by hand: a corrections.csv that the viewer saved; empty: none."""
    cleaning: CleaningConfig = CleaningConfig()
    """Cleaning of the masks that train, e.g. {"fill_holes": True, "keep_largest": True}."""
    predict_config: Annotated[PredictConfig, Affects("after", where="keeps_last_weights")] = PredictConfig(
        scales=(1.5,), candidate_mask_thresholds=(0.5, 0.4)
    )
    """How frames are predicted."""
    learning_curve: Annotated[tuple[_ProperShare, ...], Affects("report")] = ()
    """Shares of its images that the first fold also trains on, e.g. [0.3, 0.6]."""

    def __post_init__(self) -> None:
        self.model(num_classes=1)
        self.check(config.to_dict(self.predict_config))
        if self.fold >= self.folds:
            raise KitError(f"fold {self.fold} of {self.folds}: fold must be 0 to folds - 1, or -1 for all")


@configuration
class _Unlabelled(_Computing):
    weights: tuple[str, ...] = ()
    """Weights to predict with, an ensemble if several; empty: those of 03."""
    predict_config: SomePredictConfig = Field(default_factory=dict)
    """How frames are predicted, where not as in 03."""


@configuration
class PseudoLabelling(PseudoConfig, _Unlabelled):
    """Of 04_pseudolabel."""


@configuration
class _Relabelled(_Computing):
    fold: Annotated[Int, Field(ge=-1)] = -1
    """The validation fold, one of those of 03; -1: train once for each of them."""
    start_from: Literal["02_pretrain_livecell", "03_train"] = "03_train"
    """Go on from these weights: 03_train, or 02_pretrain_livecell as in the paper."""
    weights: str = ""
    """Start from this file instead."""


@configuration
@with_defaults(
    max_iter=60,
    schedule=ScheduleConfig("cosine", max_lr=3e-4, min_lr=1e-5, warmup_iters=10),
    sampler=SamplerConfig(balance=1.0, pseudo_share=0.25),
)
class Retraining(_Tuned, _Relabelled):
    """Of 05_retrain."""

    predict_config: Annotated[SomePredictConfig, Affects("after", where="keeps_last_weights")] = Field(
        default_factory=dict
    )
    """How frames are predicted, where not as in 03."""
    from_data: tuple[Literal["scales", "crop"], ...] = ("scales", "crop")
    """Of your own images: what is as in 03, in place of augment."""
    finetune_iter: Count = 0
    """Further iterations at the end, on the labelled images alone."""
    finetune_lr: Annotated[Float, Field(gt=0)] = 1e-4
    """Highest learning rate of these."""
    margin: Annotated[Float, Affects("after")] = 0.0
    """The new weights are taken if the metric rises by more than this ..."""
    confidence: Annotated[Float, Field(gt=0, lt=1), Affects("after")] = 0.8
    """... with this confidence."""
    use_retrained: Annotated[Literal["if better", "always"], Affects("after")] = "if better"
    """The new weights are used "if better", as the gate decides, or "always"."""

    def __post_init__(self) -> None:
        self.check(self.predict_config)


@configuration
class Submission(_Computing):
    """Of 06_submit."""

    weights: tuple[str, ...] = ()
    """Weights to predict with, an ensemble if several; empty: those of 05 if it accepted them."""
    post_processing: str = ""
    """A post.yaml; empty: the run's own."""
    predict_config: SomePredictConfig = Field(default_factory=dict)
    """How frames are predicted, where not as those that post-processing was tuned on."""
    hours: Annotated[Float, Field(ge=0)] = 0.0
    """Time limit; where it is short, fewer views and models predict. 0: no limit."""
    formats: tuple[ExportFormat, ...] = ("labels", "outlines", "rois", "coco", "geojson", "table")
    """For your own images: the files."""

    def __post_init__(self) -> None:
        if "mask_threshold" in self.predict_config:
            raise KitError(
                "predict_config: mask_threshold is tuned, and stands in post.yaml; "
                "name another such file as post_processing"
            )


MODELS: dict[str, type] = {
    "01_eda": Exploration,
    "02_pretrain_livecell": Pretraining,
    "03_train": Training,
    "04_pseudolabel": PseudoLabelling,
    "05_retrain": Retraining,
    "06_submit": Submission,
}


def read(stage: str, values: Mapping[str, Any], where: str = "") -> Any:
    """The parameters of a stage as an instance of its class in ``MODELS``.

    Args:
        values: by name, dictionaries for nested ones; what is left out has its default.
        where: the beginning of messages ("profile 'paper', ").

    Raises:
        KitError: an unknown or renamed name, here or nested, or a value that is not what it may be.
    """
    _refuse_renamed(f"{where}{stage}", values)
    known = config.fields(MODELS[stage])
    for name in values:
        if name not in known:
            raise unknown(f"parameter of {where}{stage}:", name, known)
    return config.from_dict(MODELS[stage], values, f"{where}{stage}")


def _refuse_renamed(where: str, values: Mapping[str, Any], path: str = "") -> None:
    """Raise KitError if a name, a key in a dictionary or a text in a list is one of ``_RENAMED``."""
    for key, value in values.items():
        name = f"{path}{key}"
        words = value if isinstance(value, list | tuple) else ()
        for former in (name, *(f"{name}.{word}" for word in words)):
            if former in _RENAMED:
                raise KitError(f"{where}.{former} is now {_RENAMED[former]}")
        if isinstance(value, Mapping):
            _refuse_renamed(where, value, f"{name}.")


def predict_config_after(training: Training, given: Any, where: str = "") -> PredictConfig:
    """How a stage after 03 predicts: as 03, but for what its own parameters say.

    Args:
        training: the parameters of 03.
        given: the parameters of the stage.
        where: the beginning of messages.

    Raises:
        KitError: the two do not go together.
    """
    whole = {**config.to_dict(training.predict_config), **given.predict_config}
    return config.from_dict(PredictConfig, whole, where)


def training_settings(given: Any) -> dict[str, Any]:
    """The parameters of a stage that are settings of its training, by name."""
    names = config.fields(ValidatedSettings)
    return {name: getattr(given, name) for name in names if hasattr(given, name)}


def iterations(given: Any) -> int:
    """Of a training with a stage's parameters, through all phases; 0 where the stage does not train."""
    common = getattr(given, "max_iter", 0)
    phases = getattr(given, "phases", ())
    return sum(phase.max_iter or common for phase in phases) if phases else common
