"""Damaged files of every format that the kit reads: each is read, or refused in one sentence.

python experiments/fuzz.py [--minutes 30] [--out FILE.json] [FORMAT ...]

The good file of each format (``fuzz_formats.py``) is damaged again and again: bytes are changed, pieces cut
out, doubled or set to zero, and words of a text exchanged for others (numbers of thousands of digits,
infinity, values of another type). A reader may raise a KitError of one line; anything else is a fault, of one
of five kinds: see ``FAULTS``. Each is written with the number that makes the file again.

Each format is read in a process of its own, which is ended at 3 GiB of memory and started again at the next
file. Without --out the results replace those in docs/robustness.md.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import click
import robustness
from fuzz_formats import FORMATS, prepare

from kitlib.errors import KitError

#: What is a fault: an exception that is no KitError; a message of several lines or with much of the file in
#: it; a file that takes more than ``_SECONDS``; the end of the process; more memory than ``_MEMORY``.
FAULTS = ("traceback", "message", "hang", "crash", "memory")
# The longest a reader may take for one small file, and the longest until a process is known to hang outside
# of Python.
_SECONDS, _HANGING_SECONDS = 20, 90
_MEMORY = 3 << 30
# The longest a message may be without the paths and the kit's own lists of names in it.
_MESSAGE = 500
_KNOWN_NAMES = re.compile(r" \(known: [^()]*\)")
_POLL_SECONDS = 0.05
_OUTCOMES = "outcomes.jsonl"
# Values of bytes at which a reader's arithmetic turns.
_EDGES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
# What a word of a text becomes: values of another type, too large, not finite, not UTF-8.
_WORDS = (
    *(b"0 -1 1 0.5 1e999 -1e999 NaN Infinity nan inf null true x ../x /x 99999999999999999999".split()),
    *b'[] {} [[]] {a:} ,, "" \' " : - # & * ! % @'.split(),
    *(b"", b" ", b"\n", b"\r", b"\t", b"\0", b"9" * 5000, b"1 " * 300),
    *("é".encode(), b"\xe9", "\u0301".encode(), "٣".encode(), b"\xed\xa0\x80", b"\xef\xbb\xbf"),
)
_WORD = re.compile(rb"[\w.+-]+")


# -------------------------------------------------------------------------------- one damaged file


def damaged(data: bytes, rng: random.Random, text: bool = False) -> bytes:
    """A copy with some bytes changed, or with a piece cut out, doubled or swapped for zeros.

    Args:
        data: the good file.
        rng: decides what happens to it.
        text: also exchange words, in half of the files.
    """
    return _other_words(data, rng) if text and rng.randrange(2) else _other_bytes(data, rng)


def _other_words(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        words = list(_WORD.finditer(data))
        if words:
            word = rng.choice(words)
            data = data[: word.start()] + rng.choice(_WORDS) + data[word.end() :]
    return data


def _other_bytes(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        start = rng.randrange(len(found))
        length = rng.choice((1, 2, 4, 8, len(found) // 4 + 1))
        change = rng.randrange(6)
        if change < 2:
            found[start] = rng.choice((*_EDGES, rng.randrange(256), found[start] ^ (1 << rng.randrange(8))))
        elif change == 2:
            found[start : start + length] = bytes(rng.choice(_EDGES) for _ in range(min(length, 8)))
        elif change == 3:
            found[start : start + length] = b""
        elif change == 4:
            found[start:start] = found[start : start + length]
        else:
            del found[start:]
        if not found:
            break
    return bytes(found)


class Outcome(NamedTuple):
    """What came of one file: whether it was refused; the kind of fault and the fault, "" for none."""

    refused: bool = False
    kind: str = ""
    fault: str = ""


def try_file(name: str, path: Path, number: int) -> Outcome:
    """Damage a format's file in the way of this number, and read it."""
    kind = FORMATS[name]
    path.write_bytes(damaged(kind.content, random.Random(number), kind.text))
    try:
        with warnings.catch_warnings(), _time_limit():
            warnings.simplefilter("ignore")
            kind.read(path)
    except KitError as error:
        said = _KNOWN_NAMES.sub("", str(error).replace(str(path.parent), ""))
        if "\n" in said or len(said) > _MESSAGE:
            return Outcome(True, "message", f"{len(said)} characters: {said[:200]!r}")
        return Outcome(refused=True)
    except TimeoutError as error:
        return Outcome(False, "hang", str(error))
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(line.filename).name}:{line.lineno}"
        return Outcome(False, "traceback", f"{type(error).__name__} in {place}: {str(error)[:100]}")
    return Outcome()


@contextmanager
def _time_limit() -> Iterator[None]:
    """Ends what takes longer than ``_SECONDS``, as far as Python comes to know of it."""

    def end(*_: object) -> None:
        raise TimeoutError(f"took more than {_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -------------------------------------------------------------------------------- one format


@dataclass
class Tally:
    """What came of the damaged files of one format.

    Attributes:
        files: how many were read.
        refused: how many of them in one sentence.
        faults: how many files of each kind of fault.
        examples: the first file's number by kind and fault.
        peak_mib: the most memory that a process took.
    """

    files: int = 0
    refused: int = 0
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    examples: dict[str, int] = field(default_factory=dict)
    peak_mib: int = 0

    def add(self, outcome: Outcome) -> None:
        self.refused += outcome.refused
        if outcome.kind:
            self.faults[outcome.kind] += 1
            self.examples.setdefault(f"{outcome.kind}: {outcome.fault}", self.files)
        self.files += 1


def fuzz(name: str, seconds: float) -> Tally:
    """Read damaged files of a format until time is up, in a process that is started again after its end."""
    tally = Tally()
    while seconds > 0:
        with tempfile.TemporaryDirectory() as folder:
            ending, peak_mib, took = _watch(name, tally.files, Path(folder), seconds)
            for line in (Path(folder) / _OUTCOMES).read_text().split("\n")[:-1]:
                tally.add(Outcome(*json.loads(line)))
        tally.peak_mib = max(tally.peak_mib, peak_mib)
        seconds -= took
        if ending.kind:
            tally.add(ending)
    return tally


def _watch(name: str, first: int, folder: Path, seconds: float) -> tuple[Outcome, int, float]:
    """Have a process read damaged files until time is up.

    Args:
        name: the format.
        first: the number of the first file.
        folder: takes the files, and a line for each that was read.
        seconds: how long, from the moment when the process can begin.

    Returns:
        The fault that ended it before; its peak memory in MiB; how long it was reading, in seconds.
    """
    outcomes, size, peak_kib, ending = folder / _OUTCOMES, 0, 0, Outcome()
    with (folder / "stderr").open("w+") as stderr:
        process = _start(name, first, folder, stderr)
        begun = since = time.monotonic()
        while not (waited := os.wait4(process.pid, os.WNOHANG))[0]:
            if not outcomes.exists():
                begun = since = time.monotonic()
            elif outcomes.stat().st_size != size:
                size, since = outcomes.stat().st_size, time.monotonic()
            peak_kib = _peak_kib(process.pid) or peak_kib
            ending = _excess(peak_kib, since)
            if ending.kind or time.monotonic() > begun + seconds:
                process.kill()
                waited = os.wait4(process.pid, 0)
                break
            time.sleep(_POLL_SECONDS)
        else:
            stderr.seek(0)
            ending = Outcome(False, "crash", stderr.read()[-200:].strip())
        process.returncode = os.waitstatus_to_exitcode(waited[1])
    if not outcomes.exists():
        raise click.ClickException(f"{name}: the good file cannot be read: {ending.fault}")
    return ending, round(peak_kib / 1024), time.monotonic() - begun


def _start(name: str, first: int, folder: Path, stderr: IO[str]) -> subprocess.Popen:
    code = "import sys, fuzz; fuzz.read_for_ever(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
    paths = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent), str(robustness.ROOT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", code, name, str(first), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment)


def _peak_kib(pid: int) -> int:
    """The most memory that a process has taken; 0 once it has ended.

    ``wait4`` would count what its parent held when it was made.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _excess(peak_kib: int, since: float) -> Outcome:
    """Whether a process has taken too much memory, or has finished no file for too long."""
    if peak_kib << 10 > _MEMORY:
        return Outcome(False, "memory", f"more than {_MEMORY >> 30} GiB")
    if time.monotonic() - since > _HANGING_SECONDS:
        return Outcome(False, "hang", f"no file was finished in {_HANGING_SECONDS} seconds")
    return Outcome()


def read_for_ever(name: str, first: int, folder: str) -> None:
    """In a process of its own: damage files of a format, and write a line for each once it is read."""
    path = prepare(name, Path(folder))
    with (Path(folder) / _OUTCOMES).open("a", buffering=1) as outcomes:
        for number in range(first, sys.maxsize):
            outcomes.write(json.dumps(try_file(name, path, number)) + "\n")


# -------------------------------------------------------------------------------- all formats


@click.command(help=__doc__)
@click.argument("formats", nargs=-1, metavar="[FORMAT]...", type=click.Choice(list(FORMATS)))
@click.option("--minutes", default=30.0, show_default=True, help="For all formats together.")
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file for the results.")
def main(formats: Sequence[str], minutes: float, out: Path | None) -> None:
    """Fuzz all formats, as many at the same time as there are cores."""
    names, at_once = formats or list(FORMATS), len(os.sched_getaffinity(0))
    seconds = minutes * 60 * min(at_once, len(names)) / len(names)
    with ThreadPoolExecutor(at_once) as pool:
        tallies = dict(zip(names, pool.map(lambda name: vars(fuzz(name, seconds)), names), strict=True))
    values = {**robustness.circumstances(), "minutes": minutes, "formats": tallies}
    robustness.keep("fuzz", values, out)
    click.echo(robustness.fuzz_table(values))
    for name, one in tallies.items():
        for fault, number in one["examples"].items():
            click.echo(f"{name}, file {number}: {fault}")
    sys.exit(any(one["examples"] for one in tallies.values()))


if __name__ == "__main__":
    main()
