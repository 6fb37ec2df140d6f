"""vislang curate neighbours: for each sample the others whose captions say the same."""

import sys
from pathlib import Path
from typing import Any

from vislang.errors import UserError


def neighbours(
    source: str,
    *,
    out: Path,
    model: str = "",
    source_options: dict[str, Any] | None = None,
    by: str = "caption",
    captions: str = "first",
    k: int = 1,
    threshold: float = -1.0,
    scope: tuple[str, ...] = (),
    apart: tuple[str, ...] = (),
    columns: str = "",
    distinct_captions: bool = False,
    hash_bits: int = -1,
    image_cosine: float = 0.0,
    image_model: str = "",
    mutual: bool = False,
    index: str = "exact",
    recall: float = 0.99,
    from_json: str = "",
    to_json: str = "",
    shown: int = 24,
    batch_size: int = 64,
    workers: int = 2,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Find each sample's nearest others by caption or picture, as pairs to train on.

    Writes OUT/neighbours.parquet (source, target, similarity, rank), manifest.json and a page
    with random pairs, by which to judge the threshold. The same command again goes on where it
    stopped. Train on the pairs with --data.train pairs:OUT.

    Args:
        source: a path whose layout is recognised, layout:path, or a name.
        out: folder to fill.
        model: what embeds, such as sentence_transformers:all-mpnet-base-v2, open_clip:NAME/TAG,
            huggingface:PATH, words:FILE (word vectors), or a run folder.
        source_options: arguments of the source's layout, for example {year: 2020}.
        by: caption, image (in the joint space) or features (of the image tower).
        captions: of several captions the first, or the mean of their embeddings.
        k: neighbours of a sample.
        threshold: least similarity (cosine) of a pair.
        scope: columns in which both must agree: subreddit, year, folder, label, or of `columns`.
        apart: columns in which they must differ, such as author.
        columns: a table (CSV, TSV, Parquet) with further columns, found by id.
        distinct_captions: leave out pairs with the same words.
        hash_bits: leave out pictures whose perceptual hashes differ in at most this many of 64
            bits (8 finds most copies); -1 does not look.
        image_cosine: leave out pictures that image_model embeds at least this alike.
        image_model: a MODEL with an image side, for image_cosine.
        mutual: keep a pair only if each is among the other's k.
        index: exact, or ivf or hnsw (approximate) for tens of millions.
        recall: what an approximate index must reach, measured on a sample.
        from_json: take the pairs of this file (of the released language-guided code) instead.
        to_json: also write the nearest pairs in that form.
        shown: random pairs on the page; 0 makes none.
        batch_size: captions or images a forward pass.
        workers: loader processes for images.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
    """
    from vislang.curate import find_neighbours, read_original, write_original
    from vislang.curate.neighbours import Rules
    from vislang.data.pairs import TABLE
    from vislang.data.sources import open_source

    options = source_options or {}
    opened = open_source(source, **options)
    if from_json:
        table = read_original(from_json, opened, source, options)
        table.write(out / TABLE)
    elif model:
        rules = Rules(
            k, threshold, scope, apart, columns, distinct_captions, hash_bits, image_cosine,
            image_model, mutual,
        )  # fmt: skip
        table = find_neighbours(
            source, model, out, rules, by=by, captions=captions, index=index, recall=recall,
            source_options=options, batch_size=batch_size, workers=workers, device=device,
            precision=precision, on_progress=_show,
        )  # fmt: skip
    else:
        raise UserError("vislang curate neighbours needs --model MODEL (or --from_json FILE).")
    if to_json:
        write_original(table, opened, to_json)
    print(_sentence(table))
    if shown:
        from vislang.report.neighbours import write_neighbours

        print(f"Page: {write_neighbours(opened, table, out / 'report.html', shown)}")
    print(f"Next: vislang train RECIPE --data.train pairs:{out}")


def _sentence(table: Any) -> str:
    counts, dropped = table.about["counts"], table.about.get("dropped", {})
    lines = [f"Pairs: {counts['pairs']:,}" + (
        f" of {counts['sources']:,} sources and {counts['targets']:,} targets"
        if "sources" in counts else "")]  # fmt: skip
    lines += [f"  without: {count:,} ({reason})" for reason, count in dropped.items()]
    for note in table.about.get("index", ()):
        lines.append(f"  index {note['kind']}: {_recall(note)}")
    return "\n".join(lines)


def _recall(note: dict[str, Any]) -> str:
    """What an approximate search is worth, and what it saves."""
    if not note["queries"]:
        return "none of the samples that measure its recall has a neighbour"
    said = f"recall {note['recall']:.4f} [{note['recall_low']:.4f}, {note['recall_high']:.4f}]"
    said += f" measured on {note['queries']:,} samples"
    if "share" in note:
        said += f"; each is compared with {note['share']:.1%} of the others"
        said += ", so --index exact would be quicker" if note["share"] > 0.5 else ""
    return said


def _show(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\r{done:,} of {total:,} {what}", end=end, file=sys.stderr, flush=True)
