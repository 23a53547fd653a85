"""Which GPUs the installed PyTorch can use; stand-ins answer for torch and the driver, as there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from kitlib.errors import KitError
from kitlib.runtime import drivers, gpus

CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
CUDA_126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
V100, T4, A100 = ("Tesla V100", (7, 0)), ("Tesla T4", (7, 5)), ("A100", (8, 0))
RTX_3090, L4, RTX_5090 = ("RTX 3090", (8, 6)), ("L4", (8, 9)), ("RTX 5090", (12, 0))
TOO_OLD = "The NVIDIA driver on your system is too old (found version 12020)."


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch):
    """``host(*cards, driver=, cuda=, architectures=)``: torch and the driver answer as on such a host."""

    def make(*cards, driver="580.65.06", cuda="13.0", architectures=CUDA_13, failure=""):
        def capability(number: int) -> tuple[int, int]:
            if failure:
                raise RuntimeError(failure)
            return cards[number][1]

        monkeypatch.setattr(torch, "__version__", "2.14.1")
        monkeypatch.setattr(torch.version, "cuda", cuda or None)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(architectures))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: cards[number][0])
        monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
        monkeypatch.setattr(drivers, "driver_version", lambda: driver)
        monkeypatch.setattr(gpus, "survey", gpus.ask_torch)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return make


def refused(asked: int = -1, **precisions: str) -> str:
    with pytest.raises(KitError) as caught:
        gpus.gpu_count(asked, precisions)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- counting


def test_all_that_are_there_or_as_many_as_asked_for(host) -> None:
    host(A100, A100, A100)
    assert [gpus.gpu_count(asked) for asked in (-1, 0, 2, 3)] == [3, 0, 2, 3]
    assert refused(4) == (
        "4 GPUs are asked for but this machine has 3 (those that PyTorch sees); use --gpus 3"
    )


def test_a_host_without_a_driver_is_asked_nothing() -> None:
    """As this one is, it seems: the real answer, without torch."""
    if drivers.may_have_gpus():
        pytest.skip("there is a GPU driver")
    code = (
        "import sys; from kitlib.runtime import gpus\n"
        "assert gpus.gpu_count() == 0\n"
        "try: gpus.gpu_count(8)\n"
        "except Exception as error: print(error)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "8 GPUs are asked for but this machine has 0 (it has no NVIDIA driver); use --gpus 0\n"
    )


@pytest.mark.parametrize(
    ("machine", "hidden", "reason"),
    [
        ({"cuda": "", "architectures": []}, None, "PyTorch 2.14.1 is for the CPU; KIT_TORCH=default"),
        ({}, None, "driver 580.65.06 is there, but no GPU is visible: start a container with --gpus all"),
        ({}, "-1", "no GPU is visible: CUDA_VISIBLE_DEVICES is '-1'"),
        ({"driver": ""}, None, "it has no NVIDIA driver"),
    ],
)
def test_why_there_is_no_gpu(host, monkeypatch: pytest.MonkeyPatch, machine, hidden, reason) -> None:
    host(**machine)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert gpus.gpu_count() == 0
    assert reason in refused(1)


def test_the_answers_survive_the_way_from_the_process_that_asks(host) -> None:
    host(T4, RTX_3090)
    found = gpus.ask_torch()
    assert gpus.read_survey(json.dumps(asdict(found))) == found
    assert found.gpus[1] == gpus.Gpu("RTX 3090", (8, 6))


def test_the_process_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "may_have_gpus", lambda: True)
    found = gpus.survey.__wrapped__()
    assert (found.torch, found.count) == (torch.__version__, torch.cuda.device_count())
    assert found.architectures == tuple(torch.cuda.get_arch_list())


def test_a_process_that_asks_and_fails_is_no_host_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "may_have_gpus", lambda: True)
    monkeypatch.setenv("PYTHONHASHSEED", "nonsense")
    monkeypatch.setattr(gpus, "survey", gpus.survey.__wrapped__)
    assert "cannot use the GPUs of this machine" in refused()


# ------------------------------------------------------------------------------------------- kernels


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 5), ["sm_75"], True),
        ((7, 0), ["sm_75"], False),  # built for a later minor version
        ((8, 9), ["sm_80"], True),  # a later minor version
        ((9, 0), ["sm_80"], False),  # another major version
        ((9, 0), ["sm_80", "compute_80"], True),  # the driver compiles for what is later
        ((7, 0), ["compute_75"], False),
        ((9, 0), ["sm_90a"], True),
        ((12, 1), ["sm_120a"], False),  # with features of 12.0 alone
        ((12, 1), ["sm_120f"], True),  # with features of all of 12
        ((12, 0), CUDA_13, True),
        ((10, 3), CUDA_13, True),
        ((6, 0), CUDA_126, True),
        ((12, 0), CUDA_126, False),
        ((7, 0), [], False),
    ],
)
def test_kernels_for_a_capability(capability, architectures, runs: bool) -> None:
    assert gpus.has_kernels(capability, architectures) is runs


@pytest.mark.parametrize("card", [T4, A100, RTX_3090, L4, RTX_5090])
def test_cards_with_kernels(host, card) -> None:
    host(card)
    assert gpus.gpu_count() == 1


def test_a_card_that_is_too_old_for_the_build(host) -> None:
    host(V100, V100)
    assert refused() == (
        "PyTorch 2.14.1 has no kernels for GPU 0 (Tesla V100, compute capability 7.0), only for "
        "sm_75, sm_80, sm_86, sm_90, sm_100, sm_120; set up PyTorch for it with KIT_TORCH=cu126 "
        "./run_all.sh setup, or use --gpus 0"
    )
    host(V100, cuda="12.6", architectures=CUDA_126)
    assert gpus.gpu_count() == 1


def test_a_card_that_is_too_new_for_the_build(host) -> None:
    host(RTX_5090, cuda="12.6", architectures=CUDA_126)
    assert "KIT_TORCH=default" in refused()


def test_one_old_card_beside_others_is_left_out(host, monkeypatch: pytest.MonkeyPatch) -> None:
    host(A100, V100, A100)
    assert gpus.gpu_count(1) == 1  # the first one alone is used
    assert "GPU 1 (Tesla V100" in refused()
    assert "leave it out with CUDA_VISIBLE_DEVICES=0,2" in refused()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    assert "leave it out with CUDA_VISIBLE_DEVICES=4,7" in refused()


def test_amd_s_cards_are_not_judged_by_nvidia_s_rules(host) -> None:
    host(("MI210", (9, 0)), cuda="", architectures=["gfx90a"], driver="")
    assert gpus.gpu_count(-1, {"amp": "bf16"}) == 1


# -------------------------------------------------------------------------------------------- driver


def test_a_driver_that_is_too_old(host) -> None:
    """NVIDIA's library counts the GPUs all the same."""
    host(A100, A100, driver="535.183.01", failure=TOO_OLD)
    assert refused() == (
        "the NVIDIA driver 535.183.01 is too old for PyTorch 2.14.1, which needs 580 or newer for CUDA 13.0; "
        "update the driver, set up PyTorch for it with KIT_TORCH=cu126 ./run_all.sh setup, or use --gpus 0"
    )
    host(A100, driver="470.256", failure=TOO_OLD)
    assert "update the driver, or use --gpus 0" in refused()
    assert gpus.gpu_count(0) == 0


def test_an_old_driver_with_nvidia_s_package_for_compatibility(host) -> None:
    host(A100, driver="535.183.01")
    assert gpus.gpu_count() == 1


def test_gpus_that_fail_for_another_reason(host) -> None:
    host(A100, failure="CUDA error: system not yet initialized\nCompile with ...")
    assert refused().startswith(
        "PyTorch 2.14.1 cannot use the GPUs of this machine: CUDA error: system not yet initialized "
    )


# -------------------------------------------------------------------------------------------- bfloat16


def test_bfloat16_by_capability(host) -> None:
    host(T4)
    assert refused(-1, amp="bf16") == (
        "amp is bf16, but GPU 0 (Tesla T4, compute capability 7.5) has no bfloat16; set it to fp16"
    )
    assert gpus.gpu_count(-1, {"amp": "fp16", "predict_config.amp": "off"}) == 1
    for card in (A100, RTX_3090, L4):
        host(card)
        assert gpus.gpu_count(-1, {"amp": "bf16"}) == 1


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
    ],
)
def test_which_errors_mean_that_memory_ran_out(error, means):
    assert gpus.ran_out_of_memory(error) is means


def test_what_torch_itself_says_on_the_cpu():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert gpus.ran_out_of_memory(caught.value)


def nodes(*counts):
    """A cluster of nodes with so many T4 each."""
    card = gpus.Gpu("T4", (7, 5))
    return {
        f"{place}: n{place}": gpus.Survey("2.14.1", "13.0", ("sm_75",), count, (card,) * count)
        for place, count in enumerate(counts)
    }


@pytest.mark.parametrize(
    ("counts", "asked", "found"),
    [((8, 8), -1, 8), ((8, 4), -1, 4), ((0, 0), -1, 0), ((8, 8), 3, 3), ((8, 8), 16, 16), ((4, 8), 8, 8)],
)
def test_gpus_of_a_cluster_are_those_of_one_node_or_a_multiple(counts, asked, found):
    assert gpus._usable_on_nodes(nodes(*counts), asked, {}) == found


@pytest.mark.parametrize(
    ("counts", "asked", "reason"),
    [
        ((8, 8), 12, "12 GPUs are asked for, but 0: n0 has 8, 1: n1 has 8; use --gpus 8, or a multiple"),
        ((8, 8), 24, "24 GPUs are asked for"),
        ((0, 0), 1, "1 GPUs are asked for, but 0: n0 has 0"),
    ],
)
def test_gpus_that_a_cluster_cannot_give_are_refused(counts, asked, reason):
    with pytest.raises(KitError, match=reason):
        gpus._usable_on_nodes(nodes(*counts), asked, {})


def test_the_node_whose_gpus_lack_a_precision_is_named():
    with pytest.raises(KitError, match=r"^node 0: n0: amp is bf16, but GPU 0 \(T4"):
        gpus._usable_on_nodes(nodes(1, 1), -1, {"amp": "bf16"})
