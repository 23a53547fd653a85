"""A small Kaggle on the loopback: what the official client asks for, in the forms it expects.

The client's environment LOCALHOST asks ``http://localhost``; ``http_proxy`` leads that to this server, at any
port. It answers the client's POSTs, signs (``?sig=``) and serves files with Range as the storage does, and
takes uploads.

Faults are queued by the request's name: ``kaggle.fail("GetDatasetStatus", Fault(503), Fault(cut=0))``. Those
of files are ``GET name`` and ``PUT name``.
"""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

TOKEN = "KGAT_0123456789abcdef0123456789abcdef"
USER = "ada"


@dataclass
class Fault:
    """One answer that goes wrong.

    Attributes:
        code: the status to answer with; 0: answer as usual, but see ``cut``.
        message: what the JSON says.
        cut: break the connection off after this many bytes of the body.
        forever: stay.
        stall: where it is cut, wait for the process at the other end to go away.
    """

    code: int = 0
    message: str = ""
    cut: int | None = None
    forever: bool = False
    stall: bool = False


@dataclass
class Upload:
    """A file that is being uploaded."""

    name: str
    size: int
    data: bytes = b""


@dataclass
class Kaggle:
    """What is on the server, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)  # what can be downloaded
    listed: dict[str, dict[str, int]] = field(default_factory=dict)  # competition -> sizes of its files
    uploads: dict[str, Upload] = field(default_factory=dict)  # token -> upload
    datasets: dict[str, list[dict]] = field(default_factory=dict)  # id -> versions
    kernels: dict[str, list[dict]] = field(default_factory=dict)  # id -> versions
    states: list[str] = field(default_factory=lambda: ["QUEUED", "RUNNING", "COMPLETE"])
    failure: str = ""
    output: dict[str, bytes] = field(default_factory=dict)  # what the notebook wrote, by name
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

    # ------------------------------------------------------------- the requests, by their names

    def IntrospectToken(self, values: dict) -> dict:
        return {"active": values["token"] == self.token, "username": USER}

    def StartBlobUpload(self, values: dict) -> dict:
        token = f"blob{len(self.uploads)}"
        self.uploads[token] = Upload(values["name"], values["contentLength"])
        return {"token": token, "createUrl": f"http://localhost/upload/{token}?sig=secret-signature"}

    def ListDataFiles(self, values: dict) -> dict:
        if values["competitionName"] not in self.listed:
            raise Refusal(404, "Not found")
        sizes = self.listed[values["competitionName"]]
        files = [{"name": name, "totalBytes": size} for name, size in sizes.items()]
        return page_of(files, "files", values)

    def ListDatasetFiles(self, values: dict) -> dict:
        newest = self._versions(values)[-1]
        return page_of([{"name": name} for name in sorted(newest["files"])], "datasetFiles", values)

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
        files = [{"fileName": name, "url": address(f"output/{name}")} for name in sorted(self.output)]
        return {**page_of(files, "files", values), "log": self.log}

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
    return f"http://localhost/storage/{quote(name)}?sig=secret-signature"


def page_of(entries: list[dict], name: str, values: dict, size: int = 3) -> dict:
    """Three entries a page, however many are asked for."""
    start = int(values.get("pageToken") or 0)
    after = str(start + size) if start + size < len(entries) else ""
    return {name: entries[start : start + size], "nextPageToken": after}


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
        if fault and fault.code:
            self._error(fault)
        elif name != "IntrospectToken" and self.headers["Authorization"] != f"Bearer {self.kaggle.token}":
            self._error(Fault(401, "Unauthenticated"))
        elif name == "DownloadDataFiles":
            self._send(302, b"", {"Location": address(f"{values['competitionName']}.zip")})
        else:
            try:
                self._json(200, getattr(self.kaggle, name)(values))
            except Refusal as refusal:
                self._error(Fault(*refusal.args))

    def _error(self, fault: Fault) -> None:
        self._json(fault.code, {"code": fault.code, "message": fault.message})

    def _json(self, code: int, values: dict) -> None:
        self._send(code, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    # ------------------------------------------------------------------------------ the storage

    def do_GET(self) -> None:
        name = unquote(self.path.split("?")[0].partition("/storage/")[2])
        with self.kaggle.lock:
            self.kaggle.asked.append((f"GET {name}", self.headers.get("Range", "all")))
        fault = self.kaggle.fault(f"GET {name}")
        stored = {**self.kaggle.files, **{f"output/{key}": data for key, data in self.kaggle.output.items()}}
        if fault and fault.code:
            self._send(fault.code, b"<html>trouble</html>", {"Content-Type": "text/html"})
        elif name not in stored:
            self._send(404, b"<Error>NoSuchKey</Error>", {"Content-Type": "application/xml"})
        else:
            self._serve(stored[name], fault)

    def _serve(self, data: bytes, fault: Fault | None) -> None:
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        headers |= {"ETag": f'"{zlib.crc32(data)}"', "Last-Modified": "Wed, 01 Dec 2021 00:00:00 GMT"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.headers.get("If-Range") == headers["ETag"] else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if start else 200)
        for name, value in {**headers, "Content-Length": str(len(data) - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault is None:
            self.wfile.write(data[start:])
            return
        self.wfile.write(data[start:][: fault.cut])
        self.wfile.flush()
        if fault.stall:
            self.kaggle.stalled.set()
            self.rfile.read()  # until the other end goes away
        raise Cut

    def do_PUT(self) -> None:
        upload = self.kaggle.uploads[self.path.split("?")[0].partition("/upload/")[2]]
        with self.kaggle.lock:
            self.kaggle.asked.append((f"PUT {upload.name}", ""))
        upload.data = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.kaggle.fault(f"PUT {upload.name}")
        self._send(fault.code if fault else 200, b"", {})


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[tuple[Kaggle, str]]:
    """A Kaggle that listens, and its address as a proxy."""
    kaggle = Kaggle()
    with Server(("127.0.0.1", 0), type("Handler", (Handler,), {"kaggle": kaggle})) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield kaggle, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
