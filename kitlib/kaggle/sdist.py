"""An sdist with a pinned hash, fetched from the places that pip is set to use without running its code.

``pip download`` would run the sdist's ``setup.py`` to learn what it requires. Here, the file is looked for in
the find-links, the index and the extra indexes of pip's settings.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from kitlib.errors import KitError

PYPI = "https://pypi.org/simple"
PAUSES = (1, 2)  # seconds before the second and the third try


def fetch(project: str, version: str, sha256: str) -> bytes:
    """Fetch ``project-version.tar.gz``.

    Args:
        project: its name on an index.
        version: as in the file's name.
        sha256: the hash that the file must have, in hexadecimal digits.

    Raises:
        KitError: no place has the file; the error names each place with its answer.
    """
    settings = pip_settings()
    answers = []
    for place in places(settings, project):
        try:
            for link in _links(place, settings):
                if _is(link, project, version):
                    data = _read(link, settings)
                    if hashlib.sha256(data).hexdigest() == sha256:
                        return data
                    answers.append(f"{_bare(link)}: another file (its sha256 differs)")
        except (OSError, ValueError) as error:
            answers.append(f"{_bare(place)}: {error}")
    raise KitError(
        f"cannot fetch {project}=={version} from the places pip is set to use; check the network or "
        f"`pip config list`, or put the file in a folder and name it in PIP_FIND_LINKS ("
        f"{'; '.join(answers) or 'none of them has it'})"
    )


def pip_settings() -> dict[str, list[str]]:
    """pip's settings that say where packages come from, each a list, those of the environment first."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found: dict[str, list[str]] = {}
    for prefix in (":env:.", "install.", "download.", "global."):
        # pip lists the machine's file before the user's, which goes first here.
        for line in reversed(lines):
            key, _, value = line.partition("=")
            if key.startswith(prefix):
                found.setdefault(key[len(prefix) :], []).extend(str(ast.literal_eval(value)).split())
    return found


def places(settings: dict[str, list[str]], project: str) -> Iterator[str]:
    """URLs of the pages or folders that may link to a file of ``project``, find-links first."""
    for place in settings.get("find-links", []):
        yield place if "://" in place else Path(place).expanduser().absolute().as_uri()
    if settings.get("no-index", ["0"])[0].lower() in ("1", "true", "yes", "on"):
        return
    for index in [*(settings.get("index-url") or [PYPI])[:1], *settings.get("extra-index-url", [])]:
        yield f"{index.rstrip('/')}/{project}/"


def _links(place: str, settings: dict[str, list[str]]) -> list[str]:
    """The files that a folder holds or a page links to, as URLs; none where there is no such place."""
    local = _local(place)
    if local is not None and local.is_dir() and not (local / "index.html").is_file():
        return [path.as_uri() for path in sorted(local.iterdir())]
    page = place if local is None or local.is_file() else (local / "index.html").as_uri()
    try:
        text = _read(page, settings).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except urllib.error.HTTPError as error:
        # So indexes answer for a project that they do not have.
        if error.code in (403, 404):
            return []
        raise
    parser = _Links()
    parser.feed(text)
    return [urljoin(page, link) for link in parser.links]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _is(link: str, project: str, version: str) -> bool:
    """Whether the link's file is the sdist; newer sdists spell `-` in a name as `_`."""
    name = unquote(urlsplit(link).path).rsplit("/", 1)[-1]
    return name in (f"{project}-{version}.tar.gz", f"{project.replace('-', '_')}-{version}.tar.gz")


def _local(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(urllib.request.url2pathname(parts.path)) if parts.scheme == "file" else None


def _read(url: str, settings: dict[str, list[str]]) -> bytes:
    """The contents of a file or page, by pip's certificate and proxy; a broken connection is tried again."""
    local = _local(url)
    if local is not None:
        return local.read_bytes()
    for pause in PAUSES:
        try:
            return _get(url, settings)
        # The server has answered, and would answer the same again.
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(pause)
    return _get(url, settings)


def _get(url: str, settings: dict[str, list[str]]) -> bytes:
    try:
        with _opener(settings).open(_request(url), timeout=60) as answer:
            return answer.read()
    except HTTPException as error:
        raise OSError(f"the answer was cut short ({error})") from error


def _opener(settings: dict[str, list[str]]) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context(cafile=next(iter(settings.get("cert", [])), None))
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    for proxy in settings.get("proxy", [])[:1]:
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    return urllib.request.build_opener(*handlers)


def _request(url: str) -> urllib.request.Request:
    """A GET of ``url``; a `user:password@` in it goes into the header, as pip does."""
    request = urllib.request.Request(_bare(url), headers={"Accept": "text/html", "User-Agent": "kitlib"})
    parts = urlsplit(url)
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    return request


def _bare(url: str) -> str:
    """``url`` without a password, for messages."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
