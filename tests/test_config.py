"""Configurations from plain values and YAML, and what is said of wrong ones."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from kitlib import config
from kitlib.config import Float, Int, Precision, configuration
from kitlib.errors import KitError


@configuration
class Schedule:
    name: Literal["cosine", "one_cycle"] = "cosine"
    max_lr: Float = 1e-3
    """The highest learning rate."""
    warmup_iters: Int = 0

    def __post_init__(self) -> None:
        if self.warmup_iters == 13:
            raise ValueError("warmup_iters 13 brings bad luck")


@configuration
class Training:
    out: str
    schedule: Schedule = Field(default_factory=Schedule)
    categories: tuple[str, ...] = ("cell",)
    crop: tuple[Int, Int] | None = None
    norm: Float | tuple[Float, Float, Float] | None = None
    score: dict[str, Float] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    folder: Path = Path()
    soft: bool = False
    amp: Precision = "off"
    share: Float = Field(0.5, ge=0, lt=1)
    seed: Int = 0


def build(**values: Any) -> Training:
    return config.from_dict(Training, {"out": "o", **values}, "03_train")


def test_what_is_left_out_has_its_default() -> None:
    assert build() == Training("o")
    assert build(schedule={"max_lr": 0.1}).schedule == Schedule(max_lr=0.1)


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("categories", ["a", "b"], ("a", "b")),
        ("crop", [256, 128], (256, 128)),
        ("crop", None, None),
        ("norm", 128, 128.0),  # an int for a float
        ("norm", [1, 2, 3.5], (1.0, 2.0, 3.5)),
        ("score", {"cort": 1}, {"cort": 1.0}),
        ("options", {"anything": [1, {"deep": None}]}, {"anything": [1, {"deep": None}]}),
        ("folder", "some/where", Path("some/where")),
        ("soft", True, True),
        ("amp", False, "off"),  # as PyYAML reads the word off
    ],
)
def test_plain_values_become_the_field_s_type(key: str, given: Any, expected: Any) -> None:
    value = getattr(build(**{key: given}), key)
    assert value == expected
    assert type(value) is type(expected)


def test_a_rate_that_yaml_takes_for_text_is_a_number() -> None:
    assert build(schedule={"max_lr": "6e-4"}).schedule.max_lr == 6e-4


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"sed": 1}, "unknown key in 03_train 'sed': did you mean 'seed'?"),
        ({"schedule": {"maxlr": 1}}, r"unknown key in 03_train.schedule 'maxlr': did you mean 'max_lr'?"),
        (
            {"schedule": {"name": "cosin"}},
            "unknown value of 03_train.schedule.name: 'cosin': did you mean 'cosine'?",
        ),
        ({"schedule": {"max_lr": "fast"}}, "03_train.schedule.max_lr must be a number, not 'fast'"),
        ({"schedule": 3}, "03_train.schedule must be a section of keys and values, not 3"),
        ({"seed": 1.5}, "03_train.seed must be a whole number, not 1.5"),
        ({"seed": True}, "03_train.seed must be a whole number, not True"),
        ({"seed": "1"}, "03_train.seed must be a whole number, not '1'"),
        ({"seed": None}, "03_train.seed must be a whole number, not None"),
        ({"soft": "perhaps"}, "03_train.soft must be true or false, not 'perhaps'"),
        ({"share": True}, "03_train.share must be a number, not True"),
        ({"share": 1}, "03_train.share must be below 1, not 1"),
        ({"share": -0.5}, "03_train.share must be at least 0, not -0.5"),
        ({"schedule": {"warmup_iters": 13}}, "03_train.schedule: warmup_iters 13 brings bad luck"),
        ({"categories": "cort"}, "03_train.categories must be a list, not 'cort'"),
        ({"categories": ["cort", 1]}, "03_train.categories.1 must be text, not 1"),
        ({"crop": [256]}, "03_train.crop must hold 2 values, not [256]"),
        ({"norm": [1, 2]}, "03_train.norm must hold 3 values, not [1, 2]"),
        ({"score": {"cort": "high"}}, "03_train.score.cort must be a number, not 'high'"),
        ({"score": [0.5]}, "03_train.score must be a section of keys and values, not [0.5]"),
        ({"out": 5}, "03_train.out must be text, not 5"),
    ],
)
def test_a_wrong_key_or_value_is_named(values: dict, problem: str) -> None:
    with pytest.raises(KitError) as caught:
        build(**values)
    assert problem in str(caught.value)


def test_a_value_that_must_be_given_is_named() -> None:
    with pytest.raises(KitError, match="03_train lacks 'out'"):
        config.from_dict(Training, {}, "03_train")


def test_a_section_may_be_built_already() -> None:
    ready = Schedule("one_cycle")
    assert build(schedule=ready).schedule is ready


names = st.text(max_size=8)
numbers = st.floats(allow_nan=False)
trainings = st.builds(
    Training,
    out=names,
    schedule=st.builds(
        Schedule,
        st.sampled_from(["cosine", "one_cycle"]),
        numbers,
        st.integers(-(10**20), 10**20).filter(lambda n: n != 13),
    ),
    categories=st.lists(names, max_size=3).map(tuple),
    crop=st.none() | st.tuples(st.integers(), st.integers()),
    norm=st.none() | numbers | st.tuples(numbers, numbers, numbers),
    score=st.dictionaries(names, numbers, max_size=3),
    options=st.dictionaries(
        names, st.none() | st.booleans() | names | numbers | st.lists(numbers), max_size=3
    ),
    folder=names.map(lambda name: Path("a" + name.replace("\0", ""))),
    soft=st.booleans(),
    seed=st.integers(),
)


@given(trainings)
def test_whatever_is_saved_comes_back(tmp_path_factory: pytest.TempPathFactory, made: Training) -> None:
    path = config.save(made, tmp_path_factory.getbasetemp() / "round_trip.yaml")
    assert config.load(Training, path) == made


@pytest.mark.parametrize(
    "text", ["0E0", "1e-3", "off", "no", "true", "1.5", "7", "null", "~", ".inf", "2021-05-11"]
)
def test_a_text_stays_a_text(tmp_path: Path, text: str) -> None:
    made = Training(text, options={text: text})
    path = config.save(made, tmp_path / "a.yaml")
    assert config.load(Training, path) == made
    assert yaml.safe_load(path.read_text())["options"] == {text: text}  # for other readers, too


def test_infinity_comes_back(tmp_path: Path) -> None:
    made = Training("o", Schedule(max_lr=math.inf))
    assert config.load(Training, config.save(made, tmp_path / "a.yaml")) == made


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"out: [1, 2", r"is not valid YAML: [^\n]*$"),
        (b"- out\n- seed\n", "must hold keys and values"),
        (b"just text", "must hold keys and values"),
        (b"out: \xff\xfe", r"is not valid YAML: [^\n]*$"),
        (b"out: o\nsede: 1\n", r"unknown key in .*a\.yaml 'sede': did you mean 'seed'?"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KitError, match=problem) as caught:
        config.load(Training, path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="cannot read"):
        config.read_yaml(tmp_path)


def test_an_empty_file_holds_no_keys(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing but a comment\n")
    assert config.read_yaml(tmp_path / "a.yaml") == {}


def test_the_text_reads_top_down() -> None:
    lines = config.dumps(Training("o", crop=(2, 3))).splitlines()
    assert lines[0] == "out: o"
    assert "crop: [2, 3]" in lines


def test_a_class_refuses_a_wrong_value_by_name() -> None:
    with pytest.raises(KitError, match=r"^share must be below 1, not 7$"):
        Training("o", share=7)
    with pytest.raises(KitError, match="unknown key 'sede': did you mean 'seed'"):
        Training("o", sede=7)


def test_a_long_value_is_quoted_in_part() -> None:
    with pytest.raises(KitError) as caught:
        build(seed="x" * 1000)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2.5E+10", -2.5e10),
        (".5", 0.5),
        ("1.", 1.0),
        ("7", 7),
        ("off", "off"),
        ("no", "no"),
        ("{amp: on, soft: true}", {"amp": "on", "soft": True}),
        ("[1, 2e1, x]", [1, 20.0, "x"]),
        ("1e", "1e"),
        ("e5", "e5"),
        ("2021-05-11", datetime.date(2021, 5, 11)),
    ],
)
def test_yaml_is_read_as_version_1_2_has_it(text: str, value: Any) -> None:
    found = config.parse_yaml(text)
    assert (found, type(found)) == (value, type(value))
