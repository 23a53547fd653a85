"""The results of a rehearsal, as numbers for a file and as lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kitlib.kaggle import image

_HIDDEN_IMAGES = 240  # in Kaggle's hidden test set, about
_COMPARED = ("torch", "torchvision", "numpy")


@dataclass(frozen=True)
class Played:
    """One run of the notebook.

    Attributes:
        layout: of ``/kaggle/input``: "old" or "new".
        images: number of test images.
        seconds: from the notebook's start to its end.
        seconds_per_image: of predicting, by the notebook's own clock; without one, ``seconds`` by images.
        peak_bytes: the most memory that all its processes used together.
        rows: of the submission.
        bare: images without a cell.
        network: how it was closed.
        proof: how an attempt to connect was refused.
        inputs: how they were made read-only.
    """

    layout: str
    images: int
    seconds: float
    seconds_per_image: float
    peak_bytes: int
    rows: int
    bare: int
    network: str
    proof: str
    inputs: str

    @property
    def projected_hours(self) -> float:
        """Of a run over Kaggle's hidden test set: the time that is spent once, and each image's."""
        once = max(0.0, self.seconds - self.seconds_per_image * self.images)
        return (once + self.seconds_per_image * _HIDDEN_IMAGES) / 3600

    def values(self) -> dict[str, Any]:
        return {**asdict(self), "projected_hours": self.projected_hours}

    def lines(self) -> list[str]:
        fits = "fits in" if self.projected_hours < image.HOURS else "does NOT fit in"
        return [
            f"layout {self.layout}: {self.images} images in {self.seconds:.0f} s, "
            f"{self.seconds_per_image:.2f} s an image, peak memory {self.peak_bytes / 2**30:.2f} GiB",
            f"  submission.csv is valid: {self.rows} rows, {self.bare} images without a cell",
            f"  network: {self.network} ({self.proof}); inputs: {self.inputs}",
            f"  {_HIDDEN_IMAGES} images would take {_duration(self.projected_hours)} on this machine, "
            f"which {fits} Kaggle's {image.HOURS:g} h",
        ]


def versions(python: str, here: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Versions of Python and of packages in the rehearsal ("here") and on the image."""
    there = image.packages()
    pairs = {"python": {"here": python, "image": image.PYTHON}}
    return pairs | {name: {"here": here[name], "image": there[name]} for name in _COMPARED if name in here}


def versions_line(pairs: Mapping[str, Mapping[str, str]]) -> str:
    """The versions as a line for the terminal."""
    return "rehearsed with " + ", ".join(
        f"{name} {pair['here']} (the image: {pair['image']})" for name, pair in pairs.items()
    )


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
