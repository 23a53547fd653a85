"""What a run asks of a machine, said before its first stage; the surveys are of machines unlike this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib import stages
from kitlib.errors import KitError
from kitlib.runtime import gpus
from kitlib.runtime.gpus import Gpu, Survey
from kitlib.stages import profiles, runner

CUDA_13 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
TRAIN = ("02_pretrain_livecell", "03_train")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch):
    """``host(8, capability)``: a machine with that many GPUs."""

    def make(count: int = 0, capability: tuple[int, int] = (8, 0)) -> None:
        cards = (Gpu("card", capability),) * count
        found = Survey("2.14.1", "13.0", CUDA_13, count, cards, driver="580.65" if count else "")
        monkeypatch.setattr(gpus, "survey", lambda: found)

    return make


def check(profile: str, *settings: str, chosen=stages.STAGES, **common: int) -> None:
    runner.check_machine(profiles.plan(profile, settings, common), chosen)


@pytest.mark.parametrize("profile", ["t4", "paper", "gold"])
def test_a_profile_for_gpus_starts_on_a_cpu_only_when_told_to(host, profile: str) -> None:
    host(0)
    with pytest.raises(KitError) as caught:
        check(profile)
    said = str(caught.value)
    assert said.startswith(f"the profile '{profile}' is made for GPUs, and this machine has none that")
    assert "give --gpus 0 to run it on the CPU" in said
    check(profile, gpus=0)


def test_the_work_of_a_profile_is_told(host) -> None:
    """paper: 5,000 iterations of 16 images, three times; gold: 30,000 of 8, then twice 10,000 for 5 folds."""
    host(0)
    with pytest.raises(KitError, match="each of the 240,000 images"):
        check("paper")
    with pytest.raises(KitError, match="each of the 80,000 images"):
        check("paper", chosen=TRAIN[1:])
    with pytest.raises(KitError, match="each of the 1,040,000 images"):
        check("gold")


@pytest.mark.parametrize("profile", ["demo", "cpu"])
def test_other_profiles_start_on_any_machine(host, profile: str) -> None:
    for count in (0, 2):
        host(count)
        check(profile)


def test_more_gpus_than_there_are(host) -> None:
    host(2)
    with pytest.raises(KitError, match="8 GPUs are asked for but this machine has 2"):
        check("paper", gpus=8)
    with pytest.raises(KitError, match="4 GPUs are asked for"):
        check("paper", "03.gpus=4")


def test_only_the_stages_that_run_count(host) -> None:
    host(0)
    check("paper", chosen=("01_eda",))
    check("paper", chosen=())


def test_a_batch_that_the_gpus_cannot_share(host) -> None:
    host(8)
    check("paper", gpus=8)
    with pytest.raises(KitError, match="02_pretrain_livecell: images_per_batch 16 cannot be shared by 3"):
        check("paper", gpus=3)
    check("paper")  # on as many as can share it


def test_folds_side_by_side_share_the_gpus(host) -> None:
    """Batches of 16 on 6 GPUs: three share none, two do; of one fold all six would."""
    host(6)
    five, chosen = ("03.fold=-1", "03.gpus=6"), ("03_train",)
    with pytest.raises(KitError, match="03_train: images_per_batch 16 cannot be shared by 3 processes"):
        check("paper", *five, "03.folds_at_once=2", chosen=chosen)
    check("paper", *five, "03.folds_at_once=3", chosen=chosen)
    for setting in ("03.fold=0", "03.learning_curve=[0.5]"):
        with pytest.raises(KitError, match="03_train: images_per_batch 16 cannot be shared by 6 processes"):
            check("paper", *five, "03.folds_at_once=3", setting, chosen=chosen)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (["03.amp=bf16"], "03_train.amp is bf16"),
        (["02.amp=bf16"], "02_pretrain_livecell.amp is bf16"),
        (["03.predict_config.amp=bf16"], "03_train.predict_config.amp is bf16"),
        (["06.predict_config={'amp': 'bf16'}"], "06_submit.predict_config.amp is bf16"),
        (["04.predict_config={'amp': 'bf16'}"], "04_pseudolabel.predict_config.amp is bf16"),
    ],
)
def test_bfloat16_on_a_card_without(host, settings: list[str], name: str) -> None:
    host(1, (7, 5))
    check("t4")
    with pytest.raises(KitError, match=f"{name}, but GPU 0 .* has no bfloat16; set it to fp16"):
        check("t4", *settings)
    check("t4", *settings, gpus=0)
    host(1, (8, 6))
    check("t4", *settings)


def test_predicting_as_03_does_asks_for_what_03_asks_for(host) -> None:
    host(1, (7, 5))
    with pytest.raises(KitError, match=r"03_train\.predict_config\.amp is bf16"):
        check("t4", "03.predict_config.amp=bf16", chosen=("06_submit",))
    check("t4", "03.predict_config.amp=bf16", "06.predict_config={'amp': 'fp16'}", chosen=("06_submit",))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("device: tpu", "unknown device of PATH: 'tpu': did you mean 'gpu'?"),
        ("devcie: gpu", "unknown section of PATH: 'devcie': did you mean 'device'?"),
        ("device:", "unknown device of PATH: 'None'"),
    ],
)
def test_a_profile_says_strictly_what_it_is_made_for(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(KitError, match=problem.replace("PATH", str(path)).replace("?", r"\?")):
        profiles.plan(str(path))
    path.write_text("device: gpu")
    assert profiles.plan(str(path)).device == "gpu"


def test_a_limit_of_time_is_refused_on_a_cluster(host, monkeypatch: pytest.MonkeyPatch) -> None:
    host(0)
    monkeypatch.setattr(runner.cluster, "is_chosen", lambda: True)
    with pytest.raises(KitError, match=r"^06\.hours is kept on one machine alone; set it to 0"):
        check("demo", "06.hours=1", chosen=("06_submit",), gpus=0)
    check("demo", chosen=("06_submit",), gpus=0)
