"""The profiles that the kit ships, against the recipes that they stand for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kitlib import config as configs
from kitlib import stages
from kitlib.errors import KitError
from kitlib.model.presets import ModelConfig
from kitlib.stages import parameters
from kitlib.stages.notebooks import NOTEBOOKS

TRAININGS = ("02_pretrain_livecell", "03_train", "05_retrain")
SHIPPED = sorted(p.stem for p in (NOTEBOOKS / "profiles").glob("*.yaml"))
METHOD = {"max_iter", "images_per_batch", "schedule", "optim", "augment"}


def sections(profile: str) -> dict:
    return configs.read_yaml(NOTEBOOKS / "profiles" / f"{profile}.yaml")


def test_the_profiles_of_the_readme_are_there() -> None:
    assert SHIPPED == ["cpu", "demo", "gold", "paper", "t4"]


@pytest.mark.parametrize("profile", SHIPPED)
def test_every_training_of_a_profile_makes_a_valid_configuration(profile: str, tmp_path: Path) -> None:
    plan = stages.plan(profile)
    for stage in TRAININGS:
        given = parameters.read(stage, plan.parameters[stage])
        model = given.model(1) if hasattr(given, "model") else ModelConfig(num_classes=1)
        config = stages.Stage(stage, tmp_path, tmp_path).training(given, ["cell"], model=model)
        assert config.max_iter == plan.parameters[stage]["max_iter"]
        assert config.model.architecture


@pytest.mark.parametrize("profile", [p for p in SHIPPED if p != "demo"])
@pytest.mark.parametrize("stage", TRAININGS)
def test_no_profile_inherits_the_demo_s_method_by_oversight(profile: str, stage: str) -> None:
    given = sections(profile)[stage].keys()
    wanted = METHOD | (set() if stage == "02_pretrain_livecell" else {"sampler"})
    wanted |= set() if stage == "05_retrain" else {"preset", "model_options"}
    wanted |= {"predict_config"} if stage == "03_train" else set()
    assert wanted <= given


@pytest.mark.parametrize("profile", SHIPPED)
def test_every_stage_predicts_at_scales_that_were_trained(profile: str) -> None:
    plan = stages.plan(profile).parameters
    augment = plan["03_train"]["augment"]
    for stage in ("03_train", "04_pseudolabel", "05_retrain", "06_submit"):
        looks = plan["03_train"]["predict_config"] | plan[stage]["predict_config"]
        trained = augment.get("scale_by_type", {})
        assert looks.get("scales_by_type", {}).keys() == trained.keys()
        first_look = looks["scales"][0]
        assert all(low <= first_look <= high for low, high in trained.values())
        for name, scales in {"default": looks["scales"], **looks.get("scales_by_type", {})}.items():
            low, high = trained.get(name, augment["scale"])
            assert all(low <= scale <= high for scale in scales)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (
            "05.augment.copypaste=0.5",
            "unknown key in 05_retrain.augment 'copypaste': did you mean",
        ),
        ("06.predict_config.scales=[1.5, 1.5]", "06_submit.predict_config: scales must be different values"),
        (
            "02.model_options.anchors=[[8]]",
            "unknown key in 02_pretrain_livecell.model_options 'anchors'",
        ),
        ("05.optim.clip_nrom=5", "unknown key in 05_retrain.optim 'clip_nrom': did you mean 'clip_norm'?"),
        (
            "05.schedule.name=cosin",
            "unknown value of 05_retrain.schedule.name: 'cosin': did you mean 'cosine'?",
        ),
        ("03.ema_decay=1", "03_train.ema_decay must be below 1"),
        ("03.sampler.balance=2", "03_train.sampler.balance must be at most 1, not 2"),
        ("03.cleaning={'fill_hole': True}", "unknown key in 03_train.cleaning 'fill_hole': did you mean"),
        (
            "03.score_kinds=['lerned']",
            "unknown value of 03_train.score_kinds.0: 'lerned': did you mean 'learned'",
        ),
        ("03.score_kinds=[]", "03_train.score_kinds must hold at least 1 value(s), not []"),
        ("05.tuning_methods=['gain']", "unknown value of 05_retrain.tuning_methods.0: 'gain'"),
        ("03.fold=7", "03_train: fold 7 of 5: fold must be 0 to folds - 1, or -1 for all"),
        ("03.amp=fp8", "unknown value of 03_train.amp: 'fp8'"),
        ("03.phases=[{max_itr: 3}]", "unknown key in 03_train.phases.0 'max_itr': did you mean 'max_iter'"),
        (
            "05.phases=[{augment: {scale_by_type: {astros: [1, 2]}}}]",
            "05_retrain: phases.0.augment.scale_by_type: unknown cell type 'astros'",
        ),
        ("03.max_iter=0", "03_train.max_iter must be at least 1, not 0"),
        ("03.mask_stages=al", "unknown value of 03_train.mask_stages: 'al'"),
        (
            "04.score_threshold.astros=0.9",
            "04_pseudolabel: score_threshold: unknown cell type 'astros': did you mean",
        ),
        (
            "03.predict_config.scales_by_type={'shsy': [2.0]}",
            "03_train: predict_config.scales_by_type: unknown cell type 'shsy'",
        ),
        ("05.fold=3", "05_retrain.fold is 3, but 03_train trains fold 0 alone; take that, or -1"),
        ("03.preset=r50", "03_train.preset is 'r50', but it starts from 02's weights, made of 'tiny'"),
        ("03.patience=3", "03_train: patience 3 stops nothing while eval_every is 0"),
        ("05.finetune_iter=-5", "05_retrain.finetune_iter must be at least 0, not -5"),
        (
            "06.predict_config={'mask_threshold': {'default': 0.4}}",
            "06_submit: predict_config: mask_threshold is tuned",
        ),
        (
            "05.use_retrained=allways",
            "unknown value of 05_retrain.use_retrained: 'allways': did you mean 'always'?",
        ),
        ("05.start_from=03", "unknown value of 05_retrain.start_from: '03'"),
        ("05.confidence=80", "05_retrain.confidence must be below 1, not 80"),
        ("04.score_threshold={'default': 'x'}", "04_pseudolabel.score_threshold.default must be a number"),
        ("06.hours=-1", "06_submit.hours must be at least 0, not -1"),
        (
            "03.predict_config={'scales': [1.5], 'mask_threshold': {'default': 0.5, 'astro': 0.4}}",
            "03_train: predict_config: the stage finds out mask_threshold by type (astro)",
        ),
        ("03.preset=r51", "03_train: unknown preset 'r51': did you mean 'r50'?"),
    ],
)
def test_what_a_notebook_would_refuse_is_refused_before_the_first_one_runs(setting, problem) -> None:
    with pytest.raises(KitError) as caught:
        stages.plan("demo", [setting])
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("04.doubt.cort=0.5", "04_pseudolabel.doubt is now ignore_threshold"),
        ("06.limits=my.yaml", "06_submit.limits is now post_processing"),
        ("03.average={kind: ema}", "03_train.average is now ema_decay, a number"),
        ("04.generation=2", "04_pseudolabel.generation is now weights: name the files"),
        (
            "05.predict_config.levels=[0.4]",
            "05_retrain.predict_config.levels is now predict_config.candidate_mask_thresholds",
        ),
        (
            "03.tuning_methods=[expected gain, limits by type]",
            "03_train.tuning_methods.limits by type is now thresholds by type",
        ),
    ],
)
def test_a_former_name_is_refused_with_the_present_one(setting: str, problem: str) -> None:
    with pytest.raises(KitError, match=problem):
        stages.plan("demo", [setting])


def test_a_run_is_planned_without_torch() -> None:
    code = "import sys; from kitlib import stages, train; stages.plan('cpu'); exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
