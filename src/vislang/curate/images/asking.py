"""Asking a provider politely: at its pace, again after failures, never twice for the same page.

Only the endpoint is ever connected to, which comes from our table or from the person at the
keyboard: addresses that stand in answers are rows for the downloader and are not opened here.
Redirects are not followed, so that a key goes nowhere else.
"""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import hashlib
import http.client
import json
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from vislang.curate.images.provider import Provider
from vislang.errors import UserError
from vislang.files import write_whole

MAX_BYTES = 32 << 20  # of an answer
IN_A_ROW = 5  # words without an answer, after which it is not the words' fault
_PERIODS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600,
            "hour": 3600, "d": 86400, "day": 86400}  # fmt: skip


class NoAnswer(Exception):
    """A word that the provider did not answer for: the reason, which is counted."""


@dataclass(frozen=True)
class Manners:
    """How one asks.

    Args:
        tries: of one request.
        wait_s: seconds before the second try; doubled for each further one, give or take a half.
        patience_s: the longest wait that a provider may ask for; else we stop, to go on later.
        pause_s: seconds between the starts of two requests, if the provider asks for no more.
        seconds: for one answer.
        agent: how we call ourselves; Wikimedia wants to find a contact in it.
    """

    tries: int = 6
    wait_s: float = 1.0
    patience_s: float = 3700.0
    pause_s: float = 0.0
    seconds: float = 60.0
    agent: str = "vislang"


class Asking:
    """Requests to one provider, one after the other.

    Args:
        name: of the provider.
        provider: which.
        folder: of answers, each kept under a name made of what was asked.
        key: for the provider, or empty.
        endpoint: instead of the provider's own.
        manners: limits.
        say: called with a line when a wait is long.
        sleep: waits.
    """

    def __init__(
        self, name: str, provider: Provider, folder: Path, key: str = "", endpoint: str = "",
        manners: Manners = Manners(), say: Callable[[str], None] = print,
        sleep: Callable[[float], None] = time.sleep,
    ):  # fmt: skip
        self.name, self.provider, self.folder, self.key = name, provider, folder, key
        self.endpoint, self.manners = endpoint or provider.endpoint, manners
        self._say, self._sleep = say, sleep
        self._not_before = 0.0
        self._silent = 0
        self.requests = 0

    def ask(self, word: str, page: int) -> dict[str, Any]:
        """The answer for a page of a word, from disk if it was given before.

        Raises:
            NoAnswer: this request was refused or not answered; others may be.
            UserError: nothing can be had at present: a refused key, a limit, no connection.
        """
        query, headers = self.provider.request(word, page, self.key)
        path = self._place(query)
        if path.exists():
            with contextlib.suppress(OSError, ValueError, EOFError):  # damaged: ask again
                return json.loads(gzip.decompress(path.read_bytes()))
        try:
            answer = self._ask(query, headers)
        except NoAnswer as reason:
            self._silent += 1
            if self._silent >= IN_A_ROW:
                raise UserError(
                    f"{self.name} gave no usable answer to {IN_A_ROW} words in a row, last:"
                    f" {reason}. Look at {self.endpoint}; the same command goes on from here, and"
                    " with --retry_failed true asks for these words again."
                ) from reason
            raise
        self._silent = 0
        data = json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")
        write_whole(path, gzip.compress(data, 6, mtime=0))
        return answer

    def _place(self, query: Mapping[str, str]) -> Path:
        asked = json.dumps([self.endpoint, sorted(query.items())])
        digest = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / self.name / digest[:2] / f"{digest[2:18]}.json.gz"

    def _ask(self, query: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, Any]:
        reason = ""
        for turn in range(self.manners.tries):
            self._until(self._not_before)
            wait = self.manners.wait_s * 2**turn * random.uniform(0.5, 1.5)
            self._not_before = time.monotonic() + self.manners.pause_s
            try:
                status, told, body = _get(self.endpoint, query, headers, self.manners)
            except (OSError, http.client.HTTPException) as error:
                reason = f"no connection ({type(error).__name__})"
                self._later(wait)
                continue
            finally:
                self.requests += 1
            self._heed(told)
            text = body[:2000].decode("utf-8", "replace")
            asked = _retry_after(told)
            if status == 429 or self.provider.busy(status, text):
                reason = f"too many requests (http {status})"
                # The end of the provider's window is as long as its limit can last.
                self._later(
                    max(asked, wait) if asked is not None else wait if turn < 2 else self._window()
                )
            elif status == 200:
                answer, reason = _json(body, told)
                if answer is not None:
                    return answer
                self._later(wait)
                if turn >= 2:
                    break
            elif status in (401, 403):
                raise UserError(self._refused(status, text))
            elif status >= 500 or status == 408:
                reason = f"http {status}"
                self._later(max(asked or 0.0, wait))
            elif status in (301, 302, 303, 307, 308):
                raise UserError(
                    f"{self.name}: {self.endpoint} leads elsewhere ({told.get('location')})."
                    " Redirects are not followed; give the address with --endpoints."
                )
            else:
                raise NoAnswer(f"http {status}")
        raise NoAnswer(reason)

    def _refused(self, status: int, text: str) -> str:
        key = self.provider.key
        mend = f"Check the environment variable {key}" if key else "It wants no key"
        where = f" (keys: {self.provider.register})" if self.provider.register else ""
        given = "" if self.key or not key else ", which is not set"
        said = " ".join(text.split())[:200]
        return (
            f"{self.name} refuses us (http {status}: {said}). {mend}{given}{where}. Nothing is"
            " lost: the same command goes on from here."
        )

    def _window(self) -> float:
        """Seconds to the end of the provider's window, which begins with the clock's."""
        window = self.provider.window_s
        return window - time.time() % window + 1

    def _heed(self, headers: Mapping[str, str]) -> None:
        """When an answer says that it was the last one for now, wait for the limit's end."""
        for name, value in headers.items():
            found = re.fullmatch(r"x-ratelimit-(?:remaining|available)(-[\w-]+)?", name)
            if not found or not value.strip().isdigit() or int(value) > 0:
                continue
            suffix = found[1] or ""
            reset = headers.get(f"x-ratelimit-reset{suffix}", "")
            limit = headers.get(f"x-ratelimit-limit{suffix}", "")  # such as 20/min
            period = re.search(r"/\s*(\d*)\s*([a-z]+)", limit)
            if reset.strip().isdigit():
                seconds = float(reset)
                self._later(seconds - time.time() if seconds > 1e9 else seconds)
            elif period and period[2] in _PERIODS:
                self._later(float(period[1] or 1) * _PERIODS[period[2]])
            else:
                self._later(self._window())

    def _later(self, seconds: float) -> None:
        self._not_before = max(self._not_before, time.monotonic() + max(0.0, seconds))

    def _until(self, moment: float) -> None:
        wait = moment - time.monotonic()
        if wait > self.manners.patience_s:
            raise UserError(
                f"{self.name} wants us to wait for {wait:,.0f} s, more than --patience_s"
                f" {self.manners.patience_s:g}. Repeat the command then: it goes on from here."
            )
        if wait > 10:
            self._say(f"{self.name}: waiting {wait:,.0f} s, as it asks")
        if wait > 0:
            self._sleep(wait)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, or a date, of the header Retry-After."""
    value = (headers.get("retry-after") or "").strip()
    if value.isdigit():
        return float(value)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _json(body: bytes, headers: Mapping[str, str]) -> tuple[dict[str, Any] | None, str]:
    """(answer, "") or (None, what came instead)."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        html = b"<" in body[:200] or "html" in (headers.get("content-type") or "")
        return None, "HTML instead of JSON" if html else "not JSON"
    if not isinstance(answer, dict):
        return None, "JSON of another kind"
    if isinstance(answer.get("error"), dict):  # MediaWiki says so with status 200
        return None, f"error {str(answer['error'].get('code'))[:60]}"
    return answer, ""


def _get(
    endpoint: str, query: Mapping[str, str], headers: Mapping[str, str], manners: Manners
) -> tuple[int, dict[str, str], bytes]:
    """(status, headers by their names in small letters, body) of one GET.

    Raises:
        OSError: no connection, or an answer that is slow, endless or badly packed.
    """
    parts = urlsplit(endpoint)
    asked = "&".join(filter(None, [parts.query, urlencode(query, errors="replace")]))
    sent = {"User-Agent": manners.agent, "Accept": "application/json",
            "Accept-Encoding": "gzip", "Connection": "close", **headers}  # fmt: skip
    deadline = time.monotonic() + manners.seconds
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=manners.seconds, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=manners.seconds)
    with contextlib.closing(connection):
        connection.request("GET", f"{parts.path or '/'}?{asked}", headers=sent)
        answer = connection.getresponse()
        body = bytearray()
        while block := answer.read1(1 << 16):
            body += block
            if len(body) > MAX_BYTES:
                raise OSError(f"an answer of more than {MAX_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"an answer that takes more than {manners.seconds:g} s")
        if answer.length:
            raise http.client.IncompleteRead(bytes(body), answer.length)
        told = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, told, _unpacked(bytes(body), told)


def _unpacked(body: bytes, headers: Mapping[str, str]) -> bytes:
    if (headers.get("content-encoding") or "").strip().lower() != "gzip":
        return body
    import zlib

    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(body, MAX_BYTES)
    except zlib.error as error:
        raise OSError("an answer that is badly packed") from error
    if stream.unconsumed_tail:
        raise OSError(f"an answer of more than {MAX_BYTES:,} bytes")
    return plain
