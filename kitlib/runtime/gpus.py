"""The GPUs of this host: how many there are, whether the installed PyTorch can use them, mixed precision.

PyTorch is asked in a process of its own (``python -m kitlib.runtime.gpus``): starting CUDA takes seconds and
GPU memory, which the process that runs the notebooks has no use for; so PyTorch is imported only in the
functions that need it. Without a driver no process is started.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from kitlib.errors import KitError
from kitlib.runtime import cluster, drivers, launch

if TYPE_CHECKING:
    import torch

_FIRST_WITH_BF16 = (8, 0)
_VISIBLE = "CUDA_VISIBLE_DEVICES"
# For PyTorch's import and the start of CUDA, on a slow disk.
_SECONDS = 180
# What cuBLAS and the CPU's allocator say when memory ran out; torch raises a plain RuntimeError for them.
_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Gpu:
    """A GPU and its compute capability, (7, 5) for a T4."""

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Survey:
    """What the installed PyTorch says of this host's GPUs.

    Attributes:
        torch: its version; empty where it was not asked, as there is no driver.
        cuda: the version of CUDA that it is built with; empty for a build for the CPU, or for AMD's GPUs.
        architectures: what it has kernels for, as ``torch.cuda.get_arch_list`` gives it.
        count: the GPUs that the driver lists and ``CUDA_VISIBLE_DEVICES`` leaves visible.
        gpus: these GPUs, where they can be used.
        failure: why they cannot, in PyTorch's words.
        driver: the version of the NVIDIA driver; empty where there is none.
    """

    torch: str = ""
    cuda: str = ""
    architectures: tuple[str, ...] = ()
    count: int = 0
    gpus: tuple[Gpu, ...] = ()
    failure: str = ""
    driver: str = ""


def gpu_count(
    asked: int = -1, precisions: Mapping[str, str] | None = None, found: Survey | None = None
) -> int:
    """How many GPUs to use: as many as asked for, or all there are for -1; of a cluster those of one node.

    Args:
        asked: a number of GPUs; 0: the CPU; -1: all GPUs, or the CPU where there are none.
        precisions: the mixed precision ("off", "bf16", "fp16") by the name of the parameter that sets it.
        found: GPUs of another host; None: those of this one.

    Raises:
        KitError: more are asked for than there are, or one of them cannot be used: the driver is too old for
            the installed PyTorch, which may also have no kernels for it, or it has no bfloat16.
    """
    if asked and not found and cluster.is_chosen():
        return _usable_on_nodes(_surveys(), asked, precisions or {})
    return _usable(found or survey(), asked, precisions or {}) if asked else 0


def _usable_on_nodes(found: Mapping[str, Survey], asked: int, precisions: Mapping[str, str]) -> int:
    """``gpu_count`` on a cluster: -1 means as many as the node with the fewest has, or the CPU.

    Args:
        found: what PyTorch says of each node, by its name.
        asked: of one node, or of several: then a multiple of what each of them has.
        precisions: as for ``gpu_count``.

    Raises:
        KitError: as ``gpu_count``, with the node's name.
    """
    counts = {node: survey.count for node, survey in found.items()}
    least = min(counts.values())
    if not least and asked < 0:
        return 0
    several = max(least, 1)
    if asked > least and (not least or asked % several or asked > several * len(found)):
        each = ", ".join(f"{node} has {count}" for node, count in counts.items())
        raise KitError(
            f"{asked} GPUs are asked for, but {each}; use --gpus {least}, or a multiple for several nodes"
        )
    for node, survey in found.items():
        try:
            _usable(survey, min(asked, least), precisions)
        except KitError as error:
            raise KitError(f"node {node}: {error}") from None
    return asked if asked > 0 else least


@functools.cache
def _surveys() -> dict[str, Survey]:
    """What the installed PyTorch says of the GPUs of each node of the cluster; they are asked once."""
    return cluster.on_each_node(survey)


def _usable(found: Survey, asked: int, precisions: Mapping[str, str]) -> int:
    """``gpu_count`` on a host with these GPUs.

    Args:
        found: what PyTorch says of the host.
        asked: as for ``gpu_count``, but not 0.
        precisions: as for ``gpu_count``.

    Raises:
        KitError: as ``gpu_count``.
    """
    if found.failure:
        raise KitError(_failure(found))
    if asked > found.count:
        raise KitError(
            f"{asked} GPUs are asked for but this machine has {found.count} ({explain(found)}); "
            f"use --gpus {found.count}"
        )
    count = found.count if asked < 0 else asked
    used = found.gpus[:count]
    for number, gpu in enumerate(used):
        if found.architectures and found.cuda and not has_kernels(gpu.capability, found.architectures):
            raise KitError(_no_kernels(found, number))
        for name, precision in precisions.items():
            if precision == "bf16" and found.cuda and gpu.capability < _FIRST_WITH_BF16:
                raise KitError(f"{name} is bf16, but {_title(number, gpu)} has no bfloat16; set it to fp16")
    return count


def has_kernels(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether a build with kernels for these architectures runs on a GPU of this compute capability.

    ``sm_80`` runs on 8.0 and later minor versions of 8; ``sm_90a`` on 9.0 alone; ``compute_80`` is compiled
    by the driver for 8.0 and everything later. Source: CUDA C++ Programming Guide, "Application
    Compatibility".
    """
    return any(_runs(architecture, *capability) for architecture in architectures)


def _runs(architecture: str, major: int, minor: int) -> bool:
    kind, _, digits = architecture.partition("_")
    built_for = int(digits.rstrip("af"))
    if kind == "compute":
        return 10 * major + minor >= built_for
    if digits.endswith("a"):
        return 10 * major + minor == built_for
    return major == built_for // 10 and minor >= built_for % 10


def explain(found: Survey) -> str:
    """Why the installed PyTorch finds these GPUs and no others."""
    if found.count:
        return "those that PyTorch sees"
    if found.torch and not found.architectures:
        return f"PyTorch {found.torch} is for the CPU; KIT_TORCH=default ./run_all.sh setup takes another"
    if found.driver:
        hidden = os.environ.get(_VISIBLE)
        hint = "start a container with --gpus all" if hidden is None else f"{_VISIBLE} is '{hidden}'"
        return f"the NVIDIA driver {found.driver} is there, but no GPU is visible: {hint}"
    return "it has no NVIDIA driver"


def _failure(found: Survey) -> str:
    """Why GPUs that are there cannot be used, and the remedy."""
    if not drivers.is_too_old(found.driver, found.cuda):
        return (
            f"PyTorch {found.torch} cannot use the GPUs of this machine: {found.failure[:80]}; "
            "see whether nvidia-smi works, reboot after an update of the driver, or use --gpus 0"
        )
    major = int(found.cuda.partition(".")[0])
    other = drivers.torch_build_for(found.driver, ())
    set_up = f", set up PyTorch for it with KIT_TORCH={other.choice} ./run_all.sh setup" if other else ""
    return (
        f"the NVIDIA driver {found.driver} is too old for PyTorch {found.torch}, which needs "
        f"{drivers.FIRST_DRIVER[major]} or newer for CUDA {found.cuda}; update the driver{set_up}, "
        "or use --gpus 0"
    )


def _no_kernels(found: Survey, number: int) -> str:
    """Why one GPU cannot be used, and the remedy."""
    major, minor = found.gpus[number].capability
    built_for = ", ".join(found.architectures)
    others = [n for n, gpu in enumerate(found.gpus) if has_kernels(gpu.capability, found.architectures)]
    other = drivers.torch_build_for(found.driver, [10 * major + minor])
    remedies = ["use --gpus 0"]
    if other and str(other.cuda) != found.cuda.partition(".")[0]:
        remedies.insert(0, f"set up PyTorch for it with KIT_TORCH={other.choice} ./run_all.sh setup")
    if others:
        names = [name for name in os.environ.get(_VISIBLE, "").split(",") if name] or range(found.count)
        remedies.insert(0, f"leave it out with {_VISIBLE}={','.join(str(names[n]) for n in others)}")
    return (
        f"PyTorch {found.torch} has no kernels for {_title(number, found.gpus[number])}, only for "
        f"{built_for}; {', or '.join(remedies)}"
    )


def _title(number: int, gpu: Gpu) -> str:
    major, minor = gpu.capability
    return f"GPU {number} ({gpu.name}, compute capability {major}.{minor})"


@functools.cache
def survey() -> Survey:
    """What the installed PyTorch says of this host's GPUs; it is asked once."""
    if not drivers.may_have_gpus():
        return Survey(driver=drivers.driver_version())
    command, environment = [sys.executable, "-m", "kitlib.runtime.gpus"], launch.with_kit(os.environ)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        return read_survey(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        failure = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        failure = f"it gave no answer for {_SECONDS} s"
    return Survey(driver=drivers.driver_version(), failure=failure)


def read_survey(text: str) -> Survey:
    """A survey from the JSON that the process prints."""
    values = json.loads(text)
    gpus = tuple(_gpu(**gpu) for gpu in values.pop("gpus"))
    return Survey(**{**values, "architectures": tuple(values["architectures"]), "gpus": gpus})


def _gpu(name: str, capability: list[int]) -> Gpu:
    major, minor = capability
    return Gpu(name, (major, minor))


def ask_torch() -> Survey:
    """What the PyTorch of this process says of this host's GPUs. It starts CUDA."""
    import torch

    count, gpus, failure = torch.cuda.device_count(), [], ""
    try:
        for number in range(count):
            name, capability = torch.cuda.get_device_name(number), torch.cuda.get_device_capability(number)
            gpus.append(Gpu(name, capability))
    # A failed start of CUDA raises either.
    except (RuntimeError, AssertionError) as error:
        gpus, failure = [], " ".join(str(error).split())
    return Survey(
        torch=torch.__version__,
        cuda=torch.version.cuda or "",
        architectures=tuple(torch.cuda.get_arch_list()),
        count=count,
        gpus=tuple(gpus),
        failure=failure,
        driver=drivers.driver_version(),
    )


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """The context in which matrices are multiplied in the numbers of ``amp``: "off", "bf16" or "fp16"."""
    import torch

    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, types.get(amp, torch.float32), enabled=amp != "off")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the GPU's or the host's memory was too small."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


if __name__ == "__main__":
    print(json.dumps(asdict(ask_torch())))
