"""Run a notebook as a Kaggle kernel is run: with papermill, and without a network.

Run by its path in the rehearsal's environment, which has no kitlib: standard library and papermill only.

    python -I offline_run.py JOB.json     runs the job, writes its result beside it
    python -I offline_run.py --probe      exits 0 where a network namespace can be had

A job: ``{"notebook", "executed", "working", "parameters", "read_only": [folders], "memory_bytes": 0 for no
limit, "namespace": true or false, "result"}``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

NEW_USER, NEW_NET, NEW_MOUNT = 0x10000000, 0x40000000, 0x00020000  # of linux/sched.h
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18  # of linux/mount.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # of linux/prctl.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
OUTSIDE = ("192.0.2.1", 443)  # of RFC 5737's addresses, which nobody has


def main() -> int:
    if sys.argv[1] == "--probe":
        enter_namespace()
        return 0
    job = json.loads(Path(sys.argv[1]).read_text())
    found: dict[str, Any] = {"network": "sockets refused", "inputs": "file permissions", "error": None}
    if job["namespace"]:
        enter_namespace()
        found["network"] = "network namespace"
        if _mount_read_only(job["read_only"]):
            found["inputs"] = "mounted read-only"
    if job["memory_bytes"]:
        resource.setrlimit(resource.RLIMIT_AS, (job["memory_bytes"],) * 2)
    # This process ends with the rehearsal, also where that is killed.
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    found["proof"] = prove_closed()
    start = time.monotonic()
    found["error"] = _run(job)
    found["seconds"] = time.monotonic() - start
    Path(job["result"]).write_text(json.dumps(found))
    return 1 if found["error"] else 0


def enter_namespace() -> None:
    """Leave the machine's network for a new one that has a loopback interface alone.

    Raises:
        OSError: the system does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    _call("unshare", NEW_USER | NEW_NET | NEW_MOUNT)
    # So that the rehearsal can measure the memory of this process.
    _call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _raise_loopback()


def _raise_loopback() -> None:
    """Bring ``lo`` up, over which a notebook talks to its kernel and torchrun to its workers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sH22x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, SIOCGIFFLAGS, asked), 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def _mount_read_only(folders: list[str]) -> bool:
    """Make folders read-only in this namespace, even for root, and return whether that was possible."""
    try:
        # These mounts must not propagate to the machine's own.
        _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
        for folder in map(os.fsencode, folders):
            _call("mount", folder, folder, None, MS_BIND, None)
            _call("mount", None, folder, None, MS_BIND | MS_REMOUNT | MS_RDONLY | _locked(folder), None)
    except OSError:
        return False
    return True


def _locked(folder: bytes) -> int:
    """Flags that a namespace may not drop from a mount: nosuid, nodev, noexec and those on access times.

    All but relatime have the same numbers in statvfs.
    """
    flags = os.statvfs(folder).f_flag
    shared = flags & (2 | 4 | 8 | 1024 | 2048)
    return shared | ((1 << 21) if flags & 4096 else 0)


def prove_closed() -> str:
    """Try to connect to an outside address, and return how the system refused it.

    Raises:
        RuntimeError: it was not refused: the network is open.
    """
    try:
        with socket.socket() as outward:
            outward.settimeout(3)
            outward.connect(OUTSIDE)
            met = "an answer"
    except TimeoutError:
        met = "no refusal"
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES):
            return f"connect to {OUTSIDE[0]}: {error.strerror}"
        met = str(error)
    raise RuntimeError(f"the network is not closed: connecting to {OUTSIDE[0]} met {met}")


def _run(job: dict) -> dict | None:
    """Execute the notebook as Kaggle does, and return the error that ended it, if any."""
    import papermill

    try:
        papermill.execute_notebook(
            job["notebook"],
            job["executed"],
            job["parameters"],
            kernel_name="python3",
            cwd=job["working"],
            progress_bar=False,
            # The kernel's own log is not for the user.
            extra_arguments=["--IPKernelApp.log_level=50"],
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
        )
    except papermill.PapermillExecutionError as error:
        return {"name": error.ename, "text": error.evalue}
    # For example a dead kernel, or a full disk.
    except Exception as error:
        return {"name": type(error).__name__, "text": str(error)}
    return None


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0, or else sets errno."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main())
