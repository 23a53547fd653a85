"""Jobs on the nodes of a Ray cluster, by the very launches that run them on one host.

A Ray task on each node of a job calls ``launch.launch``; torchrun's rendezvous joins the processes of a
training on several nodes. All nodes share the run's folder under the same path: jobs, checkpoints, progress
and results pass through it. A training that loses a node begins again elsewhere, from its last checkpoint.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kitlib import files
from kitlib.errors import KitError
from kitlib.runtime import launch
from kitlib.runtime.progress import Row, follow

if TYPE_CHECKING:
    from kitlib.runtime.engine import Job

T = TypeVar("T")

#: Environment variables: set to "ray" where jobs run on a cluster; Ray's own, the address of the cluster.
ENGINE, ADDRESS = "KIT_ENGINE", "RAY_ADDRESS"
_POLL_SECONDS = 0.2
# Nodes that one job may lose, one after the other.
_MOST_LOST = 3
# For an answer of a node that is busy with nothing else.
_ANSWER_SECONDS = 120.0
_MARKER = ".seen-by-every-node"
_stop_asked = threading.Event()


class NodeLost(launch.Died):
    """A node of the cluster was lost, and with it the share of a job that it worked on."""


def is_chosen() -> bool:
    """Whether the jobs of this process run on a cluster."""
    return os.environ.get(ENGINE) == "ray"


def connect() -> Any:
    """The module ray, connected to the cluster.

    Raises:
        KitError: Ray is not installed, or no cluster answers.
    """
    if find_spec("ray") is None:
        raise KitError(
            f"--engine ray needs a package that is not installed; run: {sys.executable} -m pip install ray"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        address = os.environ.get(ADDRESS) or "auto"
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise KitError(
                f"no Ray cluster answers at '{address[:80]}' ({str(error).splitlines()[0][:80]}); start one: "
                "ray start --head here, ray start --address=HOST:6379 on every other node"
            ) from None
    return ray


@dataclass(frozen=True)
class _Node:
    """A node of the cluster, and what Ray may give to jobs there."""

    id: str
    name: str
    gpus: int
    cpus: int


def _nodes() -> list[_Node]:
    """The nodes that live: those with GPUs, where there are any.

    Raises:
        KitError: there is no node for jobs.
    """
    alive = [node for node in connect().nodes() if node["Alive"]]
    found = [
        _Node(
            node["NodeID"],
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            int(node["Resources"].get("GPU", 0)),
            int(node["Resources"].get("CPU", 0)),
        )
        for node in alive
    ]
    chosen = [node for node in found if node.gpus] or [node for node in found if node.cpus]
    if not chosen:
        raise KitError("the Ray cluster has no node for jobs; start nodes without --num-cpus=0")
    return chosen


def on_each_node(function: Callable[..., T], *args: Any) -> dict[str, T]:
    """What a function returns on each node, by the node's name.

    Raises:
        KitError: a node cannot run the kit, or does not answer.
    """
    ray = connect()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes, task = _nodes(), ray.remote(num_cpus=0, max_retries=0)(_call)
    on = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in nodes]
    refs = [task.options(scheduling_strategy=place).remote(function, args) for place in on]
    try:
        found = ray.get(refs, timeout=_ANSWER_SECONDS)
    except ray.exceptions.RayError as error:
        raise _explained(error) from None
    return {
        f"{place}: {node.name}": value for place, (node, value) in enumerate(zip(nodes, found, strict=True))
    }


def _call(function: Callable[..., T], args: Sequence[Any]) -> T:
    """On a node: call a function, which sees all GPUs; Ray hides them from a task that reserves none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]
    return function(*args)


def check_folders(out: Path, data: Path) -> None:
    """See that every node sees the run's folder, and the data, under the same paths.

    Raises:
        KitError: one does not; which, and what to do.
    """
    marker = files.write_text(files.make_folder(out) / _MARKER, f"{socket.gethostname()} {time.time_ns()}")
    try:
        missing = on_each_node(_unseen, str(marker), marker.read_text(), str(data))
    finally:
        marker.unlink(missing_ok=True)
    for node, folder in missing.items():
        if folder:
            raise KitError(
                f"node {node} does not see {folder} of this host; put it on a file system that all nodes "
                "share under the same path"
            )


def _unseen(marker: str, text: str, data: str) -> str:
    """On a node: the folder that it does not see; "" where it sees both."""
    path = Path(marker)
    if not path.is_file() or path.read_text() != text:
        return str(path.parent)
    return "" if Path(data).is_dir() else data


def run(jobs: Sequence[Job], gpus: int, processes: int | None) -> None:
    """Run jobs on the cluster, all that there is room for at once, and wait for their ends.

    A training whose GPUs no single node has takes several nodes; a job that is shared out takes all.

    Args:
        jobs: in the order in which they begin.
        gpus: processes of each job, with one GPU each; 0 for one process on the CPU.
        processes: as many processes on the CPU instead, one a node.

    Raises:
        NodeLost: a node was lost; of a job that is shared out its share, of another job one node too many.
        KitError: a job failed, with its own sentence; or there is a time limit, or no node.
    """
    nodes = _nodes()
    if any(job.until is not None for job in jobs):
        raise KitError("a time limit is kept on one host alone: set 06.hours to 0, or leave out --engine")
    running = [_Run(job, _places(job, nodes, gpus, processes)) for job in jobs]
    try:
        unfinished = running
        while unfinished:
            unfinished = [one for one in unfinished if one.goes_on()]
            if _stop_asked.wait(_POLL_SECONDS):
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        folders = ", ".join(str(job.out) for job in jobs)
        raise launch.Interrupted(f"interrupted; what was saved until then stays in {folders[:200]}") from None
    finally:
        for one in running:
            one.stop()


def stop() -> None:
    """End all jobs of this process, in whichever thread they were begun; further ones end at once."""
    _stop_asked.set()


def size() -> int:
    """How many nodes take jobs."""
    return len(_nodes())


@dataclass(frozen=True)
class _Places:
    """Where a job's processes are: on so many nodes, so many on each, with what they reserve there."""

    nodes: int
    gpus: int
    cpus: int

    @property
    def bundle(self) -> dict[str, float]:
        """What they reserve on each node, in Ray's words."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


def _places(job: Job, nodes: Sequence[_Node], gpus: int, processes: int | None) -> _Places:
    """On the CPU a job has its nodes for itself: its processes use all cores."""
    least = min(nodes, key=lambda node: (node.gpus, node.cpus))
    each = min(gpus, least.gpus)
    cpus = max(1, least.cpus * each // least.gpus) if each else least.cpus
    if job.is_shared_out:
        return _Places(len(nodes), each, cpus)
    return _Places(-(-gpus // each) if each else processes or 1, each, cpus)


class _Run:
    """One job on the cluster, begun anew after a node was lost.

    Args:
        job: what to run.
        places: where.
    """

    def __init__(self, job: Job, places: _Places):
        self._ray = connect()
        self._job, self._places, self._lost = job, places, 0
        shares = range(places.nodes if job.is_shared_out else 1)
        self._rows: list[Iterator[list[Row]]] = [
            follow(job.out / launch.progress_of_share(job.progress, share)) for share in shares
        ]
        # The first step finds a file's present end.
        for rows in self._rows:
            next(rows)
        self._share_lost = ""
        self._left: list[Any] = []
        self._group: Any = None
        self._begin()

    def goes_on(self) -> bool:
        """Hand the new rows on; whether the job has not come to its end.

        Raises:
            KitError: as ``run``.
        """
        ready: list[Any] = []
        if self._left:
            ready, self._left = self._ray.wait(self._left, num_returns=len(self._left), timeout=0)
        for row in chain.from_iterable(next(rows) for rows in self._rows):
            self._job.on_row(row)
        for ref in ready:
            self._take(ref)
        if not self._left and self._share_lost:
            raise NodeLost(self._share_lost)
        return bool(self._left)

    def stop(self) -> None:
        """End what still runs, and give its places back."""
        for ref in self._left:
            self._ray.cancel(ref, force=True)
        self._left = []
        if self._group is not None:
            self._ray.util.remove_placement_group(self._group)
            self._group = None

    def _take(self, ref: Any) -> None:
        """The end of a task: its error, if it has one."""
        try:
            error = self._ray.get(ref)
        except self._ray.exceptions.RayError as raised:
            if not _is_loss(raised):
                raise _explained(raised) from None
            self._lose()
        else:
            if error is not None:
                raise self._job.named(error)

    def _lose(self) -> None:
        """A node was lost: other shares go on, anything else begins anew elsewhere."""
        self._lost += 1
        story = f"a node of the cluster was lost while it ran {self._job.module} for {self._job.out}"
        if self._job.is_shared_out:
            self._share_lost = story
            return
        self.stop()
        if self._lost > _MOST_LOST:
            raise NodeLost(f"{story}, for the {self._lost}th time; see `ray status`, then run this again")
        self._job.on_row({"note": f"{story}; it goes on elsewhere from the last checkpoint"})
        self._begin()

    def _begin(self) -> None:
        """Start a task for each node."""
        places = self._places
        task = self._ray.remote(num_cpus=places.cpus, num_gpus=places.gpus, max_retries=0)(_launch)
        if places.nodes > 1 and not self._job.is_shared_out:
            self._left = self._joined(task)
        else:
            self._left = [task.remote(*self._arguments(number)) for number in range(places.nodes)]

    def _joined(self, task: Any) -> list[Any]:
        """A task on each of several nodes, whose processes find each other by torchrun's rendezvous."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        count = self._places.nodes
        bundles = [self._places.bundle] * count
        group = self._group = self._ray.util.placement_group(bundles, strategy="STRICT_SPREAD")
        on = [
            PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place)
            for place in range(count)
        ]
        # Ray starts this once all nodes of the group have room.
        endpoint = self._ray.remote(num_cpus=1, max_retries=0)(_endpoint).options(scheduling_strategy=on[0])
        where = endpoint.remote()
        return [
            task.options(scheduling_strategy=strategy).remote(*self._arguments(number, where))
            for number, strategy in enumerate(on)
        ]

    def _arguments(self, number: int, where: Any = None) -> tuple[Any, ...]:
        """The arguments of ``_launch`` for the node of this number."""
        job, shares = self._job, self._places.nodes if self._job.is_shared_out else 1
        variables = {name: value for name, value in os.environ.items() if _is_passed_on(name)}
        variables |= launch.share_variables(number if job.is_shared_out else 0, shares)
        out = job.out / f"node_{number}" if number else job.out
        return variables, job.module, job.args, str(out), self._places.gpus, where, number, self._places.nodes


def _launch(
    variables: dict[str, str],
    module: str,
    args: Sequence[str],
    out: str,
    gpus: int,
    where: str | None,
    number: int,
    nodes: int,
) -> KitError | None:
    """On a node: launch a job's processes there and wait for them; the error that they ended with.

    Args:
        variables: of the environment.
        module: as for ``launch.launch``.
        args: likewise.
        out: the folder for what the processes print.
        gpus: on this node.
        where: where the processes of several nodes meet, HOST:PORT of the first; None for those of one node.
        number: of this node among them.
        nodes: how many meet there.
    """
    # Ray counts the threads of a task by what it reserves: for all processes of the launch together.
    os.environ.pop("OMP_NUM_THREADS", None)
    os.environ.update(variables)
    if not Path(out).parent.is_dir():
        return KitError(
            f"node {socket.gethostname()} does not see {Path(out).parent}; put --out on a file system that "
            "all nodes share under the same path"
        )
    torchrun = None if where is None else _rendezvous(where, number, nodes)
    try:
        launch.launch(module, args, out, gpus=gpus, torchrun=torchrun)
    except KitError as error:
        return error
    return None


def _rendezvous(where: str, number: int, nodes: int) -> list[str]:
    """On a node: torchrun's options. It would find out who is host by names, which may not resolve."""
    import ray

    host = f"is_host={int(number == 0)}"
    options = {"nnodes": nodes, "rdzv-backend": "c10d", "rdzv-endpoint": where, "rdzv-conf": host}
    options["local-addr"] = ray.util.get_node_ip_address()
    return [f"--{name}={value}" for name, value in options.items()]


def _is_passed_on(name: str) -> bool:
    """Whether an environment variable of this host applies on the nodes as well."""
    return name == "OMP_NUM_THREADS" or (name.startswith("KIT_") and name != ENGINE)


def _endpoint() -> str:
    """On a node: its address, with a port that is free."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


def _is_loss(error: Exception) -> bool:
    """Whether a task ended because its node, or Ray's process there, is gone."""
    from ray import exceptions

    lost = (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.ObjectLostError)
    return isinstance(error, lost)


def _explained(error: Exception) -> KitError:
    """The sentence for an error of Ray."""
    from ray import exceptions

    if isinstance(error, exceptions.GetTimeoutError):
        return KitError(
            f"a node of the Ray cluster gave no answer for {_ANSWER_SECONDS:.0f} s; see `ray status`"
        )
    cause = getattr(error, "cause", None) or error
    said = next(iter(str(cause).strip().splitlines()), type(cause).__name__)[:160]
    return KitError(
        f"a node of the Ray cluster cannot run the kit ({type(cause).__name__}: {said}); give every node the "
        "same kit, Python and Ray under the same path"
    )
