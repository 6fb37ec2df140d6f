"""What a domain classifier learns from: sentences about class words, or pictures.

n: rows, D: width, C: domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vislang.errors import UserError
from vislang.lookup import nearest

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from vislang.curate.classifier import DomainClassifier
    from vislang.data.domains.domain import Domain
    from vislang.models.dual import DualEncoder
    from vislang.store import DomainStore


class Taught(NamedTuple):
    """Rows to learn from: embeddings, the domain of each, and its group (class word or image)."""

    rows: Float[np.ndarray, "n D"]
    labels: Int64[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]
    names: tuple[str, ...]


class Overlap(NamedTuple):
    """Two domains that share sentences; `whole`: all sentences of at least one of them."""

    first: str
    second: str
    shared: tuple[str, ...]
    whole: bool


def overlaps(domains: Sequence[Domain]) -> list[Overlap]:
    """Pairs of domains that share sentences, which a classifier of sentences cannot tell apart.

    >>> from vislang.data.domains import DOMAINS
    >>> [(o.first, o.second, o.whole) for o in overlaps(list(DOMAINS.values()))]
    [('blur', 'foggy', True), ('grayscale', 'sepia', False)]
    """
    found = []
    for place, one in enumerate(domains):
        for other in domains[place + 1 :]:
            shared = tuple(t for t in one.templates if t in other.templates)
            if shared:
                least = min(len(set(one.templates)), len(set(other.templates)))
                found.append(Overlap(one.name, other.name, shared, len(shared) == least))
    return found


def overlap_warning(domains: Sequence[Domain]) -> str:
    """One paragraph about domains that share all their sentences; empty where none do."""
    lines = [
        f"{o.first} and {o.second} share {'all' if o.whole else 'some'} of their sentences"
        f" ({'; '.join(o.shared)})"
        for o in overlaps(domains)
        if o.whole
    ]
    if not lines:
        return ""
    return (
        f"warning: {'; '.join(lines)}. A classifier of sentences gives both at most half of the"
        " probability, and their best images will be nearly the same ones. Merge them (--merge"
        " '{hazy: [blur, foggy]}'), or give one other sentences (--sentences '{foggy: [\"a {} in"
        " the mist\"]}')."
    )


def reword(
    domains: Sequence[Domain],
    sentences: Mapping[str, Sequence[str]] | None = None,
    merge: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Domain, ...]:
    """The domains with other sentences, and some of them taken as one; sorted by name.

    Args:
        domains: any.
        sentences: domain -> templates in place of its own.
        merge: new name -> domains that become one, with the sentences of all.

    >>> from vislang.data.domains import DOMAINS
    >>> [d.name for d in reword([DOMAINS["blur"], DOMAINS["dim"], DOMAINS["foggy"]],
    ...                         merge={"hazy": ["blur", "foggy"]})]
    ['dim', 'hazy']
    """
    known = {domain.name: domain for domain in domains}
    for name, templates in (sentences or {}).items():
        known[name] = replace(_known(known, name), templates=tuple(templates))
    for name, members in (merge or {}).items():
        together = [_known(known, member) for member in members]
        if not together:
            raise UserError(f"merge: {name!r} names no domain to take together.")
        templates = dict.fromkeys(t for domain in together for t in domain.templates)
        for member in members:
            known.pop(member, None)
        if name in known:
            raise UserError(f"merge: there is a domain {name!r} already; take another name.")
        known[name] = replace(together[0], name=name, templates=tuple(templates))
    return tuple(known[name] for name in sorted(known))


def _known(known: Mapping[str, Domain], name: str) -> Domain:
    if name not in known:
        raise UserError(
            f"There is no domain {name!r} to change.{nearest(name, known)}"
            f" Known: {', '.join(known)}."
        )
    return known[name]


def teach_sentences(
    model: DualEncoder | str, domains: Sequence[Domain], words: Sequence[str], **how: Any
) -> Taught:
    """Embed every (domain, sentence, class word); a sentence of two domains is there for both.

    Args:
        model: with a text side: the one whose image embeddings will be judged.
        domains: which.
        words: class words; those of one word are held out together.
        how: arguments of `embed_texts` (batch_size, device, precision).
    """
    from vislang.embed import embed_texts

    words = list(dict.fromkeys(word.strip() for word in words if word.strip()))
    if len(words) < 2:
        raise UserError(f"A classifier of sentences needs at least 2 class words, got {words}.")
    if isinstance(model, str):
        from vislang.models.pretrained import load_model

        model = load_model(model)
    texts, labels, groups = [], [], []
    for label, domain in enumerate(domains):
        for template in domain.templates:
            for group, word in enumerate(words):
                texts.append(template.replace("{}", word))
                labels.append(label)
                groups.append(group)
    rows = embed_texts(model, texts, **how)
    names = tuple(domain.name for domain in domains)
    return Taught(rows, np.array(labels, np.int64), np.array(groups, np.int64), names)


def teach_pictures(store: DomainStore, names: Sequence[str] = ()) -> Taught:
    """The pictures of a store of images x domains; those of one image are held out together."""
    chosen = tuple(names) or tuple(sorted(store.domains))
    rows, labels, groups = [], [], []
    for label, name in enumerate(chosen):
        block = np.asarray(store.rows(name)[:], np.float32)
        there = np.flatnonzero(np.abs(block).max(axis=1, initial=0) > 0)  # a zero row: no picture
        rows.append(block[there])
        labels.append(np.full(len(there), label, np.int64))
        groups.append(there)
    return Taught(np.concatenate(rows), np.concatenate(labels), np.concatenate(groups), chosen)


def classifier_of_sentences(taught: Taught, scale: float = 100.0) -> DomainClassifier:
    """No training: a row's logit is `scale` times its cosine with the domain's mean sentence.

    Zero-shot classification of domains (Radford et al. 2021, arXiv:2103.00020, section 3.1.4).
    """
    import torch

    from vislang.curate.classifier import DomainClassifier

    unit = taught.rows / np.linalg.norm(taught.rows, axis=1, keepdims=True)
    made = DomainClassifier(taught.names, unit.shape[1], "linear")
    means = np.stack([unit[taught.labels == c].mean(axis=0) for c in range(len(taught.names))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    with torch.no_grad():
        made.skip.weight.copy_(torch.from_numpy(means * scale))
        made.skip.bias.zero_()
    made.about = {"sentences": len(unit), "scale": scale}
    return made.eval()
