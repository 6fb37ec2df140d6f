"""Searching at the loopback providers, as the tests of pictures do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from providers import Handler, Server, providing
from vislang.curate.images import PROVIDERS, Searching, search_images
from vislang.curate.images.asking import Asking, Manners

ALL = tuple(PROVIDERS)
QUICK = Manners(tries=4, wait_s=0.01, seconds=5)


@pytest.fixture(name="server")
def provided(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("UNSPLASH_ACCESS_KEY", "a-key")
    monkeypatch.delenv("OPENVERSE_TOKEN", raising=False)
    with providing() as made:
        yield made


def search(server: Server, out: Path, words=("sun", "moon"), providers=("openverse",), how=None,
           manners: Manners = QUICK, **more: Any) -> dict[str, Any]:  # fmt: skip
    return search_images(
        list(words), out, providers, how or Searching(per_word=0), endpoints=server.endpoints,
        manners=manners, say=lambda line: None, **more,
    )  # fmt: skip


def pictures(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "images.parquet").to_pylist()


def once(*replies: dict[str, Any]):
    """A trick that gives these replies first, in turn."""
    left = list(replies)

    def trick(handler: Handler, name: str, query: dict[str, str]) -> bool:
        if not left:
            return False
        reply = dict(left.pop(0))
        handler.send(reply.pop("body", {"errors": ["no"]}), **reply)
        return True

    return trick


def waits(monkeypatch) -> list[float]:
    """Seconds that were to be waited for; nobody waits."""
    waited: list[float] = []
    now = [1000.0]

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("vislang.curate.images.asking.time.monotonic", lambda: now[0])
    monkeypatch.setattr(Asking.__init__, "__defaults__",
                        (*Asking.__init__.__defaults__[:-1], sleep))  # fmt: skip
    return waited
