"""Examples of an evaluation: what was asked, what was answered, right and wrong side by side."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vislang.report.markup import Html, foreign, tag
from vislang.report.pictures import Pictures
from vislang.report.values import finite

MOST_EACH = 6  # examples of one kind and verdict
MOST_ANSWERS = 5
BRIEF = 20  # characters of an answer that needs little room
KINDS = {
    "image_to_text": "Picture to caption",
    "text_to_image": "Caption to picture",
    "image_to_class": "Picture to class",
    "image_to_image": "Picture to picture",
}

Example = Mapping[str, Any]


def chosen(items: Sequence[Example]) -> dict[str, dict[bool, list[Example]]]:
    """kind -> {False: wrong ones, True: right ones}, as many of each as the page shows."""
    kinds: dict[str, dict[bool, list[Example]]] = {}
    for item in items:
        kind = kinds.setdefault(str(item.get("kind") or "examples"), {False: [], True: []})
        verdict = kind[item.get("right") is True]
        if len(verdict) < MOST_EACH:
            verdict.append(item)
    return kinds


def shown_images(items: Sequence[Example]) -> Iterator[str]:
    """Ids whose pictures the examples will ask for."""
    for kind in chosen(items).values():
        for verdict in kind.values():
            for item in verdict:
                for side in (item.get("query"), *_answers(item)):
                    if isinstance(side, Mapping) and side.get("id") is not None:
                        yield str(side["id"])


def examples(items: Sequence[Example], pictures: Pictures) -> list[Html]:
    """One group for each kind: first what went wrong, then what went right."""
    groups = []
    for kind, verdicts in chosen(items).items():
        title = KINDS.get(kind) or kind.replace("_", " ")
        groups.append(tag("h4", foreign(title, 60)))
        for right, name in ((False, "Wrong"), (True, "Right")):
            whole = sum(1 for item in items if _belongs(item, kind, right))
            cards = [_card(item, pictures) for item in verdicts[right]]
            if not cards:
                text = f"{name}: none among the examples in the file."
                groups.append(tag("p", text, class_="note"))
                continue
            count = f"{len(cards)} of {whole:,} in the file" if whole > len(cards) else str(whole)
            head = tag("h5", name, tag("small", count), class_="right" if right else "wrong")
            narrow = all(map(_is_brief, verdicts[right]))
            boxes = tag("div", cards, class_="examples narrow" if narrow else "examples")
            groups += [head, boxes]
    return groups


def _is_brief(item: Example) -> bool:
    """Whether all answers are so short (names of classes) that the example needs little room."""
    answers = _answers(item)
    return all("text" in answer and len(str(answer["text"])) <= BRIEF for answer in answers)


def _belongs(item: Example, kind: str, right: bool) -> bool:
    return str(item.get("kind") or "examples") == kind and (item.get("right") is True) is right


def _answers(item: Example) -> list[Mapping[str, Any]]:
    answers = item.get("answers")
    if not isinstance(answers, list):
        return []
    return [answer for answer in answers if isinstance(answer, Mapping)][:MOST_ANSWERS]


def _card(item: Example, pictures: Pictures) -> Html:
    query = item.get("query")
    answers = _answers(item)
    as_pictures = bool(answers) and all(
        a.get("id") is not None and "text" not in a for a in answers
    )
    shown = [_answer(answer, pictures, place) for place, answer in enumerate(answers, 1)]
    return tag(
        "article",
        tag(
            "div",
            _side(query if isinstance(query, Mapping) else {}, pictures),
            _truth(item),
            class_="query",
        ),
        tag("ol", shown, class_="answers pictures" if as_pictures else "answers")
        if shown
        else tag("p", "no answers in the file", class_="missing"),
        class_="example",
    )


def _truth(item: Example) -> Html | None:
    """What the query truly is, and at which place the right answer stands, where they are known."""
    query, rank = item.get("query"), item.get("rank")
    label = query.get("label") if isinstance(query, Mapping) else None
    parts = []
    if label is not None:
        parts.append(tag("span", "is: ", tag("strong", foreign(label, 80))))
    if isinstance(rank, int) and not isinstance(rank, bool) and rank > 1:
        parts.append(tag("span", f"right answer at place {rank:,}"))
    return tag("p", parts, class_="truth") if parts else None


def _side(side: Mapping[str, Any], pictures: Pictures) -> list[Html]:
    parts = []
    if side.get("id") is not None:
        parts.append(pictures.show(str(side["id"]), "example"))
    if side.get("text") is not None:
        parts.append(tag("q", foreign(side["text"], 300)))
    return parts or [tag("span", "?", class_="missing")]


def _answer(answer: Mapping[str, Any], pictures: Pictures, place: int) -> Html:
    right = answer.get("right") is True
    score = finite(answer.get("score"))
    verdict = tag(
        "span",
        "✓" if right else "✗",
        class_="verdict",
        role="img",
        aria_label="right" if right else "wrong",
    )
    return tag(
        "li",
        verdict,
        tag("span", _side(answer, pictures), class_="said"),
        tag("span", "" if score is None else f"{score:.3f}", class_="score"),
        class_="right" if right else "wrong",
    )
