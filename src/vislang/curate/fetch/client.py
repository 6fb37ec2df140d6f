"""One GET over http or https with limits that hold against a hostile server.

Every hop of a redirect is checked like the first URL; the address that was checked is the address
that is connected to; one deadline counts for everything after the name was looked up, however
slowly bytes trickle.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urljoin

from vislang.curate.fetch.network import Network, Refused, request_target

_REDIRECTS = (301, 302, 303, 307, 308)
_BLOCK = 1 << 16


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
) -> Answer:
    """Fetch a URL.

    Args:
        url: http or https.
        network: where one may connect to.
        caps: limits.
        may: called with the URL of every hop before it is asked for; raises Refused.
        look: called with the headers of the last answer before its body is read; raises Refused.

    Raises:
        Refused: for any reason at all.
    """
    deadline = time.monotonic() + caps.seconds
    for hop in range(caps.redirects + 1):
        parts, host, port = network.split(url)
        address = network.resolve(host, port)
        if may:  # it asks the site itself, under limits of its own: not on this picture's time
            began = time.monotonic()
            may(url)
            deadline += time.monotonic() - began
        if time.monotonic() > deadline:
            raise Refused("timeout", "before connecting")
        try:
            with _connect(address, host, port, parts.scheme, network, deadline) as sock:
                sock.sendall(_request(request_target(parts), host, parts.port, caps.agent))
                answer = http.client.HTTPResponse(_Timed(sock, deadline))  # type: ignore[arg-type]
                try:
                    answer.begin()
                    if answer.status not in _REDIRECTS:
                        body = _read(answer, caps, look)
                        return Answer(body, answer.headers, url, hop)
                    url = urljoin(url, answer.headers.get("Location") or "")
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


def _connect(
    address: str, host: str, port: int, scheme: str, network: Network, deadline: float
) -> socket.socket:
    sock = socket.create_connection((address, port), timeout=_left(deadline))
    if scheme == "http":
        return sock
    try:
        sock.settimeout(_left(deadline))
        return _tls(network.verify).wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


@lru_cache(maxsize=2)
def _tls(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
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
) -> bytes:
    if answer.status != 200:
        raise Refused(f"http {answer.status}")
    if look:
        look(answer.headers)
    if answer.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refused("encoded answer", "it was asked for plain bytes")  # perhaps a bomb
    told = answer.headers.get("Content-Length")
    promised = int(told) if told and answer.length is not None else None
    if promised is not None and promised > caps.max_bytes:
        raise Refused("too many bytes", f"{promised:,} promised")
    body = bytearray()
    try:
        while block := answer.read(min(_BLOCK, caps.max_bytes + 1 - len(body))):
            body += block
            if len(body) > caps.max_bytes:
                raise Refused("too many bytes", f"more than {caps.max_bytes:,}")
    except http.client.IncompleteRead as error:
        raise Refused("truncated answer") from error
    if promised is not None and len(body) != promised:
        raise Refused("truncated answer", f"{len(body):,} of {promised:,} bytes")
    return bytes(body)


class _Timed:
    """What http.client needs of a socket, with the deadline on every single read."""

    def __init__(self, sock: socket.socket, deadline: float):
        self._sock, self._deadline = sock, deadline

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        return io.BufferedReader(_Raw(self._sock, self._deadline))


class _Raw(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: float):
        self._sock, self._deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[override]
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)
