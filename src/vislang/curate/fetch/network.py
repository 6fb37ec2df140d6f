"""Where the downloader may connect to: public addresses alone, looked up once and then pinned."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, quote, urlsplit

from vislang.curate.fetch.names import Names, Resolver, ask_system

_TRANSLATED = (  # IPv6 addresses that end in an IPv4 address
    ipaddress.ip_network("64:ff9b::/96"),  # NAT64, RFC 6052
    ipaddress.ip_network("64:ff9b:1::/48"),  # NAT64 of one's own network, RFC 8215
    ipaddress.ip_network("::ffff:0:0:0/96"),  # IPv4-translated, RFC 2765
    ipaddress.ip_network("::/96"),  # IPv4-compatible, long deprecated
)
# Not public, whatever the standard library of an older Python says of them.
_NEVER = tuple(map(ipaddress.ip_network, (
    "192.0.0.0/24",  # IETF's own, and the metadata of one cloud
    "192.88.99.0/24", "2002::/16",  # 6to4, RFC 7526: there is no honest use left
    "168.63.129.16/32",  # a cloud's inner service on an address that looks public
    "3fff::/20",  # for documentation, RFC 9637
)))  # fmt: skip
_GLOBAL = ipaddress.ip_network("2000::/3")  # what is assigned to the public network, RFC 4291
_SAFE = "/%:=&?~+!$,;'@()*[]"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_NUMERIC = re.compile(r"(?:\d+|0x[0-9a-f]*)")  # of a host's last part: a browser reads an address
_DOTTED = re.compile(r"(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}")
MOST_URL, MOST_HOST, MOST_ADDRESSES = 8192, 253, 4


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
        ports: allowed ones besides the scheme's own (80 of http, 443 of https).
        verify: whether certificates of https must be valid.
        allow_loopback: for tests and demonstrations with a server on this machine alone; opens
            127.0.0.0/8 and ::1, nothing else.
        resolver: (host, port) -> addresses; the operating system's.
        certificates: a file of certificates to trust instead of the system's.
    """

    ports: tuple[int, ...] = ()
    verify: bool = True
    allow_loopback: bool = False
    resolver: Resolver = ask_system
    certificates: str = ""

    def split(self, url: str) -> tuple[SplitResult, str, int]:
        r"""(parts of the URL, host in ASCII, port).

        What different programs read differently is refused: control characters, backslashes,
        user names, escapes in the host, addresses written in any other way than 1.2.3.4 or [::1].

        Raises:
            Refused: not http(s), a port that is not allowed, or no URL that is read in one way.

        >>> Network().split("http://B\u00fccher.example./a")[1:]
        ('xn--bcher-kva.example', 80)
        """
        url = url.strip(" ")
        if len(url) > MOST_URL:
            raise Refused("bad URL", f"{len(url):,} characters, at most {MOST_URL:,}")
        if any(char < " " or char == "\x7f" for char in url):  # urlsplit would drop them silently
            raise Refused("bad URL", "it holds a control character")
        try:
            parts = urlsplit(url)
            url.encode()  # lone surrogates cannot be sent
            if parts.scheme not in _DEFAULT_PORTS:
                raise Refused("refused scheme", parts.scheme[:40] or "none")
            if parts.username is not None or parts.password is not None:
                raise Refused("bad URL", "it holds a user name or a password")
            default = _DEFAULT_PORTS[parts.scheme]
            host, port = host_of(parts), parts.port
            port = default if port is None else port
        except (ValueError, UnicodeError) as error:
            raise Refused("bad URL", str(error)[:200]) from error
        if port != default and port not in self.ports:
            raise Refused("refused port", str(port))
        return parts, host, port

    def resolve(self, host: str, port: int, seconds: float) -> list[str]:
        """Addresses of a host, every one of which was checked: connect to these, not to the name.

        Args:
            host: as `split` gives it.
            port: likewise.
            seconds: to wait for the answer.

        Raises:
            Refused: the host is unknown, or one of its addresses is not public.
        """
        if ":" in host or _DOTTED.fullmatch(host):
            addresses = [host]
        else:
            try:
                addresses = _names(os.getpid()).find(self.resolver, host, port, seconds)
            except TimeoutError as error:
                raise Refused("timeout", f"looking up {host}: {error}") from error
            except (OSError, UnicodeError) as error:
                raise Refused("cannot resolve", host) from error
        for address in addresses:
            self.check(address)
        if not addresses:
            raise Refused("cannot resolve", host)
        return addresses[:MOST_ADDRESSES]

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
        try:
            ip = ipaddress.ip_address(address)
        except ValueError as error:
            raise Refused("refused address", f"{address[:80]!r} is none") from error
        if self.allow_loopback and ip.is_loopback:
            return
        if getattr(ip, "scope_id", None) is not None or not all(map(_public, _meant(ip))):
            raise Refused("refused address", address)


@lru_cache(maxsize=1)
def _names(process: int) -> Names:
    """The lookups of this process; a forked child has none of its parent's threads."""
    return Names()


def host_of(parts: SplitResult) -> str:
    """The host in ASCII, lower case, without a final dot; an address without its brackets.

    Raises:
        Refused: there is none, or it is no plain name or address.
    """
    host = parts.hostname or ""
    if "[" in parts.netloc or "]" in parts.netloc:
        plain = re.fullmatch(r"\[[0-9A-Fa-f:.]+\](:\d*)?", parts.netloc)
        return str(ipaddress.IPv6Address(host)) if plain else _odd(parts.netloc)
    host = host.removesuffix(".")
    if not host:
        raise Refused("bad URL", "no host")
    if len(host) > MOST_HOST:
        raise Refused("bad URL", f"a host of {len(host):,} characters")
    host = host.encode("idna").decode("ascii").lower()
    if len(host) > MOST_HOST or not _HOST.fullmatch(host):
        return _odd(host)
    if _NUMERIC.fullmatch(host.rpartition(".")[2]):
        if not _DOTTED.fullmatch(host):
            return _odd(host)
        return str(ipaddress.IPv4Address(host))
    return host


def _odd(host: str) -> str:
    raise Refused("bad URL", f"the host {host[:80]!r} is neither a plain name nor 1.2.3.4")


def _public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL:
        return False
    if any(ip in network for network in _NEVER):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _meant(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The IPv4 addresses that an IPv6 address stands for, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped:
        return [ip.ipv4_mapped]
    if any(ip in network for network in _TRANSLATED):
        # Of one's own NAT64 the prefix may be of any length: nothing there is surely public.
        if ip in _TRANSLATED[1]:
            return [ip]
        return [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    if ip.teredo:
        return [ip, *ip.teredo]
    if (int(ip) >> 32) & 0xFFFFFFFF in (0x5EFE, 0x02005EFE):  # ISATAP, RFC 5214
        return [ip, ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    return [ip]


def request_target(parts: SplitResult) -> str:
    """Path and query as they go on the request line: ASCII, without spaces or control characters.

    >>> request_target(urlsplit("http://a/b c?d=\\u00e9"))
    '/b%20c?d=%C3%A9'
    """
    path = quote(parts.path or "/", safe=_SAFE)
    return f"{path}?{quote(parts.query, safe=_SAFE)}" if parts.query else path
