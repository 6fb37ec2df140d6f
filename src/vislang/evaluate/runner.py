"""The one runner: every evaluation from a single pass over the images of each source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.decode import Limits
from vislang.data.sample import Source
from vislang.embed.embedder import Embedder, Part
from vislang.embed.source import UNIT, embed_source
from vislang.embed.texts import embed_texts
from vislang.errors import UserError
from vislang.evaluate import EVALUATIONS
from vislang.evaluate.requests import Embeddings, Evaluation, Requests
from vislang.evaluate.scores import Scores, write_scores
from vislang.files import fingerprint, plain, read_json
from vislang.lookup import lookup, nearest
from vislang.store import Store, open_store
from vislang.store.writer import MANIFEST

if TYPE_CHECKING:
    from vislang.models.dual import DualEncoder


def evaluate(
    model: DualEncoder | str | Path,
    source: Source | str | Path,
    names: Sequence[str],
    folder: Path | str,
    *,
    train_source: Source | str | Path | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    source_options: Mapping[str, Any] | None = None,
    train_options: Mapping[str, Any] | None = None,
    step: int | str = 0,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    limits: Limits = Limits(),  # noqa: B008  frozen
    keep_store: bool = True,
) -> list[Scores]:
    """Run any set of evaluations on one model and one source.

    What they all need is embedded once; stores in `<folder>/stores` are used again when nothing
    that they depend on has changed. Each evaluation writes
    `<folder>/scores/<step>/<evaluation>.json` with tables as CSV and Markdown beside it. An
    evaluation that fails does not stop the others; the first failure is raised at the end.

    Args:
        model: a dual encoder, or a MODEL of the commands.
        source: test samples: a source, or a SOURCE of the commands.
        names: keys of EVALUATIONS.
        folder: usually the run folder.
        train_source: samples that probe, knn and fewshot learn from. Without one, `source` is
            divided (stratified and seeded), which the notes and the provenance say.
        options: evaluation -> arguments of its constructor.
        source_options, train_options: arguments of the layouts, where the sources are text.
        step: of the model; names the folder of the scores.
        batch_size, device, precision, workers, limits: how images are embedded.
        keep_store: write the embeddings to disk; False keeps them in memory only.

    Raises:
        UserError: an unknown evaluation or option, or a source or model that lacks what one needs.
    """
    evaluations = build_evaluations(names, options or {})
    origin = _Origin(model, source, dict(source_options or {}), train_source, step)
    encoder = _open_model(model)
    tested = _open_source(source, source_options)
    asked = {e.name: _requests(e, tested, encoder) for e in evaluations}
    everything = Requests()
    for request in asked.values():
        everything = everything | request
    how: dict[str, Any] = {
        "batch_size": batch_size, "device": device, "precision": precision, "workers": workers,
        "limits": limits,
    }  # fmt: skip
    stores = Path(folder) / "stores" if keep_store else None
    embeddings, settings = _embed(encoder, tested, everything, stores, how)
    training = None
    if everything.train and train_source is not None:
        training = _open_source(train_source, train_options)
        _same_classes(tested, training)
        rows, _ = _embed(encoder, training, replace(everything, captions=False), stores, how)
        embeddings = replace(embeddings, train=rows)
    if everything.texts:
        how = {key: how[key] for key in ("batch_size", "device", "precision")}
        embeddings = replace(
            embeddings,
            prompts={text: row for row, text in enumerate(everything.texts)},
            prompt_rows=embed_texts(encoder, everything.texts, **how),
        )
    found, failures = [], []
    for evaluation in evaluations:
        try:
            scores = evaluation.score(embeddings)
        except UserError as error:
            failures.append(f"{evaluation.name}: {error}")
            continue
        made = origin.provenance(evaluation, settings, tested, training, asked[evaluation.name])
        scores = replace(scores, provenance=made)
        write_scores(scores, Path(folder) / "scores" / _step_name(step))
        found.append(scores)
    if failures:
        kept = f" The other {len(found)} are written." if found else ""
        raise UserError(" ".join(failures) + kept)
    return found


def build_evaluations(
    names: Sequence[str], options: Mapping[str, Mapping[str, Any]]
) -> list[Evaluation]:
    """The evaluations of these names; options for one that is not asked for are an error."""
    if not names:
        raise UserError(f"Name at least one evaluation: {', '.join(EVALUATIONS)}.")
    for name in options:
        if name not in names:
            raise UserError(
                f"There are options for {name!r}, which is not among the evaluations asked for:"
                f" {', '.join(names)}.{nearest(name, names)}"
            )
    return [build_evaluation(name, options.get(name, {})) for name in dict.fromkeys(names)]


def build_evaluation(name: str, options: Mapping[str, Any] | None = None) -> Evaluation:
    """One evaluation; an unknown option is an error that names the known ones."""
    made = lookup("evaluation", EVALUATIONS, name)
    known = [key for key in inspect.signature(made).parameters if key != "self"]
    for key in options or {}:
        if key not in known:
            raise UserError(
                f"The evaluation {name!r} has no option {key!r}.{nearest(key, known)}"
                f" Known: {', '.join(known) or 'none'}."
            )
    return made(**(options or {}))


def _open_model(model: DualEncoder | str | Path) -> DualEncoder:
    if isinstance(model, str | Path):
        from vislang.models.pretrained import load_model

        return load_model(str(model))
    return model


def _open_source(source: Source | str | Path, options: Mapping[str, Any] | None) -> Source:
    if isinstance(source, str | Path):
        from vislang.data.sources import open_source

        return open_source(source, **(options or {}))
    return source


def _requests(evaluation: Evaluation, source: Source, model: DualEncoder) -> Requests:
    """What an evaluation asks for, when the model can give it."""
    asked = evaluation.requests(source)
    if model.text is None and asked.text_optional:
        asked = replace(asked, captions=False, texts=())
    try:
        if asked.images or asked.features:
            model.side("image")
        if asked.captions or asked.texts:
            model.side("text")
    except UserError as error:
        raise UserError(f"The evaluation {evaluation.name!r}: {error}") from error
    return asked


def _same_classes(source: Source, train: Source) -> None:
    if source.classes and train.classes and source.classes != train.classes:
        both = zip(source.classes, train.classes)
        first = next(((a, b) for a, b in both if a != b), None)
        what = (
            f"the first that differs is {first[0]!r} against {first[1]!r}"
            if first
            else f"there are {len(source.classes)} against {len(train.classes)}"
        )
        raise UserError(
            f"The sources {source.name!r} and {train.name!r} do not have the same classes in the"
            f" same order: {what}. Give both the same list of classes."
        )


def _embed(
    model: DualEncoder, source: Source, asked: Requests, stores: Path | None, how: dict[str, Any]
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


def _step_name(step: int | str) -> str:
    return f"{step:09d}" if isinstance(step, int) else str(step)


class _Origin:
    """What was evaluated, as the user named it."""

    def __init__(self, model, source, source_options, train_source, step):
        self.model = str(model) if isinstance(model, str | Path) else "in memory"
        self.source = self._named(source)
        self.train = None if train_source is None else self._named(train_source)
        self.source_options, self.step = source_options, step

    @staticmethod
    def _named(source: Source | str | Path) -> str:
        return str(source) if isinstance(source, str | Path) else source.name

    def provenance(
        self,
        evaluation: Evaluation,
        settings: Mapping[str, Any],
        source: Source,
        training: Source | None,
        asked: Requests,
    ) -> dict[str, Any]:
        """Everything that the numbers depend on."""
        how = {
            key: settings[key] for key in ("preprocess", "precision", "batch_size", "device")
        } | {"limits": settings["limits"]}
        made: dict[str, Any] = {
            "model": self.model,
            "model_fingerprint": settings["model"],
            "source": self.source,
            "source_options": self.source_options,
            "source_fingerprint": source.fingerprint,
            "step": self.step,
            "settings": evaluation.settings() | how,
            "versions": versions(),
        }
        if asked.train:
            made["train_source"] = self.train if training else f"a part of {self.source}"
            trained_on = training.fingerprint if training else "a part of the source"
            made["settings"]["train"] = trained_on
        return made


def versions() -> dict[str, str]:
    """Versions of the packages that numbers may depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("vislang", "torch", "numpy", "scipy", "scikit-learn", "pillow", "open_clip_torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
