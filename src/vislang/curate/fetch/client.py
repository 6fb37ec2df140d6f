"""One GET over http or https with limits that hold against a hostile server.

Every hop of a redirect is checked like the first URL; the addresses that were checked are those
that are connected to; one deadline counts for everything, names looked up included, however
slowly bytes trickle. Proxies, cookies and credentials of the environment are not looked at.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urljoin

from vislang.curate.fetch.network import Network, Refused, request_target

_REDIRECTS = (301, 302, 303, 307, 308)
_BLOCK = 1 << 16
_MOST_HEADERS = 1 << 16  # bytes of all headers of an answer together


@dataclass(frozen=True)
class Caps:
    """What one picture may cost.

    Args:
        max_bytes: of the body.
        seconds: for all hops together.
        redirects: hops.
        agent: how we call ourselves.
    """

    max_bytes: int = 20_000_000
    seconds: float = 20.0
    redirects: int = 5
    agent: str = "vislang"


class Answer(NamedTuple):
    """A body that came whole, with the status 200."""

    body: bytes
    headers: http.client.HTTPMessage
    url: str
    hops: int


def get(
    url: str,
    network: Network,
    caps: Caps,
    may: Callable[[str], None] | None = None,
    look: Callable[[http.client.HTTPMessage], None] | None = None,
    cut: bool = False,
) -> Answer:
    """Fetch a URL.

    Args:
        url: http or https.
        network: where one may connect to.
        caps: limits.
        may: called with the URL of every hop before it is asked for; raises Refused.
        look: called with the headers of the last answer before its body is read; raises Refused.
        cut: of a body that is too long, give what `max_bytes` allows instead of refusing it.

    Raises:
        Refused: for any reason at all.
    """
    deadline = time.monotonic() + caps.seconds
    for hop in range(caps.redirects + 1):
        parts, host, port = network.split(url)
        addresses = network.resolve(host, port, deadline - time.monotonic())
        if may:  # it asks the site itself, under limits of its own: not on this picture's time
            began = time.monotonic()
            may(url)
            deadline += time.monotonic() - began
        try:
            with _connect(addresses, host, port, parts.scheme, network, deadline) as sock:
                sock.settimeout(_left(deadline))
                named = None if port == (443 if parts.scheme == "https" else 80) else port
                sock.sendall(_request(request_target(parts), host, named, caps.agent))
                raw = _Raw(sock, deadline)
                answer = http.client.HTTPResponse(_Readable(raw))  # type: ignore[arg-type]
                try:
                    answer.begin()
                    if answer.status not in _REDIRECTS:
                        # Chunks of one byte each would be six times as long as what they bring.
                        raw.left = 2 * caps.max_bytes + _MOST_HEADERS
                        body = _read(answer, caps, look, cut)
                        return Answer(body, answer.headers, url, hop)
                    url = _next(url, answer.headers)
                finally:
                    answer.close()
        except TimeoutError as error:
            raise Refused("timeout", f"after {caps.seconds:g} s") from error
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise Refused("bad certificate", type(error).__name__) from error
        except (http.client.HTTPException, ValueError) as error:
            raise Refused("bad answer", type(error).__name__) from error
        except OSError as error:
            raise Refused("cannot connect", type(error).__name__) from error
    raise Refused("too many redirects", str(caps.redirects))


def _next(url: str, headers: http.client.HTTPMessage) -> str:
    """Where a redirect leads to."""
    place = headers.get("Location")
    if not place or not place.strip():
        raise Refused("bad answer", "a redirect that leads nowhere")
    with contextlib.suppress(UnicodeError):  # headers are read as Latin-1; many send UTF-8
        place = place.encode("latin-1").decode()
    return urljoin(url, place)


def _connect(
    addresses: Sequence[str], host: str, port: int, scheme: str, network: Network, deadline: float
) -> socket.socket:
    """A connection to the first of the addresses that takes it, by number."""
    for place, address in enumerate(addresses):
        left = _left(deadline)
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(left / (len(addresses) - place))
            sock.connect((address, port))
            break
        except OSError:
            sock.close()
            if place == len(addresses) - 1:
                raise
    if scheme == "http":
        return sock
    try:
        sock.settimeout(_left(deadline))
        context = _tls(network.verify, network.certificates)
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


@lru_cache(maxsize=4)
def _tls(verify: bool, certificates: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates or None)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _request(target: str, host: str, port: int | None, agent: str) -> bytes:
    name = f"[{host}]" if ":" in host else host
    name = f"{name}:{port}" if port else name
    lines = [
        f"GET {target} HTTP/1.1", f"Host: {name}", f"User-Agent: {agent}", "Accept: image/*, */*",
        "Accept-Encoding: identity", "Connection: close", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode("ascii")


def _read(
    answer: http.client.HTTPResponse,
    caps: Caps,
    look: Callable[[http.client.HTTPMessage], None] | None,
    cut: bool,
) -> bytes:
    if answer.status != 200:
        after = (answer.headers.get("Retry-After") or "").strip()
        raise Refused(f"http {answer.status}", f"retry after {after[:20]}" if after else "")
    if look:
        look(answer.headers)
    for line in answer.headers.get_all("Content-Encoding") or ():
        if line.strip().lower() not in ("", "identity"):
            raise Refused("encoded answer", "it was asked for plain bytes")  # perhaps a bomb
    told = answer.headers.get("Content-Length")
    promised = int(told) if told and answer.length is not None else None
    if promised is not None and promised > caps.max_bytes and not cut:
        raise Refused("too many bytes", f"{promised:,} promised")
    body = bytearray()
    try:
        while block := answer.read(min(_BLOCK, caps.max_bytes + 1 - len(body))):
            body += block
            if len(body) > caps.max_bytes:
                if cut:
                    return bytes(body[: caps.max_bytes])
                raise Refused("too many bytes", f"more than {caps.max_bytes:,}")
    except http.client.IncompleteRead as error:
        raise Refused("truncated answer") from error
    if promised is not None and len(body) != promised:
        raise Refused("truncated answer", f"{len(body):,} of {promised:,} bytes")
    return bytes(body)


class _Readable:
    """What http.client needs of a socket."""

    def __init__(self, raw: _Raw):
        self._raw = raw

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        return io.BufferedReader(self._raw)


class _Raw(io.RawIOBase):
    """A socket's bytes, with the deadline on every single read, and `left` of them in all.

    `left` counts what http.client would not: header after header, interim answers without end,
    extensions of chunks, trailers.
    """

    def __init__(self, sock: socket.socket, deadline: float):
        self._sock, self._deadline, self.left = sock, deadline, _MOST_HEADERS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[override]
        if self.left <= 0:
            raise http.client.HTTPException("more bytes than an honest answer has")
        self._sock.settimeout(_left(self._deadline))
        count = self._sock.recv_into(buffer)
        self.left -= count
        return count
