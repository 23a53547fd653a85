"""What the last cell of a notebook shows: its figures in a table, and in a sentence how good they are."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kitlib.errors import KitError
from kitlib.stages.report import runs
from kitlib.stages.report.advice import advise

_LONGEST = 100


class Finished(dict[str, Any]):
    """The values of a stage's metrics.json; a notebook shows them as a table, then the advice."""

    def __init__(self, metrics: Mapping[str, Any], advice: str = ""):
        super().__init__(metrics)
        self._advice = advice

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in self._rows()
        )
        return f"<table>{rows}</table><p>{html.escape(self._advice)}</p>"

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        lines = [f"{name.ljust(width)}  {value}" for name, value in self._rows()]
        return "\n".join([*lines, self._advice]).strip()

    def _rows(self) -> list[tuple[str, str]]:
        rows = [(name.replace("_", " "), value) for name, value in self.items()]
        # A sentence of the advice need not be there twice.
        return [(name, _shown(value)) for name, value in rows if not self._advises(value)]

    def _advises(self, value: Any) -> bool:
        return isinstance(value, str) and len(value) > _LONGEST and value in self._advice


def finished(metrics: Mapping[str, Any], run: Path | None) -> Finished:
    """The values of a stage that has just written its metrics.json, with advice on them.

    Args:
        metrics: those values.
        run: the run's folder; None where there is none, as on Kaggle: no advice.
    """
    if run is None:
        return Finished(metrics)
    try:
        found = runs.read(run)
        stage = found.stage(metrics["stage"])
    except KitError as error:
        # A damaged file of another stage takes nothing from this one's results.
        return Finished(metrics, f"There is no advice, as {error}.")
    return Finished(metrics, advise(found, stage).text if stage is not None else "")


def _shown(value: Any) -> str:
    """A value in at most ``_LONGEST`` characters; scores have three digits after the point, sizes one."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{name}: {_shown(one)}" for name, one in value.items()) or "none"
    elif isinstance(value, list | tuple):
        text = ", ".join(map(_shown, value)) or "none"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.3f}" if abs(value) <= 1 else f"{value:,.1f}"
    else:
        text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
