"""What is refused before the first batch: a source, a size or views that do not fit the needs."""

from __future__ import annotations

from collections.abc import Sequence

from vislang.data.pieces import of_partner
from vislang.data.sample import Source
from vislang.errors import UserError


def check_needs(source: Source, needs: Sequence[str]) -> None:
    """Refuse a source that does not give what is needed, naming sources that do."""
    from vislang.data.sources import which_give

    kinds = {key.partition("_")[0] for key in needs}
    unknown = sorted(kinds - {"image", "text", "label"})
    if unknown:
        raise UserError(
            f"A batch cannot hold {', '.join(unknown)}. Known: image, image_2 ...,"
            " image_crop_1 ..., text, text_2 ..., label."
        )
    missing = sorted(kinds - set(source.gives))
    if missing:
        raise UserError(
            f"The source {source.name!r} gives {', '.join(sorted(source.gives)) or 'nothing'},"
            f" but {', '.join(missing)} is needed too.{_remedy(source, missing)}"
            f" Layouts that can give {', '.join(sorted(kinds))}: {which_give(kinds)};"
            f" or choose {_doing_without(missing)}."
        )


def _remedy(source: Source, missing: list[str]) -> str:
    """What this very source could do to give what is missing."""
    from vislang.data.sources import GIVES, layout_of

    if missing == ["text"] and source.classes and hasattr(source, "templates"):
        return " Its class names become captions by the option template 'a photo of a {}.'"
    parts: Sequence[Source] = getattr(source, "parts", ())
    poor = [part.name for part in parts if not set(missing) <= set(part.gives)]
    if poor:
        return f" Of its parts, {', '.join(poor)} {'lacks' if len(poor) == 1 else 'lack'} it."
    layout = layout_of(source)
    if layout and not parts and set(missing) <= GIVES[layout]:
        return f" Its layout, {layout}, gives it where the files have it: see its options."
    return ""


# What trains without a kind of input, for the message when it is missing.
_WITHOUT = {
    "label": "clip and siglip need images and captions only; dino, swav and ntxent images only",
    "text": "dino, swav, ntxent, byol and simsiam need images only",
    "image": "simcse needs texts only",
}


def _doing_without(missing: list[str]) -> str:
    known = [_WITHOUT[kind] for kind in missing if kind in _WITHOUT]
    return "an objective that does without" + (f" ({'; '.join(known)})" if known else "")


def check_sizes(
    source: Source, batch_size: int, workers: int, world: int, drop_last: bool, episode: int
) -> None:
    """Refuse a batch that the processes cannot share, or that the epoch cannot fill."""
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    if workers < 0:
        raise UserError(f"workers must be 0 or more, got {workers}.")
    if episode < 0:
        raise UserError(
            f"episode must be the samples of an epoch, or 0 for the whole source; got {episode}."
        )
    if batch_size % world:
        raise UserError(
            f"The global batch of {batch_size} does not divide by {world} processes:"
            f" use {batch_size - batch_size % world or world} or another multiple of {world}."
        )
    n = episode or len(source)
    if drop_last and batch_size > n:
        what = "episode" if episode else f"source {source.name!r}"
        more = " or longer episodes" if episode else ""
        raise UserError(
            f"A batch of {batch_size:,} is larger than the {what} with its {n:,} samples:"
            f" use a batch_size of at most {n:,}{more}."
        )


def check_views(
    keys: Sequence[str], augments: Sequence[str], field: str, paired: bool = False
) -> None:
    """Refuse views that would be the same picture, because nothing random is done to two of them.

    Args:
        keys: the views.
        augments: the augment of each.
        field: which field says it, for the message.
        paired: whether the views with even numbers show another sample.
    """
    plain = [key for key, name in zip(keys, augments) if name == "none"]
    for partner in (False, True):
        same = [key for key in plain if (paired and of_partner(key)) == partner]
        if len(same) < 2:
            continue
        raise UserError(
            f"The views {', '.join(same)} would be identical: {field} is 'none' for them."
            f" Set {field} to a random one ({_random_augments()}), or to one name for each view,"
            " as in 'none,simclr', or use a source of pairs, whose views with even numbers show a"
            " neighbour (`vislang curate neighbours`)."
        )


def _random_augments() -> str:
    from vislang.data import AUGMENTS

    return ", ".join(name for name in AUGMENTS if name != "none")
