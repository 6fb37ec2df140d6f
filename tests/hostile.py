"""A web server on loopback that answers as the open web does: well, badly, and with malice."""

import contextlib
import gzip
import io
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from loopback import running
from pictures import jpeg


def _bomb() -> bytes:
    out = io.BytesIO()
    Image.new("1", (12_000, 10_000)).save(out, "PNG")
    return out.getvalue()


BOMB = _bomb()  # 120 million pixels in 15 kB


class Hostile(BaseHTTPRequestHandler):
    """Paths tell what to do; /good/<n>.jpg is a picture."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        kind = self.path.strip("/").partition("/")[0].partition(".")[0]
        with contextlib.suppress(OSError):
            getattr(self, f"do_{kind}", self.do_missing)()
        self.close_connection = True

    def send(self, body: bytes, status: int = 200, length: int | None = None, **headers) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_good(self) -> None:
        number = int("".join(c for c in self.path if c.isdigit()) or 0)
        if self.server.wait_s:
            time.sleep(self.server.wait_s)
        self.send(jpeg(number, 40 + number % 7, 60))

    def do_missing(self) -> None:
        self.send(b"no", 404)

    def do_robots(self) -> None:
        self.send(b"User-agent: *\nDisallow: /closed/\n")

    do_closed = do_private = do_good

    def do_html(self) -> None:
        self.send(b"<html>404 but 200</html>", Content_Type="image/jpeg")

    def do_optout(self) -> None:
        self.send(jpeg(1), X_Robots_Tag="noai")

    def do_optother(self) -> None:
        self.send(jpeg(1), X_Robots_Tag="otherbot: noai")

    def do_reserved(self) -> None:
        self.send(jpeg(1), TDM_Reservation="1")

    def do_short(self) -> None:
        self.send(jpeg(1), length=10**5)

    def do_promise(self) -> None:
        self.send(b"x", length=10**12)

    def do_endless(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    def do_bomb(self) -> None:
        self.send(gzip.compress(bytes(10**6)), Content_Encoding="gzip")

    def do_pixels(self) -> None:
        self.send(BOMB)

    def do_hang(self) -> None:
        time.sleep(8)

    def do_drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(120):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)

    def do_header(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n")

    def do_garbage(self) -> None:
        self.wfile.write(b"\x00\x01\x02 not http\r\n\r\n")

    def do_to(self) -> None:
        self.send(b"", 302, Location=self.server.targets[self.path.rpartition("/")[2]])

    def do_loop(self) -> None:
        self.send(b"", 301, Location=self.path)

    def raw(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def do_headers(self) -> None:  # 99 of 8,000 bytes each: within http.client's own limits
        self.raw(
            b"HTTP/1.1 200 OK\r\n" + b"".join(b"X: " + b"y" * 8000 + b"\r\n" for _ in "x" * 99)
        )
        self.raw(b"\r\n")

    def do_many(self) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n")

    def do_continue(self) -> None:
        for _ in range(100_000):
            self.raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    def do_extensions(self) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10_000):
            self.raw(b"1;" + b"e" * 60_000 + b"\r\nx\r\n")

    def do_trailers(self) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        for _ in range(10_000):
            self.raw(b"t: " + b"e" * 60_000 + b"\r\n")

    def do_negative(self) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + jpeg(1))

    def do_longer(self) -> None:  # more than was promised: the rest is not read
        body = jpeg(1)
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for _ in range(1000):
            self.raw(body)

    def do_nine(self) -> None:  # HTTP/0.9
        self.raw(jpeg(1))

    def do_nowhere(self) -> None:
        self.raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")

    def do_dripped(self) -> None:  # the headers
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" * 50:
                self.raw(bytes([byte]))
                time.sleep(0.05)

    def do_twice(self) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\n")
        self.raw(gzip.compress(bytes(10**6)))

    def do_bytes(self) -> None:
        self.send(self.server.bodies[self.path.rpartition("/")[2]], Content_Type="image/jpeg")

    def do_busy(self) -> None:
        self.send(b"", 429, Retry_After="1")

    def do_flaky(self) -> None:
        if self.server.asked[self.path] < 2:
            self.send(b"", 503)
        else:
            self.do_good()

    def log_message(self, *args) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hostile)
        self.asked: Counter = Counter()
        self.targets: dict[str, str] = {}
        self.bodies: dict[str, bytes] = {}
        self.wait_s = 0.0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    with running(Server()) as server:
        yield server
