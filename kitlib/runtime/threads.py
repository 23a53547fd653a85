"""How the processes that the kit starts use the cores that they share."""

from __future__ import annotations

import os

# A thread of OpenMP that waits for the others sleeps at once. One that spins keeps the cores from those that
# it waits for: on two cores beside other busy processes, a training step took 16 times as long or more, and 8
# times the CPU time. GOMP_SPINCOUNT, which libgomp obeys before the policy, brings that back.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(processes: int = 0) -> dict[str, str]:
    """This process's environment for a child, with how threads wait and how many there are.

    What the user has set wins. Image workers use one thread each, for a small part of the time: the threads
    of the training need not leave them a core.

    Args:
        processes: as many processes with equal shares of the cores; 0 leaves the number of threads alone.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // processes))} if processes else {}
    return {**PASSIVE, **threads, **os.environ}
