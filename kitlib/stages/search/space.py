"""The parameters that a search varies, and what it may try of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from kitlib import config
from kitlib.errors import KitError
from kitlib.stages import notebooks

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_STAGE = "03_train"
# Another value of these changes what a score is measured on, or nothing at all.
_FIXED = ("data", "out", "gpus", "workers", "reading", "corrections", "fold", "folds")
_LOG = ":log"
_FORMS = "write 03.schedule.max_lr=1e-4..1e-3:log, 03.max_iter=200..800 or 03.optim.name=[sgd, adamw]"


@dataclass(frozen=True)
class Dimension:
    """A parameter that is varied: within a range, or among values.

    Attributes:
        name: "03_train.schedule.max_lr".
        range: its ends, whole numbers or not, which are tried as well; None where there are ``choices``.
        log: whether a range is tried evenly in the logarithm.
        choices: values, as YAML texts.
    """

    name: str
    range: tuple[float, float] | None = None
    log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def extremes(self) -> list[str]:
        """The settings of the ends of its range, or of its choices."""
        values = self.range or self.choices
        return [self.setting(value) for value in values]

    @property
    def distribution(self) -> BaseDistribution:
        """The same in Optuna's words."""
        from optuna import distributions

        if self.range is None:
            return distributions.CategoricalDistribution(self.choices)
        kinds = (distributions.IntDistribution, distributions.FloatDistribution)
        kind: Any = kinds[any(isinstance(end, float) for end in self.range)]
        return kind(*self.range, log=self.log)

    def setting(self, value: float | str) -> str:
        """A value as ``--set`` takes it."""
        return f"{self.name}={value}"


def read(params: Sequence[str], of_profile: Mapping[str, Any]) -> list[Dimension]:
    """The space to search.

    Args:
        params: texts "NAME=LOW..HIGH", "NAME=LOW..HIGH:log" or "NAME=[VALUE, VALUE]".
        of_profile: the section ``search`` of a profile: the same by name; ``params`` win over it.

    Raises:
        KitError: a text has another form, a parameter is no setting of 03_train that can be searched, or a
            range is not one; or there is nothing to search.
    """
    found = {}
    for name, values in of_profile.items():
        dimension = _dimension(str(name), values, f"search: {name}: {values}")
        found[dimension.name] = dimension
    for text in params:
        name, equals, values = text.partition("=")
        if not equals:
            raise KitError(f"--param '{text[:80]}' names no values; {_FORMS}")
        dimension = _dimension(name, values, f"--param {text}")
        found[dimension.name] = dimension
    if not found:
        raise KitError(
            f"there is nothing to search: give --param, or a section search in the profile; {_FORMS}"
        )
    return list(found.values())


def _dimension(name: str, values: Any, where: str) -> Dimension:
    """One parameter; ``where`` begins messages."""
    where = where[:80]
    stage, _, rest = name.strip().partition(".")
    if notebooks.resolve(stage) != _STAGE or not rest:
        raise KitError(
            f"{where}: a search varies the parameters of {_STAGE}, whose score it compares; {_FORMS}"
        )
    if rest.split(".")[0] in _FIXED:
        raise KitError(f"{where}: scores with another {rest.split('.')[0]} cannot be compared; leave it out")
    whole = f"{_STAGE}.{rest}"
    if isinstance(values, str) and ".." in values:
        return _range(whole, values, where)
    return _choices(whole, values, where)


def _range(name: str, text: str, where: str) -> Dimension:
    log = text.strip().endswith(_LOG)
    ends = [_number(end, where) for end in text.strip().removesuffix(_LOG).split("..", 1)]
    low, high = ends
    if low >= high:
        raise KitError(f"{where}: the range must begin below its end, not {low} .. {high}")
    if log and low <= 0:
        raise KitError(f"{where}: a logarithmic range must begin above 0, not at {low}")
    return Dimension(name, (low, high), log)


def _number(text: str, where: str) -> float:
    value = _parsed(text, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise KitError(f"{where}: '{text.strip()}' is no number; {_FORMS}")
    return value


def _choices(name: str, values: Any, where: str) -> Dimension:
    parsed = _parsed(values, where) if isinstance(values, str) else values
    if not isinstance(parsed, list) or len(parsed) < 2:
        raise KitError(f"{where} is neither a range nor a list of two values or more; {_FORMS}")
    texts = tuple(_text(value) for value in parsed)
    if len(set(texts)) < len(texts):
        raise KitError(f"{where} names a value twice; name each once")
    return Dimension(name, choices=texts)


def _text(value: Any) -> str:
    """A value as one line of YAML; text as it is, as ``--set`` takes it."""
    if isinstance(value, str):
        return value
    return config.format_yaml(value, one_line=True).removesuffix("\n").removesuffix("\n...")


def _parsed(text: str, where: str) -> Any:
    try:
        return config.parse_yaml(text)
    except yaml.YAMLError as error:
        raise KitError(f"{where} is not valid YAML ({' '.join(str(error).split())[:80]}); {_FORMS}") from None
