"""The fuzzer with readers that fail in every way, in real processes."""

from __future__ import annotations

import random
from pathlib import Path

import fuzz
import pytest
import robustness

#: In the place of fuzz_formats.py: the reader ends its process at one file of four, and fails at another.
FORMATS = """
import os
from typing import NamedTuple

class Format(NamedTuple):
    content: bytes
    read: object
    text: bool = False

def read(path):
    number = sum(path.read_bytes()) % 4
    if number == 0:
        os.abort()
    if number == 1:
        raise ZeroDivisionError("of no use")

FORMATS = {"numbers": Format(b"1234567", read)}

def prepare(name, folder):
    return folder / "file"
"""


def test_a_process_that_ends_is_a_fault_and_the_next_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fuzz_formats.py").write_text(FORMATS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    expected = {"crash": 0, "traceback": 0}
    tally = fuzz.fuzz("numbers", seconds=1.0)
    for number in range(tally.files):
        rest = sum(fuzz.damaged(b"1234567", random.Random(number))) % 4
        expected["crash"] += rest == 0
        expected["traceback"] += rest == 1
    assert tally.files > 4
    assert {kind: tally.faults[kind] for kind in expected} == expected
    assert (tally.faults["hang"], tally.faults["memory"], tally.refused) == (0, 0, 0)
    assert any("ZeroDivisionError in fuzz_formats.py" in fault for fault in tally.examples)
    assert 10 < tally.peak_mib < 2000


def test_the_page_has_the_tables_of_the_results() -> None:
    assert robustness.PAGE.read_text(encoding="utf-8") == robustness.page()
