"""What a run was computed on: the machine, and the versions of what computes."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import kitlib
from kitlib.runtime import gpus, launch

_CPU_INFO = Path("/proc/cpuinfo")
_PACKAGES = ("torch", "torchvision", "detectron2", "numpy")


def describe() -> dict[str, str]:
    """The machine and the software by what is described, in words."""
    found = gpus.survey()
    cards = [gpu.name for gpu in found.gpus]
    named = [f"{cards.count(name)} x {name}" for name in dict.fromkeys(cards)]
    return {
        "machine": platform.node(),
        "CPU": f"{_cpu()}, {launch.cores()} cores",
        "memory": f"{memory_gib():.0f} GiB",
        "GPUs": ", ".join(named) or "none",
        **({"NVIDIA driver": found.driver} if found.driver else {}),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "kitlib": kitlib.__version__,
        **{name: version for name in _PACKAGES if (version := _version(name))},
    }


def _cpu() -> str:
    lines = _CPU_INFO.read_text(errors="replace").splitlines() if _CPU_INFO.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.machine()


def memory_gib() -> float:
    """The host's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
