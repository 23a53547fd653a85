"""Fetching one pinned file: from a real index server on this machine, from folders, by pip's own settings."""

import base64
import functools
import hashlib
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kitlib.errors import KitError
from kitlib.kaggle import sdist

DATA = b"the pinned bytes"
SHA = hashlib.sha256(DATA).hexdigest()
FILE = "some-project-1.0.tar.gz"


@pytest.fixture(autouse=True)
def pip_without_settings(monkeypatch):
    """pip as on a bare machine; the tests set what they need."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(sdist, "PAUSES", (0, 0))
    monkeypatch.setattr(sdist, "PYPI", "http://127.0.0.1:9/nobody-listens")


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A web server of the test's folder, which keeps what it was asked for."""
    handler = functools.partial(Handler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def served(server, tmp_path):
    """The folder and its address."""
    return tmp_path, f"http://127.0.0.1:{server.server_port}"


def page(folder, *links):
    (folder / "some-project").mkdir(parents=True, exist_ok=True)
    text = "".join(f'<a href="{link}">x</a>' for link in links)
    (folder / "some-project" / "index.html").write_text(f"<html><body>{text}</body></html>")


def fetch():
    return sdist.fetch("some-project", "1.0", SHA)


@pytest.mark.parametrize("name", [FILE, "some_project-1.0.tar.gz"])
def test_from_an_index_by_a_relative_link(served, monkeypatch, name):
    folder, url = served
    (folder / name).write_bytes(DATA)
    page(folder, "other-1.0.tar.gz", f"../{name}#sha256=0")
    monkeypatch.setenv("PIP_INDEX_URL", url)
    assert fetch() == DATA


def test_from_an_extra_index_where_the_first_has_it_not(served, monkeypatch):
    folder, url = served
    (folder / "extra").mkdir()
    (folder / "extra" / FILE).write_bytes(DATA)
    page(folder / "extra", f"../{FILE}")
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/empty")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{url}/none {url}/extra/")
    assert fetch() == DATA


def test_from_an_index_in_a_folder(tmp_path, monkeypatch):
    (tmp_path / FILE).write_bytes(DATA)
    page(tmp_path, f"../{FILE}")
    monkeypatch.setenv("PIP_INDEX_URL", tmp_path.as_uri())
    assert fetch() == DATA


@pytest.mark.parametrize("as_url", [False, True])
def test_from_a_find_links_folder_without_an_index(tmp_path, monkeypatch, as_url):
    (tmp_path / FILE).write_bytes(DATA)
    monkeypatch.setenv("PIP_FIND_LINKS", tmp_path.as_uri() if as_url else str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert fetch() == DATA


def test_from_a_configuration_file(served, monkeypatch, tmp_path):
    folder, url = served
    (folder / FILE).write_bytes(DATA)
    page(folder, f"../{FILE}")
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nextra-index-url =\n    {url}/none\n    {url}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    assert fetch() == DATA


def test_another_file_by_that_name_is_passed_over(monkeypatch, tmp_path):
    wrong, right = tmp_path / "wrong", tmp_path / "right"
    for place, data in ((wrong, b"other bytes"), (right, DATA)):
        place.mkdir()
        (place / FILE).write_bytes(data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wrong))
    with pytest.raises(KitError, match="its sha256 differs"):
        fetch()
    monkeypatch.setenv("PIP_FIND_LINKS", f"{wrong} {right}")
    assert fetch() == DATA


def test_a_password_goes_into_the_header_and_into_no_message(server, served, monkeypatch):
    folder, url = served
    monkeypatch.setenv("PIP_INDEX_URL", url.replace("//", "//me:s%40cret@"))
    with pytest.raises(KitError) as error:
        fetch()
    assert "cret" not in str(error.value)
    page(folder, f"../{FILE}")
    (folder / FILE).write_bytes(DATA)
    assert fetch() == DATA
    assert server.seen[-1] == (f"/{FILE}", "Basic " + base64.b64encode(b"me:s@cret").decode())


def test_without_a_network_the_error_names_the_place_and_the_mend(monkeypatch):
    with pytest.raises(
        KitError, match=r"(?s)cannot fetch some-project==1\.0.*check the network.*127\.0\.0\.1:9"
    ):
        fetch()


def test_pip_settings_of_the_environment_come_first(monkeypatch, tmp_path):
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = https://global\n[install]\nindex-url = https://install\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment")
    found = sdist.pip_settings()
    assert found["index-url"] == ["https://environment", "https://install", "https://global"]
    assert list(sdist.places(found, "p")) == ["https://environment/p/"]


def test_pip_settings_of_the_user_come_before_the_machines(monkeypatch, tmp_path):
    monkeypatch.delenv("PIP_CONFIG_FILE")
    for variable, name in (("XDG_CONFIG_HOME", "user"), ("XDG_CONFIG_DIRS", "machine")):
        monkeypatch.setenv(variable, str(tmp_path / name))
        (tmp_path / name / "pip").mkdir(parents=True)
        (tmp_path / name / "pip" / "pip.conf").write_text(f"[global]\nindex-url = https://{name}\n")
    assert sdist.pip_settings()["index-url"][:2] == ["https://user", "https://machine"]
