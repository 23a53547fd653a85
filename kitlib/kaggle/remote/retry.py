"""Trying again: which failures are worth it, and how long to wait before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeVar

import requests
from requests.packages.urllib3.exceptions import NewConnectionError

from kitlib.errors import KitError

T = TypeVar("T")

BUSY = (429, 500, 502, 503, 504)
UNTOUCHED = (429, 503)  # answers that say that nothing was done with the request
LOST = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class Retry:
    """How often and how patiently to try again.

    Attributes:
        tries: attempts in all; where Kaggle cannot be reached at all, three, as the network is down then.
        pause: seconds before the second attempt, doubled for each one after.
        longest: seconds that a pause may last. A server that asks for more gets no second attempt.
        say: told why and for how long there is a pause.
    """

    tries: int = 6
    pause: float = 1.0
    longest: float = 300.0
    say: Callable[[str], None] = print

    def call(self, function: Callable[..., T], *arguments: object, once: bool = False) -> T:
        """``function(*arguments)``, called again after failures that may pass.

        Args:
            once: the request must not be carried out twice: it is sent again only where it surely was not.
        """
        attempt = 1
        while True:
            try:
                return function(*arguments)
            except requests.RequestException as error:
                wait = self.wait(error, attempt, once)
                if wait is None:
                    raise
                self.rest(wait, reason(error))
                attempt += 1

    def wait(self, error: Exception, attempt: int, once: bool = False) -> float | None:
        """Seconds until the next attempt, or None where there is to be none."""
        code = status(error)
        if isinstance(error, requests.exceptions.SSLError):
            return None
        tries = min(self.tries, 3) if unreached(error) else self.tries
        if attempt >= tries or not (code in BUSY or isinstance(error, LOST)):
            return None
        if once and not (code in UNTOUCHED or unreached(error)):
            return None
        asked = asked_pause(error)
        if asked is not None:
            return asked if asked <= self.longest else None
        return min(self.pause * 2 ** (attempt - 1), self.longest)

    def rest(self, seconds: float, why: str) -> None:
        """Say why, and wait."""
        self.say(f"{why}; trying again in {seconds:.3g} s")
        time.sleep(seconds)


def default(say: Callable[[str], None] = print) -> Retry:
    """The usual patience; ``KIT_RETRY_PAUSE`` is the first pause in seconds.

    Raises:
        KitError: the variable is not a number.
    """
    text = os.environ.get("KIT_RETRY_PAUSE", "1")
    try:
        pause = float(text)
    except ValueError:
        pause = -1.0
    if not pause >= 0:
        raise KitError(f"KIT_RETRY_PAUSE is '{text}'; give seconds, such as 0.5, or unset it")
    return Retry(pause=pause, say=say)


def status(error: BaseException) -> int:
    """The HTTP status that an error carries, 0 where it carries none."""
    response = getattr(error, "response", None)
    code = response.status_code if response is not None else 0
    if 0 < code < 400:  # an answer of 200 whose JSON says that it is an error
        try:
            code = int(response.json()["code"])
        except (ValueError, KeyError, TypeError):
            code = 0
    return code


def unreached(error: BaseException) -> bool:
    """Whether there was never a connection, so that no request was sent."""
    cause = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    refused = isinstance(getattr(cause, "reason", None), NewConnectionError)  # or the name is not known
    return refused or isinstance(error, (requests.ConnectTimeout, requests.exceptions.ProxyError))


def asked_pause(error: BaseException) -> float | None:
    """The seconds that the answer's Retry-After asks for, as a number or as a date; None without one."""
    response = getattr(error, "response", None)
    text = response.headers.get("Retry-After") if response is not None else None
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return None


def reason(error: BaseException) -> str:
    """The failure in a few words, without addresses: those may be signed."""
    code = status(error)
    if code == 429:
        return "Kaggle asks for fewer requests (429)"
    if code:
        return f"Kaggle answers {code}"
    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate of the connection cannot be verified"
    if isinstance(error, requests.Timeout):
        return "Kaggle does not answer"
    return "Kaggle cannot be reached" if unreached(error) else "the connection to Kaggle broke off"
