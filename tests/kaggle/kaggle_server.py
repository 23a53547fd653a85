"""A small Kaggle on the loopback: what the official client asks for, in the forms it expects.

Its place is that of the client's environment TEST: port 7777, one server at a time. It answers the client's
POSTs, signs (``?sig=``) and serves files with Range as the storage does, and takes resumable uploads.

Faults are queued by the request's name: ``kaggle.fail("GetDatasetStatus", Fault(503), Fault(429, after=1))``.
Those of downloads are ``BODY name`` for the file itself, ``GET name`` for a look at its length or a part.
"""

from __future__ import annotations

import errno
import fcntl
import json
import re
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PORT = 7777
LOCK = Path(tempfile.gettempdir()) / f"kit-tests-port-{PORT}.lock"
TOKEN = "KGAT_0123456789abcdef0123456789abcdef"
USER = "ada"


@dataclass
class Fault:
    """One answer that goes wrong.

    Attributes:
        code: the status to answer with; 0: answer as usual, but see ``cut``.
        message: what the JSON says.
        after: the Retry-After header.
        cut: break the connection off after this many bytes of the body (of the request, for an upload).
        forever: stay.
        stall: where it is cut, wait for the process at the other end to go away.
    """

    code: int = 0
    message: str = ""
    after: float | str | None = None
    cut: int | None = None
    forever: bool = False
    stall: bool = False


@dataclass
class Stored:
    """A file that can be downloaded."""

    data: bytes
    tag: str | None = '"v1"'
    ranges: bool = True


@dataclass
class Upload:
    """A file that is being uploaded."""

    name: str
    size: int
    data: bytes = b""


@dataclass
class Kaggle:
    """What is on the server, and what it was asked."""

    files: dict[str, Stored] = field(default_factory=dict)
    archives: dict[str, str] = field(default_factory=dict)  # competition -> name in files
    uploads: dict[str, Upload] = field(default_factory=dict)  # token -> upload
    datasets: dict[str, list[dict]] = field(default_factory=dict)  # id -> versions
    kernels: dict[str, list[dict]] = field(default_factory=dict)  # id -> versions
    states: list[str] = field(default_factory=lambda: ["QUEUED", "RUNNING", "COMPLETE"])
    failure: str = ""
    output: dict[str, str] = field(default_factory=dict)  # name -> name in files
    log: str = ""
    submissions: list[dict] = field(default_factory=list)
    scores: list[dict] = field(
        default_factory=list
    )  # what each look at a submission gives, the last one stays
    token: str = TOKEN
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    asked: list[tuple[str, Any]] = field(default_factory=list)  # name and JSON, or path and headers
    lock: threading.Lock = field(default_factory=threading.Lock)
    stalled: threading.Event = field(default_factory=threading.Event)

    def fail(self, name: str, *faults: Fault) -> None:
        self.faults[name] += faults

    def fault(self, name: str) -> Fault | None:
        with self.lock:
            queue = self.faults[name]
            if not queue:
                return None
            return queue[0] if queue[0].forever else queue.pop(0)

    def names(self) -> list[str]:
        return [name for name, _ in self.asked]

    def put(self, name: str, data: bytes, **options: Any) -> None:
        self.files[name] = Stored(data, **options)

    # ------------------------------------------------------------- the requests, by their names

    def IntrospectToken(self, values: dict) -> dict:
        return {"active": values["token"] == self.token, "username": USER}

    def StartBlobUpload(self, values: dict) -> dict:
        token = f"blob{len(self.uploads)}"
        self.uploads[token] = Upload(values["name"], values["contentLength"])
        return {"token": token, "createUrl": f"http://localhost:{PORT}/upload/{token}?sig=secret-signature"}

    def GetDatasetStatus(self, values: dict) -> dict:
        versions = self._versions(values)
        versions[-1]["looks"] += 1
        return {"status": "READY" if versions[-1]["looks"] > 1 else "BLOBS_RECEIVED"}

    def GetDataset(self, values: dict) -> dict:
        versions = self._versions(values)
        ready = [version for version in versions if version["looks"] > 1]
        return {"ref": f"{values['ownerSlug']}/{values['datasetSlug']}", "currentVersionNumber": len(ready)}

    def _versions(self, values: dict) -> list[dict]:
        name = f"{values['ownerSlug']}/{values['datasetSlug']}"
        if name not in self.datasets:
            raise Refusal(403, "Permission 'datasets.get' was denied")
        return self.datasets[name]

    def CreateDataset(self, values: dict) -> dict:
        name = f"{values['ownerSlug']}/{values['slug']}"
        self.datasets[name] = [{**values, "files": self._taken(values), "looks": 0}]
        return {"status": "ok", "url": f"https://www.kaggle.com/datasets/{name}", "ref": name}

    def CreateDatasetVersion(self, values: dict) -> dict:
        body = values["body"]
        self._versions(values).append({"looks": 0, **body, "files": self._taken(body)})
        return {"status": "ok", "url": "https://www.kaggle.com/datasets/x"}

    def _taken(self, values: dict) -> dict[str, bytes]:
        """The files of a dataset by name, each of which must have come whole."""
        found = {}
        for file in values.get("files", []):
            upload = self.uploads[file["token"]]
            if len(upload.data) != upload.size:
                raise Refusal(400, f"{upload.name} is not whole")
            found[upload.name] = upload.data
        return found

    def SaveKernel(self, values: dict) -> dict:
        versions = self.kernels.setdefault(values["slug"], [])
        versions.append(values)
        absent = [name for name in values.get("datasetDataSources", []) if name not in self.datasets]
        url = f"https://www.kaggle.com/code/{values['slug']}"
        return {
            "ref": values["slug"],
            "url": url,
            "versionNumber": len(versions),
            "invalidDatasetSources": absent,
        }

    def GetKernelSessionStatus(self, values: dict) -> dict:
        if f"{values['userName']}/{values['kernelSlug']}" not in self.kernels:
            raise Refusal(403, "Permission 'kernels.get' was denied")
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"status": state, "failureMessage": self.failure}

    def ListKernelSessionOutput(self, values: dict) -> dict:
        names = sorted(self.output)  # two a page
        start = int(values.get("pageToken") or 0)
        files = [{"fileName": name, "url": address(self.output[name])} for name in names[start : start + 2]]
        after = str(start + 2) if start + 2 < len(names) else ""
        return {"files": files, "log": self.log, "nextPageToken": after}

    def CreateCodeSubmission(self, values: dict) -> dict:
        self.submissions.insert(0, values)
        return {"message": "Successfully submitted", "ref": 4000 + len(self.submissions)}

    def ListSubmissions(self, values: dict) -> dict:
        score = self.scores.pop(0) if len(self.scores) > 1 else self.scores[0]
        newest = {"ref": 4000 + len(self.submissions), "fileName": "submission.csv", **score}
        return {"submissions": [newest, {"ref": 4000, "status": "ERROR", "errorDescription": "an older one"}]}

    def GetSubmissionLimits(self, values: dict) -> dict:
        return {"numAllowedNow": 4}


class Refusal(Exception):
    """An error that Kaggle answers with."""


class Cut(Exception):
    """The connection is to be broken off."""


def address(name: str) -> str:
    return f"http://localhost:{PORT}/storage/{name}?sig=secret-signature"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kaggle: Kaggle

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (Cut, ConnectionError):
            self.close_connection = True

    # --------------------------------------------------------------------------------- the API

    def do_POST(self) -> None:
        values = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        name = self.path.rsplit("/", 1)[-1]
        with self.kaggle.lock:
            self.kaggle.asked.append((name, values))
        fault = self.kaggle.fault(name)
        if fault and fault.cut is not None:
            raise Cut
        if fault:
            self._error(fault)
        elif name != "IntrospectToken" and self.headers["Authorization"] != f"Bearer {self.kaggle.token}":
            self._error(Fault(401, "Unauthenticated"))
        elif name == "DownloadDataFiles":
            self._redirect(values["competitionName"])
        else:
            try:
                self._json(200, getattr(self.kaggle, name)(values))
            except Refusal as refusal:
                self._error(Fault(*refusal.args))

    def _error(self, fault: Fault) -> None:
        after = {} if fault.after is None else {"Retry-After": str(fault.after)}
        self._json(fault.code, {"code": fault.code, "message": fault.message}, after)

    def _json(self, code: int, values: dict, headers: dict[str, str] | None = None) -> None:
        self._send(code, json.dumps(values).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _redirect(self, competition: str) -> None:
        if competition not in self.kaggle.archives:
            self._error(Fault(404, f"Competition not found: {competition}"))
        else:
            self._send(302, b"", {"Location": address(self.kaggle.archives[competition])})

    def _send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    # ------------------------------------------------------------------------------ the storage

    def do_GET(self) -> None:
        name = self.path.split("?")[0].removeprefix("/storage/")
        with self.kaggle.lock:
            self.kaggle.asked.append((f"GET {name}", dict(self.headers)))
        whole = self.headers["Accept-Encoding"] == "identity" and not re.search(
            r"-\d", self.headers.get("Range", "")
        )
        fault = self.kaggle.fault(f"BODY {name}" if whole else f"GET {name}")
        stored = self.kaggle.files.get(name)
        if fault and fault.code:
            self._send(fault.code, b"<html>trouble</html>", {"Content-Type": "text/html"})
        elif stored is None:
            self._send(404, b"<Error>NoSuchKey</Error>", {"Content-Type": "application/xml"})
        else:
            self._serve(stored, fault)

    def _serve(self, stored: Stored, fault: Fault | None) -> None:
        size, headers = len(stored.data), {"Content-Type": "application/octet-stream"}
        if stored.tag:
            headers["ETag"] = stored.tag
        if stored.ranges:
            headers["Accept-Ranges"] = "bytes"
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        fresh = self.headers.get("If-Range", stored.tag) == stored.tag
        code, start, end = 200, 0, size
        if asked and stored.ranges and fresh:
            code, start, end = 206, int(asked[1]), min(size, int(asked[2] or size) + 1)
            if start >= size:
                self._send(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        body = stored.data[start:end]
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        cut = fault.cut if fault else None
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self._break_off(fault)

    def do_PUT(self) -> None:
        token = self.path.split("?")[0].removeprefix("/upload/")
        upload, length = self.kaggle.uploads[token], int(self.headers["Content-Length"])
        span = self.headers.get("Content-Range", "")
        with self.kaggle.lock:
            self.kaggle.asked.append((f"PUT {upload.name}", span))
        fault = self.kaggle.fault(f"PUT {upload.name}")
        if span.startswith("bytes */"):
            self._state_of(upload, fault)
            return
        start = int(re.match(r"bytes (\d+)-", span)[1]) if span else 0
        kept = length if fault is None or fault.cut is None else fault.cut
        upload.data = upload.data[:start] + self.rfile.read(kept)
        if fault and fault.code:
            self.rfile.read(length - kept)
            self._send(fault.code, b"", {})
        elif fault:
            self._break_off(fault)
        else:
            self._send(200, b"", {})

    def _break_off(self, fault: Fault) -> None:
        if fault.stall:
            self.kaggle.stalled.set()
            while self.rfile.read(1 << 16):
                pass  # what was sent before the other end went away
        raise Cut

    def _state_of(self, upload: Upload, fault: Fault | None) -> None:
        """What has come of an upload, as the storage tells it."""
        if fault:
            self._send(fault.code, b"", {})
        elif len(upload.data) == upload.size:
            self._send(200, b"", {})
        else:
            got = {"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {}
            self._send(308, b"", got)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def alone() -> Iterator[None]:
    """Have the port to oneself: tests of other processes wait."""
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def serving(patience: float = 60) -> Iterator[Kaggle]:
    """Serve on the port of the client's TEST environment."""
    kaggle = Kaggle()
    handler = type("Handler", (Handler,), {"kaggle": kaggle})
    with alone(), _bound(handler, patience) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield kaggle
        server.shutdown()


def _bound(handler: type, patience: float) -> Server:
    """The server, once the port is free: one that has just been closed may still hold it."""
    begun = time.monotonic()
    while True:
        try:
            return Server(("127.0.0.1", PORT), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() - begun > patience:
                raise
            time.sleep(0.1)
