"""The NVIDIA driver of this host, and which builds of PyTorch it runs."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_AMD_DRIVER = Path("/dev/kfd")

#: The first driver that runs programs built with a major version of CUDA, whatever the minor one; drivers run
#: what was built with older versions as well. Source: https://docs.nvidia.com/deploy/cuda-compatibility/,
#: "Minor Version Compatibility", table 1.
FIRST_DRIVER = {11: 450, 12: 525, 13: 580}

_VERSION = re.compile(r"\b\d{3,}\.\d+(?:\.\d+)?\b")


@dataclass(frozen=True)
class TorchBuild:
    """A build of PyTorch that ``./run_all.sh setup`` installs.

    Attributes:
        choice: the value of KIT_TORCH.
        cuda: the major version of CUDA that it is built with.
        lowest, highest: the compute capabilities that it has kernels for, 75 for 7.5.
    """

    choice: str
    cuda: int
    lowest: int
    highest: int


#: Source: ``PYTORCH_RELEASES_CODE_CC`` in torch/cuda/__init__.py of PyTorch 2.14, which is the last release
#: with CUDA 12 (https://github.com/pytorch/pytorch/issues/190385).
_TORCH_BUILDS = (TorchBuild("default", 13, 75, 129), TorchBuild("cu126", 12, 50, 90))


def may_have_gpus() -> bool:
    """Whether the library of a GPU driver is there, without which PyTorch finds no GPU; takes no time."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return _AMD_DRIVER.exists()
    return True


def driver_version() -> str:
    """The NVIDIA driver's version ("580.65.06"), read without starting CUDA; empty where there is none."""
    if KERNEL_MODULE.is_file():
        text = KERNEL_MODULE.read_text(encoding="utf-8", errors="replace")
    else:
        # On Windows' Linux the driver is that of Windows.
        text = _nvidia_smi()
    found = _VERSION.search(text)
    return found.group() if found else ""


def _nvidia_smi() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def is_too_old(driver: str, cuda: str) -> bool:
    """Whether a driver ("535.54.03") cannot run programs built with a version of CUDA ("13.0")."""
    needed = FIRST_DRIVER.get(_major(cuda))
    return needed is not None and 0 < _major(driver) < needed


def torch_build_for(driver: str, capabilities: Sequence[int]) -> TorchBuild | None:
    """The build for a driver and GPUs of these compute capabilities (75 for 7.5), or None."""
    for build in _TORCH_BUILDS:
        has_kernels = all(build.lowest <= capability <= build.highest for capability in capabilities)
        if has_kernels and not is_too_old(driver, str(build.cuda)):
            return build
    return None


def _major(version: str) -> int:
    text = version.partition(".")[0]
    return int(text) if text.isdecimal() else 0
