"""What a run was computed on."""

import os
import platform
from importlib import metadata

import kitlib
from kitlib.runtime import drivers, machine


def test_the_machine_and_the_versions_are_described():
    found = machine.describe()
    assert all(isinstance(value, str) and value for value in found.values())
    assert found["CPU"].endswith(f"{len(os.sched_getaffinity(0))} cores")
    assert (found["Python"], found["kitlib"]) == (platform.python_version(), kitlib.__version__)
    assert found["torch"] == metadata.version("torch")
    if not drivers.may_have_gpus():
        assert found["GPUs"] == "none"


def test_cards_of_one_kind_are_counted(monkeypatch):
    cards = (machine.gpus.Gpu("T4", (7, 5)), machine.gpus.Gpu("L4", (8, 9)), machine.gpus.Gpu("T4", (7, 5)))
    survey = machine.gpus.Survey(gpus=cards, driver="580.65")
    monkeypatch.setattr(machine.gpus, "survey", lambda: survey)
    found = machine.describe()
    assert (found["GPUs"], found["NVIDIA driver"]) == ("2 x T4, 1 x L4", "580.65")


def test_the_memory_is_that_of_the_system():
    with open("/proc/meminfo") as file:
        kib = int(file.readline().split()[1])
    assert abs(machine.memory_gib() - kib / (1 << 20)) < 0.01
