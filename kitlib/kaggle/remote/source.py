"""A file on a server, which can be asked for from any byte on."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from contextlib import closing

import requests

from kitlib.errors import KitError
from kitlib.kaggle.remote.retry import Retry, reason, status

TIMEOUT = (20, 120)  # seconds: to connect, and between two pieces of an answer
EXPIRED = (400, 401, 403, 410)  # what the storage answers to a signature that has run out


class Broken(Exception):
    """An answer that ended early, or is not what was asked for."""


class Source:
    """A file behind an address that may expire.

    Attributes:
        size: bytes of the file, None where the server does not say.
        tag: what tells this version of the file from others (ETag or date), None where the server has none.
        ranges: whether it can be asked for from any byte on.
    """

    def __init__(self, ask: Callable[[], requests.PreparedRequest], retry: Retry) -> None:
        """``ask`` gives the request for the whole file, newly signed at each call."""
        self._ask, self._request = ask, ask()
        with closing(retry.call(self._send, {"Range": "bytes=0-0"})) as answer:
            self.ranges = answer.status_code == 206
            length = answer.headers.get("Content-Length", "")
            if self.ranges:
                length = answer.headers.get("Content-Range", "").rpartition("/")[2]
            self.size = int(length) if length.isdecimal() else None
            self.ranges = self.ranges and self.size is not None
            self.tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")

    def open(self, start: int = 0, end: int | None = None) -> requests.Response:
        """The answer that holds the bytes from ``start`` to before ``end``, to be streamed.

        Raises:
            Broken: the server gives others, as when the file has changed.
            requests.RequestException: no answer, or an error.
        """
        if not start and end is None:
            answer = self._send({})
            length = answer.headers.get("Content-Length")
            if length is not None and self.size is not None and int(length) != self.size:
                answer.close()
                raise Broken("the file has changed")
            return answer
        last = "" if end is None else str(end - 1)
        headers = {"Range": f"bytes={start}-{last}"}
        if self.tag is not None and not self.tag.startswith("W/"):
            headers["If-Range"] = self.tag
        answer = self._send(headers)
        if answer.status_code != 206 or not _begins_at(answer, start):
            answer.close()
            raise Broken("the file has changed, or the server cannot go on in the middle of it")
        return answer

    def _send(self, headers: dict[str, str]) -> requests.Response:
        try:
            return self._once(headers)
        except requests.HTTPError as error:
            if status(error) not in EXPIRED:
                raise
        self._request = self._ask()
        return self._once(headers)

    def _once(self, headers: dict[str, str]) -> requests.Response:
        request = self._request.copy()
        request.headers.update({"Accept-Encoding": "identity", **headers})
        with requests.Session() as session:
            settings = session.merge_environment_settings(request.url, {}, True, None, None)
            answer = session.send(request, timeout=TIMEOUT, **settings)
        if answer.status_code == 416 and headers.get("Range") == "bytes=0-0":  # of an empty file
            answer.close()
            return self._once({})
        try:
            answer.raise_for_status()
        except requests.HTTPError:
            answer.close()
            raise
        return answer


class RemoteFile(io.RawIOBase):
    """A source as a file to seek and read in; each read is a request."""

    def __init__(self, source: Source, retry: Retry) -> None:
        super().__init__()
        self._source, self._retry, self._place = source, retry, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._source.size}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def readinto(self, buffer: memoryview) -> int:
        end = min(self._place + len(buffer), self._source.size)
        if end <= self._place:
            return 0
        try:
            data = self._retry.call(self._read, self._place, end)
        except (Broken, requests.RequestException) as error:  # not an OSError: that would be the disk's
            why = error if isinstance(error, Broken) else reason(error)
            raise KitError(f"cannot read the archive at Kaggle: {why}; run again later") from error
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def _read(self, start: int, end: int) -> bytes:
        with closing(self._source.open(start, end)) as answer:
            return answer.content


def _begins_at(answer: requests.Response, start: int) -> bool:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == start
