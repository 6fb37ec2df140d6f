"""vislang contrast: two models, or the seeds of two recipes, sample by sample."""

from pathlib import Path


def contrast(first: str, second: str, *, out: Path | None = None) -> None:
    """Say how much better FIRST is than SECOND, with paired intervals and tests.

    Both were evaluated on the same data by `vislang evaluate`. Several folders with commas between
    them are seeds of one recipe: their outcomes are averaged sample by sample.

    Args:
        first: a run folder or an --out of `vislang evaluate`, or several: a-0,a-1,a-2.
        second: likewise.
        out: folder for contrast.json, contrast.csv and contrast.md.
    """
    from vislang.evaluate.contrast import contrast_datasets
    from vislang.evaluate.scores import table_csv, table_markdown
    from vislang.files import write_json, write_whole

    found = contrast_datasets(*([Path(p) for p in side.split(",")] for side in (first, second)))
    for data, evaluation, metric, one, two, gap, low, high, n, p, holm, seeds in found["rows"]:
        print(f"{evaluation} {metric}, {data} (n = {n:,}): {one:.4f} and {two:.4f}, difference"
              f" {gap:+.4f} [{low:+.4f}, {high:+.4f}], p = {p:.2g}, of all rows {holm:.2g}"
              + (f"; by seed {seeds}" if seeds else ""))  # fmt: skip
    if out:
        write_json(out / "contrast.json", found)
        write_whole(out / "contrast.csv", table_csv(found))
        write_whole(out / "contrast.md", table_markdown(found))
        print(f"Tables: {out}/contrast.json, .csv, .md")
