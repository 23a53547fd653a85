"""The Jupyter kernel of one stage, and why it could not be started or died."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from kitlib.errors import KitError
from kitlib.runtime import launch

# To import ipykernel on a busy machine or from a slow disk; a kernel that died is noticed at once.
START_SECONDS = 300
_QUOTED = 80
NAME = "python3"
_REMEDY = "install it with: python -m ipykernel install --sys-prefix"


@dataclass
class Kernel:
    """A kernel that runs one notebook.

    Attributes:
        process: None before it was started.
        stderr: a file of what it says there; its own output reaches the notebook and does not come here.
    """

    process: subprocess.Popen[bytes] | None = None
    stderr: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    def manager(self) -> type[AsyncKernelManager]:
        """A class of kernel manager for nbclient, which starts this kernel."""
        kernel = self

        class Manager(AsyncKernelManager):
            async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
                try:
                    options |= {"stderr": kernel.stderr, "env": launch.environment()}
                    await super().start_kernel(**options)
                except OSError as error:
                    program = error.filename or (self.kernel_spec.argv[0] if self.kernel_spec else NAME)
                    raise KitError(
                        f"the kernel '{NAME}' cannot be run ({program}: {error.strerror}); {_REMEDY}"
                    ) from error
                kernel.process = getattr(self.provisioner, "process", None)

        return Manager

    @contextmanager
    def explained(self) -> Iterator[None]:
        """For the process that runs a notebook: an error says why the kernel did not start or died.

        Raises:
            KitError: that reason.
        """
        try:
            yield
        except NoSuchKernel:
            raise KitError(f"there is no Jupyter kernel '{NAME}' here; {_REMEDY}") from None
        except RuntimeError as error:
            if "died" in str(error):  # nbclient and jupyter_client tell it by the text alone
                raise KitError(self._death()) from None
            raise KitError(f"its kernel failed: {error}") from error

    def _death(self) -> str:
        status = self.process.wait() if self.process is not None else None
        if status == -signal.SIGKILL:
            return "its kernel was killed, most often for want of memory; use a smaller batch or crop"
        if status is not None and status < 0:
            ended = f"its kernel died of {signal.Signals(-status).name}"
        else:
            ended = f"its kernel ended with exit status {status}"
        said = self._last_words()
        return f"{ended}: {said}" if said else f"{ended} without a word"

    def _last_words(self) -> str:
        """The last line that it wrote to stderr: of a traceback, the error."""
        self.stderr.seek(0, os.SEEK_SET)
        lines = self.stderr.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][:_QUOTED] if said else ""
