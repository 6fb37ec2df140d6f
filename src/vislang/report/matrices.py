"""Heat maps as tables: the confusion matrix, and the cosines of images x captions.

A cell's colour is a class (h0 ... h10), so the page needs no inline style and prints its numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vislang.report.markup import Html, foreign, number, tag
from vislang.report.pictures import Pictures
from vislang.report.tables import scroll, table
from vislang.report.values import finite

MOST_CLASSES = 30  # of a drawn confusion matrix; of more, those with most errors are drawn
MOST_CONFUSIONS = 12
MOST_IMAGES, MOST_TEXTS = 24, 40  # of the cosine matrix
LEVELS = 10


def confusion(part: Mapping[str, Any]) -> list[Html]:
    """The matrix (rows: truth, columns: answer; shares of a row as colour), and the worst pairs."""
    read = _read_confusion(part)
    if read is None:
        return [tag("p", "The confusion matrix in the file could not be read.", class_="missing")]
    classes, counts = read
    order, left_out = _most_confused(counts)
    notes = []
    if left_out:
        notes.append(f"Shown are the {len(order)} classes with most errors, of {len(classes):,}.")
    head = [
        tag("th", tag("span", "truth ↓"), tag("span", "answer →"), scope="col", class_="corner")
    ]
    head += [_class_head(classes[j], "col") for j in order]
    rows = []
    for i in order:
        whole = sum(counts[i]) or 1
        cells = [_count(counts[i][j], whole, i == j, classes[i], classes[j]) for j in order]
        rows.append(tag("tr", _class_head(classes[i], "row"), cells))
    grid = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows), class_="heat confusion")
    return [
        tag(
            "p",
            "Row: the true class; column: the answer. Blue is right, orange is wrong; the"
            " stronger, the larger its share of the row. ",
            " ".join(notes),
            class_="note",
        ),
        tag(
            "div",
            scroll(grid, "Confusion matrix"),
            tag("div", _worst(classes, counts)),
            class_="pair",
        ),
    ]


def _read_confusion(part: Mapping[str, Any]) -> tuple[list[str], list[list[int]]] | None:
    classes, counts = part.get("classes"), part.get("counts")
    if not isinstance(classes, list) or not isinstance(counts, list):
        return None
    if len(counts) != len(classes) or not classes:
        return None
    rows = []
    for row in counts:
        if not isinstance(row, list) or len(row) != len(classes):
            return None
        rows.append([int(finite(cell) or 0) for cell in row])
    return [str(name) for name in classes], rows


def _most_confused(counts: list[list[int]]) -> tuple[list[int], int]:
    """Indices to draw in their own order, and how many classes are left out."""
    size = len(counts)
    if size <= MOST_CLASSES:
        return list(range(size)), 0
    into = [sum(row[j] for row in counts) for j in range(size)]
    wrong = [sum(counts[i]) + into[i] - 2 * counts[i][i] for i in range(size)]
    worst = sorted(range(size), key=lambda i: -wrong[i])[:MOST_CLASSES]
    return sorted(worst), size - MOST_CLASSES


def _class_head(name: str, scope: str) -> Html:
    return tag("th", tag("span", foreign(name, 60)), scope=scope, title=name)


def _count(count: int, whole: int, right: bool, truth: str, answer: str) -> Html:
    level = 0 if count == 0 else max(1, round(count / whole * LEVELS))
    kind = "r" if right else "w"
    return tag(
        "td",
        f"{count:,}" if count else tag("span", "0", class_="zero"),
        class_=f"{kind}{level}",
        title=f"{truth} answered as {answer}: {count:,} of {whole:,}",
    )


def _worst(classes: list[str], counts: list[list[int]]) -> Html:
    pairs = [
        (count, i, j)
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count > 0
    ]
    if not pairs:
        return tag("p", "No sample was taken for another class.", class_="note")
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    rows = [
        [classes[i], classes[j], count, f"{count / (sum(counts[i]) or 1):.1%}"]
        for count, i, j in pairs[:MOST_CONFUSIONS]
    ]
    return table(
        ["truth", "answer", "count", "share of the class"], rows, "Most frequent confusions"
    )


def cosine(part: Mapping[str, Any], pictures: Pictures) -> list[Html]:
    """Columns: images (their pictures); rows: captions; each image's highest cosine is ringed."""
    read = _read_cosine(part)
    if read is None:
        return [tag("p", "The cosine matrix in the file could not be read.", class_="missing")]
    ids, texts, matrix = read
    shown_ids, shown_texts = ids[:MOST_IMAGES], texts[:MOST_TEXTS]
    cells = [[matrix[i][j] for j in range(len(shown_texts))] for i in range(len(shown_ids))]
    known = [value for row in cells for value in row if value is not None]
    if not known:
        return [tag("p", "The cosine matrix holds no finite number.", class_="missing")]
    low, high = min(known), max(known)
    best = [
        max((v, -j) for j, v in enumerate(row) if v is not None)[1] * -1
        if any(v is not None for v in row)
        else -1
        for row in cells
    ]
    head = [
        tag("th", tag("span", "caption ↓"), tag("span", "picture →"), scope="col", class_="corner")
    ]
    head += [tag("th", pictures.show(id_, "head"), scope="col", title=id_) for id_ in shown_ids]
    rows = [
        tag(
            "tr",
            tag("th", tag("span", foreign(text, 160)), scope="row"),
            [_cosine_cell(cells[i][j], low, high, best[i] == j) for i in range(len(shown_ids))],
        )
        for j, text in enumerate(shown_texts)
    ]
    grid = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows), class_="heat cosine")
    cut = ""
    if len(ids) > len(shown_ids) or len(texts) > len(shown_texts):
        cut = (
            f" The first {len(shown_ids)} of {len(ids):,} pictures and"
            f" {len(shown_texts)} of {len(texts):,} captions."
        )
    note = (
        f"Cosine of picture and caption, from {number(low)} (pale) to {number(high)} (strong)."
        f" A ring marks each picture's highest caption.{cut}"
    )
    return [tag("p", note, class_="note"), scroll(grid, "Cosine matrix of pictures and captions")]


def _read_cosine(
    part: Mapping[str, Any],
) -> tuple[list[str], list[str], list[list[float | None]]] | None:
    ids, texts, matrix = part.get("ids"), part.get("texts"), part.get("matrix")
    if not (isinstance(ids, list) and isinstance(texts, list) and isinstance(matrix, list)):
        return None
    if len(matrix) != len(ids) or not ids or not texts:
        return None
    if any(not isinstance(row, list) or len(row) != len(texts) for row in matrix):
        return None
    values = [[finite(cell) for cell in row] for row in matrix]
    return [str(id_) for id_ in ids], [str(text) for text in texts], values


def _cosine_cell(value: float | None, low: float, high: float, best: bool) -> Html:
    if value is None:
        return tag("td", "–")
    level = round((value - low) / ((high - low) or 1.0) * LEVELS)
    ring = " best" if best else ""
    text = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
    return tag("td", tag("span", text), class_=f"r{level}{ring}")


def shown_images(part: Mapping[str, Any]) -> Sequence[str]:
    """Ids whose pictures the cosine matrix will ask for."""
    read = _read_cosine(part)
    return read[0][:MOST_IMAGES] if read else ()
