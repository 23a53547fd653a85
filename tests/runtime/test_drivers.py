"""The driver's version and the builds of PyTorch that it runs, by NVIDIA's table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kitlib.runtime import drivers

MODULES = {
    "535.183.01": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
    "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n",
    "580.65.06": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n",
    "570.86": "NVRM version: NVIDIA UNIX aarch64 Kernel Module  570.86  Wed Jan 1\n",
    "": "no driver\n",
}


@pytest.mark.parametrize(("version", "text"), MODULES.items())
def test_the_version_of_the_kernel_module(
    version: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(drivers, "KERNEL_MODULE", tmp_path / "version")
    assert drivers.driver_version() == version


def test_the_version_by_nvidia_smi_where_there_is_no_kernel_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "KERNEL_MODULE", tmp_path / "nowhere")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert drivers.driver_version() == ""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 581.29\necho 581.29\n")
    program.chmod(0o755)
    assert drivers.driver_version() == "581.29"


@pytest.mark.parametrize(
    ("driver", "cuda", "too_old"),
    [
        ("580.65.06", "13.0", False),
        ("579.99", "13.0", True),
        ("570.86.15", "13.2", True),
        ("525.60.13", "12.6", False),  # minor versions are compatible
        ("515.105", "12.6", True),
        ("595.1", "12.6", False),  # a newer driver runs what is older
        ("", "13.0", False),  # not known
        ("535.54", "", False),  # a build for the CPU
    ],
)
def test_drivers_and_cuda(driver: str, cuda: str, too_old: bool) -> None:
    assert drivers.is_too_old(driver, cuda) is too_old


@pytest.mark.parametrize(
    ("driver", "capabilities", "choice"),
    [
        ("580.65", [75, 89, 120], "default"),
        ("580.65", [70], "cu126"),  # V100
        ("550.54", [60], "cu126"),  # P100
        ("550.54", [80], "cu126"),
        ("550.54", [120], None),  # RTX 50 needs CUDA 12.8 or newer
        ("470.10", [80], None),
        ("580.65", [37], None),  # K80
        ("580.65", [70, 120], None),
    ],
)
def test_the_build_for_a_driver_and_its_cards(
    driver: str, capabilities: list[int], choice: str | None
) -> None:
    build = drivers.torch_build_for(driver, capabilities)
    assert (build.choice if build else None) == choice
