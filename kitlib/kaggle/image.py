"""What a Kaggle notebook image of mid-2026 has: the list in ``image.txt``, which says where it is from."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

PYTHON = "3.12"
HOURS = 9.0  # that a notebook with a GPU may take
#: What the image is known to be without. The bundle brings what is needed of it.
ABSENT = frozenset({"detectron2", "fvcore", "hydra-core", "iopath", "kitlib", "portalocker", "yacs"})


def normalised(name: str) -> str:
    """A project's name as indexes spell it (PEP 503).

    Example:
        >>> normalised("Typing_Extensions")
        'typing-extensions'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def packages() -> dict[str, str]:
    """The image's packages: normalised name -> version, "" where that is not known."""
    return dict(_packages())


@cache
def _packages() -> tuple[tuple[str, str], ...]:
    text = (files(__package__) / "image.txt").read_text(encoding="utf-8")
    lines = (line.partition("==") for line in text.splitlines() if line and not line.startswith("#"))
    return tuple((normalised(name), version) for name, _, version in lines)
