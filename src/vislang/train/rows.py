"""What an objective sees of a batch: each needed key embedded, from whatever the batch holds."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

EMBEDDED = ("image", "text")  # keys with these first words go through a tower
FEATURES = "_features"  # keys with this last word are a tower's output before its head
TEACHER = "_teacher"  # keys with this last word are embedded by the momentum teacher
CAPTION = "caption_"  # keys with these first letters come from the model's text decoder

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


def is_embedded(key: str) -> bool:
    """Whether a batch key is turned into embeddings (the others, such as label, pass through)."""
    return key.split("_")[0] in EMBEDDED


def embed_rows(
    model: nn.Module,
    rows: Mapping[str, Tensor],
    needs: tuple[str, ...],
    autocast: Autocast = contextlib.nullcontext,
    teacher: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Everything that an objective needs of these rows: embeddings in fp32, the rest as it is.

    A needed key without an input of its own is embedded from the key's first word again: `text_2`
    from `text` (another draw of dropout, as SimCSE asks), `image_teacher` from `image`.
    `image_features` is the tower's output before the head. Where the batch itself holds
    `text_features` (a frozen tower's, computed once), the tower does not run.
    """
    embedded = [key for key in needs if is_embedded(key)]
    plain = [key for key in embedded if not key.endswith((TEACHER, FEATURES))]
    taught = [key for key in embedded if key.endswith(TEACHER)]
    written = [key for key in needs if key.startswith(CAPTION) and key not in rows]
    out: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    with autocast():
        if written:
            made = _captions(model, rows, written)
            out |= {key: made[key] for key in needs if key in made}
            plain = [key for key in plain if key not in out]
        for key in [key for key in embedded if key.endswith(FEATURES)]:
            # Both the tower's output and, if asked for, the embedding made of it: one pass.
            base = key.removesuffix(FEATURES)
            side = model.side(base.split("_")[0])  # type: ignore[operator]
            out[key] = rows[key] if key in rows else side.features(_raw(rows, base))
            if base in plain:
                inputs[key] = out[key]
                plain.remove(base)
        out |= model(**inputs, **_tower_inputs(rows, plain))
        if taught:
            if teacher is None:
                raise ValueError(f"the objective needs {taught}, but there is no teacher model")
            sources = {key.removesuffix(TEACHER): key for key in taught}
            with torch.no_grad():
                answers = teacher(**_tower_inputs(rows, sources))
            out |= {key: answers[base] for base, key in sources.items()}
    out = {key: value.float() if _is_low(value) else value for key, value in out.items()}
    return out | {key: rows[key] for key in needs if key not in out}


def _tower_inputs(rows: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """For each key its stored features where the batch holds them, else what the tower reads."""
    stored = {key: f"{key}{FEATURES}" for key in keys}
    return {
        (name if name in rows else key): rows[name] if name in rows else _raw(rows, key)
        for key, name in stored.items()
    }


def _captions(model: Any, rows: Mapping[str, Tensor], written: list[str]) -> Mapping[str, Tensor]:
    """What the text decoder says, and the embeddings that it makes on the way."""
    if written == ["caption_ids"]:
        return {"caption_ids": model.caption_ids(rows["text"])}
    return model.embed_and_caption(rows["image"], rows["text"])


def _is_low(rows: Tensor) -> bool:
    return rows.dtype in (torch.bfloat16, torch.float16)


def _raw(rows: Mapping[str, Tensor], key: str) -> Tensor:
    return rows[key] if key in rows else rows[key.split("_")[0]]
