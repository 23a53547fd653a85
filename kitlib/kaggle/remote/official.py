"""The official client, made fit for a program: import it only through ``kitlib.kaggle.remote.client``.

What is changed in the client (read in 2.2.4), and why:

- Importing ``kaggle`` signs in over the network and prints; the package is therefore loaded without that.
- Its calls have no timeout and mostly no second attempt, and it forgets ``KAGGLE_API_ENVIRONMENT``.
- With ``VERBOSE`` set it prints each request with its token.
- A file whose upload failed is left out of the dataset without a word, and the note of an upload that has
  expired makes every later attempt fail.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from kitlib.errors import KitError
from kitlib.kaggle.remote.answers import ONCE
from kitlib.kaggle.remote.retry import Retry
from kitlib.kaggle.remote.source import TIMEOUT
from kitlib.kaggle.remote.transfer import size_text


def _load() -> None:
    """Put ``kaggle`` in place without running its ``__init__``, which would sign in."""
    if "kaggle" in sys.modules:
        return
    spec = importlib.util.find_spec("kaggle")
    if spec is None:
        raise ModuleNotFoundError("No module named 'kaggle'", name="kaggle")
    package = importlib.util.module_from_spec(spec)
    package.__version__ = metadata.version("kaggle")
    sys.modules["kaggle"] = package
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi
    except BaseException:
        del sys.modules["kaggle"]
        raise
    package.KaggleApi = KaggleApi
    package.api = KaggleApi()  # as __init__ does; who needs it calls its authenticate()


_load()
from kaggle.api.kaggle_api_extended import (  # noqa: E402
    ApiDownloadDataFilesRequest,
    ApiListKernelSessionOutputRequest,
    KaggleApi,
    KaggleClient,
    get_access_token_from_env,
)

__all__ = ["Api", "get_access_token_from_env"]


class Timely(HTTPAdapter):
    """An adapter that never waits for ever."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        if options.get("timeout") is None:
            options["timeout"] = TIMEOUT
        return super().send(request, **options)


class Api(KaggleApi):
    """The client's ``KaggleApi`` with timeouts, patience and no silent loss of files."""

    MAX_UPLOAD_RESUME_ATTEMPTS = 2  # each has ten attempts of its own

    def __init__(self, retry: Retry, say: Callable[[str], None]) -> None:
        super().__init__()
        self.retry, self.say = retry, say

    def build_kaggle_client(self) -> KaggleClient:
        values = self.config_values
        client = KaggleClient(
            env=None,  # the one that KAGGLE_API_ENVIRONMENT names
            verbose=False,
            username=values.get(self.CONFIG_NAME_USER),
            password=values.get(self.CONFIG_NAME_KEY),
            api_token=values.get(self.CONFIG_NAME_TOKEN),
            response_processor=self.get_response_processor(),
        )
        http = client.http_client()
        http._init_session()
        http._session.mount("https://", Timely())
        http._session.mount("http://", Timely())
        plain = http.call

        def call(service: str, name: str, request: object, answer: type) -> object:
            return self.retry.call(plain, service, name, request, answer, once=name in ONCE)

        http.call = call
        return client

    def secrets(self) -> list[str]:
        """What is never to be shown; one that was refused too."""
        found = [self.config_values.get(name) for name in (self.CONFIG_NAME_TOKEN, self.CONFIG_NAME_KEY)]
        with suppress(OSError):  # a token that is too long for a path
            found.append(get_access_token_from_env()[0])
        return [secret for secret in found if secret]

    def competition_archive(self, competition: str) -> requests.Response:
        """The answer that holds the archive of a competition's data, of which nothing is read yet."""
        request = ApiDownloadDataFilesRequest()
        request.competition_name = competition
        with self.build_kaggle_client() as client:
            return client.competitions.competition_api_client.download_data_files(request)

    def session_output(self, kernel: str) -> tuple[dict[str, str], str]:
        """The files of a kernel's last run by name, as addresses; and its log."""
        owner, slug, _ = self.parse_kernel_string(kernel)
        request = ApiListKernelSessionOutputRequest()
        request.user_name, request.kernel_slug, request.page_size = owner, slug, 100
        files: dict[str, str] = {}
        with self.build_kaggle_client() as client:
            while True:
                page = client.kernels.kernels_api_client.list_kernel_session_output(request)
                files.update({file.file_name: file.url for file in page.files or []})
                log = page.log or ""
                if not page.next_page_token:
                    return files, log
                request.page_token = page.next_page_token

    def with_retry(self, func: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        return func  # each call has its second attempts already

    def _upload_file(self, file_name: str, full_path: str, blob_type: Any, context: Any, *rest: Any) -> Any:
        self.say(f"uploading {file_name} ({size_text(Path(full_path).stat().st_size)})")
        note = Path(context.get_upload_info_file_path(full_path))
        for attempt in range(1, self.retry.tries + 1):
            uploaded = super()._upload_file(file_name, full_path, blob_type, context, *rest)
            if uploaded is not None:
                return uploaded
            note.unlink(missing_ok=True)  # it would have an upload resumed that the server has given up
            if attempt < self.retry.tries:
                pause = min(self.retry.pause * 2 ** (attempt - 1), self.retry.longest)
                self.retry.rest(pause, f"Kaggle did not take {file_name}")
        raise KitError(
            f"cannot upload {file_name}: Kaggle did not take it in {self.retry.tries} attempts; "
            "run again later, the dataset is as it was"
        )
