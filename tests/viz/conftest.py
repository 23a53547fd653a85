"""Figures are drawn for good in every test, and matplotlib's warnings are errors."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn(recwarn: pytest.WarningsRecorder) -> Callable[[Figure], Figure]:
    """Draws a figure as a PNG, as notebooks do, and returns it."""

    def draw(figure: Figure) -> Figure:
        file = io.BytesIO()
        figure.savefig(file, dpi=40, bbox_inches="tight")
        assert file.getvalue().startswith(b"\x89PNG")
        assert [str(w.message) for w in recwarn if issubclass(w.category, UserWarning)] == []
        return figure

    return draw
