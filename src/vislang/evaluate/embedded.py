"""Requests met: one pass over the images of each source, or none where a store is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.sample import Source
from vislang.embed.embedder import Embedder, Part
from vislang.embed.source import UNIT, embed_source
from vislang.embed.texts import embed_texts
from vislang.evaluate.requests import Embeddings, Requests
from vislang.files import fingerprint, plain, read_json
from vislang.store import Store, open_store
from vislang.store.writer import MANIFEST

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder


def embed_requests(
    model: DualEncoder,
    tested: Source,
    training: Source | None,
    asked: Requests,
    stores: Path | None,
    how: Mapping[str, Any],
) -> tuple[Embeddings, dict[str, Any]]:
    """Everything that was asked for, and the settings under which it was embedded.

    Args:
        model: the dual encoder.
        tested: the samples to score.
        training: the samples to learn from, if there are others.
        asked: what the evaluations need together.
        stores: folder of stores to use and to add to; None keeps everything in memory.
        how: arguments of Embedder.
    """
    embeddings, settings = _embed(model, tested, asked, stores, how)
    if training is not None:
        rows, _ = _embed(model, training, replace(asked, captions=False), stores, how)
        embeddings = replace(embeddings, train=rows)
    if asked.texts:
        way = {key: how[key] for key in ("batch_size", "device", "precision")}
        embeddings = replace(
            embeddings,
            prompts={text: row for row, text in enumerate(asked.texts)},
            prompt_rows=embed_texts(model, asked.texts, **way),
        )
    return embeddings, settings


def _embed(
    model: DualEncoder, source: Source, asked: Requests, stores: Path | None, how: Mapping[str, Any]
) -> tuple[Embeddings, dict[str, Any]]:
    """One pass over a source, or none when its store is there; and the settings of it."""
    wanted = {"image": asked.images, "features": asked.features, "text": asked.captions}
    what = tuple(name for name, want in wanted.items() if want)
    embedder = Embedder(model, source, what, **how)
    settings = embedder.settings
    try:
        if stores is None:
            parts = [embedder.embed(piece) for piece in _units(source)]
            return _from_parts(parts, source), settings
    finally:
        embedder.close()
    name = re.sub(r"[^\w.-]+", "-", source.name)[:60].strip("-.") or "source"
    store = _stored(stores, name, settings)
    if store is None:
        place = stores / f"{name}-{fingerprint(settings)[:8]}"
        store = embed_source(model, source, place, what=what, **how)
    return _from_store(store, source), settings


def _stored(stores: Path, name: str, settings: Mapping[str, Any]) -> Store | None:
    """A finished store of the same settings that holds what is wanted, and perhaps more."""
    wanted = plain({key: value for key, value in settings.items() if key != "what"})
    for manifest in sorted(stores.glob(f"{name}-*/{MANIFEST}")):
        there = read_json(manifest)["settings"]
        same = all(there.get(key) == value for key, value in wanted.items())
        if same and set(settings["what"]) <= set(there["what"]) and there["dtype"] == "float32":
            return open_store(manifest.parent)
    return None


def _units(source: Source) -> list[range]:
    return [range(at, min(at + UNIT, len(source))) for at in range(0, len(source), UNIT)]


def _from_store(store: Store, source: Source) -> Embeddings:
    texts, owner = [], None
    if store.text is not None:
        texts = store.text_metadata["text"].to_pylist()
        owner = store.text_metadata["image_row"].to_numpy()
    return Embeddings(
        ids=store.metadata["id"].to_pylist(),
        label=store.metadata["label"].to_numpy(),
        classes=tuple(source.classes),
        images=store.image,
        features=store.features,
        captions=store.text,
        caption_texts=texts,
        caption_owner=owner,
        notes=_rejected(len(store.rejected), source),
    )


def _from_parts(parts: list[Part], source: Source) -> Embeddings:
    def joined(name: str) -> Any:
        rows = [getattr(part, name) for part in parts]
        return None if not rows or rows[0] is None else np.concatenate(rows)

    owners, texts, start = [], [], 0
    for part in parts:
        if part.text_metadata is not None:
            texts += part.text_metadata["text"]
            owners.append(part.text_metadata["image_row"] + start)
        start += len(part.metadata["id"])
    return Embeddings(
        ids=[id_ for part in parts for id_ in part.metadata["id"]],
        label=np.concatenate([part.metadata["label"] for part in parts]),
        classes=tuple(source.classes),
        images=joined("image"),
        features=joined("features"),
        captions=joined("text"),
        caption_texts=texts,
        caption_owner=np.concatenate(owners) if owners else None,
        notes=_rejected(sum(len(part.rejected) for part in parts), source),
    )


def _rejected(count: int, source: Source) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"{count} of {len(source)} samples of {source.name} could not be used.",)
