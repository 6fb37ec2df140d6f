"""All checkpoints of a run under described domains, their pictures made once for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.errors import UserError
from vislang.evaluate.checkpoints import Checkpoints, Moment, hits_of
from vislang.evaluate.provenance import versions
from vislang.evaluate.scores import Scores, write_scores
from vislang.files import fingerprint, read_json
from vislang.models.fingerprint import fingerprint_model
from vislang.models.pretrained import load_model
from vislang.models.saved import WEIGHTS
from vislang.models.swapped import Swapped
from vislang.models.weights import read_weights
from vislang.models.wise import check_alike, interpolate_states
from vislang.train.checkpoint import check_checkpoint, checkpoints
from vislang.train.log import read_log

if TYPE_CHECKING:
    from vislang.data.sample import Source
    from vislang.models.dual import DualEncoder

START = "start"


def probe_checkpoints(
    run: Path | str,
    source: Source,
    out: Path | str,
    *,
    which: Sequence[str] = ("all",),
    start: str = "",
    analysis: Checkpoints | None = None,
    shifts: Mapping[str, Any] | None = None,
    batch: int = 64,
    how: Mapping[str, Any] | None = None,
    origin: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] = print,
) -> Scores:
    """Judge the checkpoints of a run, and models on the line from its start to the best of them.

    There are two passes of making pictures: one for all checkpoints, and one for all places on the
    line, which is known only when the best is. Both resume. One model is in memory at a time.

    Args:
        run: a run folder.
        source: labelled images.
        out: folder; writes scores/<last step>/checkpoints.json, and stores/.
        which: "all", or steps.
        start: the model that all are compared with; by default the checkpoint of step 0
            (`run.checkpoint_at`), or else the earliest.
        analysis: its options.
        shifts: domains, sentences, axes, seed, words, kinds of `embed_domains`.
        batch: pictures a forward pass.
        how: device, precision, workers.
        origin: what else to note as provenance.
        on_progress: called with (images done, images).
        tell: told what is left out.

    Raises:
        UserError: no usable checkpoint, an unknown step, or images without classes.
    """
    analysis, run, out = analysis or Checkpoints(), Path(run), Path(out)
    found = usable(run, which, tell)
    length = steps_per_epoch(run, list(found.values()))
    if not start and 0 not in found:
        tell(f"There is no checkpoint of step 0: all are compared with that of step {min(found)}.")
    model = load_model(next(iter(found.values())), trusted=True)
    others = {START: load_model(start, trusted=True)} if start else {}
    states = {
        _name(step): functools.partial(read_weights, path / WEIGHTS) for step, path in found.items()
    }
    models = Swapped(model, states, others)

    def embed(some: Mapping[str, DualEncoder]) -> dict[str, Any]:  # store by name
        from vislang.embed import embed_domains

        given = dict(shifts or {})
        marks = {name: fingerprint_model(model) for name, model in some.items()}
        key = fingerprint([marks, source.fingerprint, _readable(given), batch])
        folder = out / "stores" / f"{source.name}-checkpoints-{key[:8]}".replace("/", "-")
        return embed_domains(
            some, source, folder=folder, batch=batch, on_progress=on_progress, **given,
            **dict(how or {}),
        )  # fmt: skip

    stores = embed(models)
    moments = [
        Moment(step, step / length, hits_of(stores[_name(step)]), "" if step or start else START)
        for step in found
    ]
    if start:
        moments = [Moment(0, 0.0, hits_of(stores[START]), START), *moments]
    line = {}
    if analysis.alphas and len(moments) > 1:
        top = analysis.best(moments) or len(moments) - 1
        last = list(models)[top]
        if start:
            check_alike(others[START], model)
        first = next(iter(states.values()))() if not start else others[START].cpu().state_dict()
        ends = (first, states[last]())
        between = {
            f"{last}-alpha-{alpha:g}": functools.partial(interpolate_states, *ends, alpha)
            for alpha in analysis.alphas
        }
        stores = embed(Swapped(model, between))
        line = dict(zip(analysis.alphas, map(hits_of, stores.values())))
    scores = analysis.score(moments, line)
    made = {
        "model": str(run), "start": start, "source_fingerprint": source.fingerprint,
        "settings": {**analysis.settings(), "steps_per_epoch": length,
                     "domains": list(moments[0].hits.domains), "batch_size": batch,
                     **dict(how or {})},
        "versions": versions(), **dict(origin or {}),
    }  # fmt: skip
    scores.provenance.update(made)
    write_scores(scores, out / "scores" / f"{max(found):09d}")
    return scores


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _readable(shifts: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the content of a file of words in place of its name."""
    words = shifts.get("words")
    given = words.read_text(errors="replace") if isinstance(words, Path) else words
    return {**shifts, "words": given, "domains": [str(d) for d in shifts.get("domains", ())]}


def usable(run: Path, which: Sequence[str], tell: Callable[[str], None]) -> dict[int, Path]:
    """Step -> checkpoint, in order; those that cannot be read are told of and left out."""
    every = {int(path.name): path for path in checkpoints(run)}
    if not every:
        raise UserError(f"{run} has no checkpoints, so it is no run folder that was trained.")
    if list(which) != ["all"]:
        wanted = [int(text) if str(text).isdecimal() else -1 for text in which]
        if missing := [text for text, step in zip(which, wanted) if step not in every]:
            raise UserError(
                f"{run} has no checkpoint of step {missing[0]!r}. It has"
                f" {', '.join(map(str, every))}; or give all."
            )
        every = {step: every[step] for step in sorted(set(wanted))}
    found = {}
    for step, path in every.items():
        if why := check_checkpoint(path):
            tell(f"The checkpoint {path.name} is left out: {why}.")
        else:
            found[step] = path
    if not found:
        raise UserError(f"No checkpoint of {run} can be used: see above.")
    return found


def steps_per_epoch(run: Path, paths: Sequence[Path]) -> float:
    """Steps of an epoch of this run: what its checkpoints say, or its log.

    The number of *this* run's batches: an axis of epochs that is drawn with another run's is wrong
    by their ratio.
    """
    for path in paths:
        state = read_json(path / "state.json")
        if state.get("steps_per_epoch"):
            return float(state["steps_per_epoch"])
        if state.get("epoch"):
            return (state["step"] - state["position"]) / state["epoch"]
    for entry in reversed(read_log(run)):
        if entry.get("kind") == "train" and entry.get("epoch"):
            return entry["step"] / entry["epoch"]
    raise UserError(f"Neither checkpoints nor log of {run} say how many steps an epoch has.")
