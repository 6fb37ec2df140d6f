"""A store of images x domains with its prompts, readable by (image, domain) without loading it.

    <folder>/img_emb/img_emb_0000.npy        [T n, D]  a part: n images, domain after domain
    <folder>/metadata/metadata_0000.parquet  T n rows: id, index, label, domain, reason
    <folder>/rejected.parquet                images under a domain that have no embedding
    <folder>/manifest.json                   settings: domains, classes, words, official
    <folder>/prompts/                        a store of the distinct prompts: text_emb, metadata

Both folders are stores of the usual layout. Every image has a row in every domain; the row of a
pair that failed is zero and its `reason` is not null.

N: images, n: those of a part, T: domains, D: width, C: classes, m: distinct prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vislang.errors import UserError
from vislang.lookup import nearest
from vislang.store.domain_rows import DomainRows
from vislang.store.reader import open_store

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64

    from vislang.store.reader import Store

KINDS = ("standard", "own", "official")
STANDARD = "noop"  # the domain whose templates are the standard ones


class Missing(NamedTuple):
    """An image that has no embedding under a domain: its position, the domain's name, and why."""

    image: int
    domain: str
    reason: str


class Block(NamedTuple):
    """Rows of one domain: its position, that of the first image, and the rows [n, D]."""

    domain: int
    image: int
    rows: np.ndarray


class DomainStore:
    """Embeddings of the same images under every domain, and of the prompts about them.

    Attributes:
        folder: where it lies.
        images: the store of image embeddings as such (one row an image and domain).
        domains: names, in the order of `domain_indices`.
        templates: domain -> its templates, each with {} for the class word.
        classes: class names, in the order of the labels; empty where the source has none.
        words: for each class, all words that stand for it.
        width: D.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.images: Store = open_store(self.folder)
        about = self.images.settings.get("domains")
        if not about:
            raise UserError(
                f"{self.folder} is a store, but not one of images under domains."
                " `vislang probe` makes such a store of a model and a source."
            )
        self.domains = tuple(domain["name"] for domain in about)
        self.templates = {domain["name"]: tuple(domain["templates"]) for domain in about}
        self.classes = tuple(self.images.settings.get("classes", ()))
        self.words = tuple(map(tuple, self.images.settings.get("words", ())))
        self._official: Mapping[str, Any] = self.images.settings.get("official") or {}
        rows = self.images.image
        if rows is None:
            raise UserError(f"{self.folder} has no image embeddings. Embed the source anew.")
        self._rows, self.width = rows, rows.shape[1]
        self._counts = np.array(rows.counts, np.int64) // len(self.domains)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])

    def __len__(self) -> int:
        """N, images; those that could not be read are counted."""
        return int(self._starts[-1])

    def __repr__(self) -> str:
        name = str(self.folder)
        return f"DomainStore({name!r}: {len(self):,} images x {len(self.domains)} domains)"

    def domain_index(self, domain: str) -> int:
        """Position of a domain; an unknown name is a UserError."""
        if domain not in self.domains:
            raise UserError(
                f"{self.folder} has no domain {domain!r}.{nearest(domain, self.domains)}"
                f" It has {', '.join(self.domains)}."
            )
        return self.domains.index(domain)

    def rows(self, domain: str) -> DomainRows:
        """All images under one domain: read like an array [N, D], from the disk as asked."""
        return DomainRows(self, self.domain_index(domain))

    def take(
        self,
        image_indices: Sequence[int] | np.ndarray,
        domain_indices: Sequence[int] | np.ndarray | int,
    ) -> Float[np.ndarray, "n D"]:
        """The rows of pairs (image, domain), in the order given; a missing pair's row is zero.

        Args:
            image_indices: positions of images, [n].
            domain_indices: positions in `domains`, [n], or one for all.
        """
        image, domain = np.broadcast_arrays(
            np.asarray(image_indices, np.int64), np.asarray(domain_indices, np.int64)
        )
        for values, most in ((image, len(self)), (domain, len(self.domains))):
            if values.size and (values.min() < 0 or values.max() >= most):
                raise IndexError(
                    f"indices must be in 0..{most - 1}, got {values.min()}..{values.max()}"
                )
        return self._rows[self.row_numbers(image, domain)]

    def stream(self, size: int = 4096) -> Iterator[Block]:
        """Every row once, in the order on disk, in blocks of at most `size` rows."""
        for number, first in enumerate(self._starts[:-1].tolist()):
            count = int(self._counts[number])
            part = self._rows.part(number).reshape(len(self.domains), count, self.width)
            for domain in range(len(self.domains)):
                for at in range(0, count, size):
                    yield Block(domain, first + at, part[domain, at : at + size])

    def row_numbers(self, image: np.ndarray, domain: np.ndarray | int) -> np.ndarray:
        """Where pairs lie among the rows of `images`."""
        part = np.searchsorted(self._starts, image, side="right") - 1
        within = image - self._starts[part]
        return self._rows.starts[part] + domain * self._counts[part] + within

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the samples, [N]."""
        return self._first("id")

    @cached_property
    def labels(self) -> Int64[np.ndarray, " N"]:
        """Class indices, -1 for none."""
        return np.array(self._first("label"), np.int64)

    @cached_property
    def indices(self) -> Int64[np.ndarray, " N"]:
        """Positions of the samples in their source."""
        return np.array(self._first("index"), np.int64)

    @cached_property
    def missing(self) -> list[Missing]:
        """Pairs without an embedding, in the order of images, then of domains."""
        import pyarrow.compute as pc

        reasons = self.images.metadata["reason"].combine_chunks()
        rows = np.flatnonzero(pc.is_valid(reasons).to_numpy(zero_copy_only=False))  # type: ignore[attr-defined]
        part = np.searchsorted(self._rows.starts, rows, side="right") - 1
        domain, within = np.divmod(rows - self._rows.starts[part], self._counts[part])
        image = self._starts[part] + within
        return [
            Missing(int(image[k]), self.domains[domain[k]], reasons[int(rows[k])].as_py())
            for k in np.lexsort((domain, image))
        ]

    def present(self, domain: str) -> Bool[np.ndarray, " N"]:
        """Which images have an embedding under this domain."""
        self.domain_index(domain)
        found = np.ones(len(self), bool)
        found[[gap.image for gap in self.missing if gap.domain == domain]] = False
        return found

    @cached_property
    def complete(self) -> Bool[np.ndarray, " N"]:
        """Which images have an embedding under every domain."""
        found = np.ones(len(self), bool)
        found[[gap.image for gap in self.missing]] = False
        return found

    def prompts(
        self, kind: str = "own", domain: str = STANDARD, *, raw: bool = False
    ) -> Float[np.ndarray, "C D"]:
        """One row a class, float64: unit(mean over its words and the templates of unit(text)).

        Args:
            kind: "standard" (templates of the domain noop, whatever `domain` says), "own"
                (those of `domain`), or "official" (ImageNet's 80 templates and curated names).
            domain: for kind "own".
            raw: the mean of the embeddings as they are, nothing normalised.
        """
        if kind not in KINDS:
            raise UserError(f"The kind of prompts must be one of {', '.join(KINDS)}, got {kind!r}.")
        if not self.classes:
            raise UserError(f"{self.folder} has no classes, so there are no prompts about them.")
        if kind == "official":
            if not self._official:
                raise UserError(f"{self.folder} was made without the official prompts.")
            templates = self._official["templates"]
            words: Sequence[Sequence[str]] = [[name] for name in self._official["names"]]
        else:
            templates = self.templates[self._of(STANDARD if kind == "standard" else domain)]
            words = self.words
        texts = [[t.replace("{}", w) for w in some for t in templates] for some in words]
        return self._class_rows(texts, raw)

    def text(self, prompt: str) -> Float[np.ndarray, " D"]:
        """The embedding of one prompt as the model gave it."""
        return self._text_rows([prompt])[0]

    def _of(self, domain: str) -> str:
        return self.domains[self.domain_index(domain)] if domain != STANDARD else self._standard()

    def _standard(self) -> str:
        if STANDARD not in self.templates:
            raise UserError(
                f"{self.folder} has no domain {STANDARD!r}, whose templates are the standard ones."
                f" Embed with {STANDARD} among the domains."
            )
        return STANDARD

    def _class_rows(self, texts: Sequence[Sequence[str]], raw: bool) -> np.ndarray:
        counts = np.array([len(some) for some in texts])
        rows = self._text_rows([text for some in texts for text in some]).astype(np.float64)
        if not raw:
            rows = _unit(rows)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        means = np.add.reduceat(rows, starts, axis=0) / counts[:, None]
        return means if raw else _unit(means)

    def _text_rows(self, texts: Sequence[str]) -> np.ndarray:
        place, rows = self._prompts
        unknown = next((text for text in texts if text not in place), None)
        if unknown is not None:
            raise UserError(f"{self.folder} has no embedding of the prompt {unknown!r}.")
        return rows[np.array([place[text] for text in texts], np.int64)]

    @cached_property
    def _prompts(self) -> tuple[dict[str, int], np.ndarray]:
        if not (self.folder / "prompts").is_dir():
            raise UserError(
                f"{self.folder} has no prompts: the source has no classes, or the model no text"
                " side. Use a source with classes and a model with both sides."
            )
        store = open_store(self.folder / "prompts")
        texts = store.metadata["text"].to_pylist()
        return {text: row for row, text in enumerate(texts)}, np.asarray(store.text)

    def _first(self, column: str) -> list[Any]:
        """A column of the metadata, once an image."""
        values = self.images.metadata[column]
        return [
            value
            for begin, count in zip(self._rows.starts.tolist(), self._counts.tolist())
            for value in values.slice(begin, count).to_pylist()
        ]


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
