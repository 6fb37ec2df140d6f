"""Where the downloader may connect to: public addresses alone, looked up once and then pinned."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64, RFC 6052
_SAFE = "/%:=&?~+!$,;'@()*[]"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Refused(Exception):
    """A URL that was not fetched; `kind` is the status in the ledger, `detail` says more."""

    def __init__(self, kind: str, detail: str = ""):
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


@dataclass(frozen=True)
class Network:
    """What may be connected to.

    Private, link-local, loopback, multicast and reserved addresses are refused, in IPv4 and in
    IPv6 and where the one is wrapped in the other, whatever name led to them. A host with one
    such address is refused as a whole.

    Args:
        ports: allowed ones.
        verify: whether certificates of https must be valid.
        allow_loopback: for tests and demonstrations with a server on this machine alone; opens
            127.0.0.0/8 and ::1, nothing else.
    """

    ports: tuple[int, ...] = (80, 443, 8080, 8443)
    verify: bool = True
    allow_loopback: bool = False

    def split(self, url: str) -> tuple[SplitResult, str, int]:
        """(parts of the URL, host in ASCII, port).

        Raises:
            Refused: not http(s), credentials, a port that is not allowed, or no URL at all.
        """
        try:
            parts = urlsplit(url.strip())
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
            host = (parts.hostname or "").rstrip(".")
            host = host if ":" in host else host.encode("idna").decode("ascii")
        except (ValueError, UnicodeError) as error:
            raise Refused("bad URL", str(error)) from error
        if parts.scheme not in _DEFAULT_PORTS:
            raise Refused("refused scheme", parts.scheme or "none")
        if not host:
            raise Refused("bad URL", "no host")
        if parts.username is not None or parts.password is not None:
            raise Refused("bad URL", "it holds a user name or a password")
        if port not in self.ports:
            raise Refused("refused port", str(port))
        return parts, host, port

    def resolve(self, host: str, port: int) -> str:
        """One address of a host, every one of which was checked; connect to it, not to the name.

        Raises:
            Refused: the host is unknown, or one of its addresses is not public.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Refused("cannot resolve", host) from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            self.check(address)
        return addresses[0]

    def check(self, address: str) -> None:
        """Refuse an address that is not public.

        >>> Network().check("93.184.215.14")
        >>> for address in ("10.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%eth0"):
        ...     try:
        ...         Network().check(address)
        ...     except Refused as refused:
        ...         print(refused.kind)
        refused address
        refused address
        refused address
        refused address
        """
        ip = ipaddress.ip_address(address.partition("%")[0])
        for inner in _wrapped(ip):
            if self.allow_loopback and inner.is_loopback:
                continue
            if not inner.is_global or inner.is_multicast or inner.is_reserved:
                raise Refused("refused address", address)


def _wrapped(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The IPv4 addresses that an IPv6 address stands for, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped:
        return [ip.ipv4_mapped]
    if ip in _TRANSLATED or (int(ip) >> 32 == 0 and int(ip) > 1):  # ::a.b.c.d, long deprecated
        return [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    if ip.sixtofour:
        return [ip, ip.sixtofour]
    if ip.teredo:
        return [ip, *ip.teredo]
    return [ip]


def request_target(parts: SplitResult) -> str:
    """Path and query as they go on the request line: ASCII, without spaces or control characters.

    >>> request_target(urlsplit("http://a/b c?d=\\u00e9"))
    '/b%20c?d=%C3%A9'
    """
    path = quote(parts.path or "/", safe=_SAFE)
    return f"{path}?{quote(parts.query, safe=_SAFE)}" if parts.query else path
