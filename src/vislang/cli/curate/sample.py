"""vislang curate sample: choose which images of a collection to fetch for each domain."""

from pathlib import Path

from vislang.errors import UserError


def sample(
    source: Path,
    *,
    out: Path,
    mode: str = "top",
    k: int = 0,
    cosine: float = 0.97,
    across: bool = False,
    groups: tuple[str, ...] = (),
    collection: str = "",
    nsfw: bool = False,
    seed: int = 0,
) -> None:
    """Choose images: the best of each domain, any, or those whose caption names the domain.

    Writes OUT/sample.parquet with domain, rank, score, url and caption.

    Args:
        source: folder of `vislang curate score` for top; a collection for uniform and text.
        out: folder to fill.
        mode: top, uniform or text.
        k: images of each domain (of all, for uniform); 0 takes all that scoring kept.
        cosine: of two embeddings at least this alike the better one stays; 0 does not look.
        across: remove duplicates between domains too.
        groups: uniform: draw from these groups alone, such as laion2B-en.
        collection: top: where the collection lies now, if it was moved.
        nsfw: uniform and text: keep also what is tagged unsafe.
        seed: of uniform and text.
    """
    from vislang.curate.collections import open_collection
    from vislang.curate.filters import Filters
    from vislang.curate.sample import Duplicates, sample_text, sample_top, sample_uniform
    from vislang.lookup import nearest

    modes = ("top", "uniform", "text")
    if mode not in modes:
        near = nearest(mode, modes)
        raise UserError(f"mode must be one of {', '.join(modes)}, got {mode!r}.{near}")
    if mode == "top":
        rules = Duplicates(cosine=cosine, across=across)
        done = sample_top(source, out, k=k, duplicates=rules, collection=collection)
    elif k < 1:
        raise UserError(f"--mode {mode} needs --k, how many images to draw.")
    else:
        filters, opened = Filters(nsfw=not nsfw), open_collection(source)
        if mode == "uniform":
            done = sample_uniform(opened, out, k, groups=groups, seed=seed, filters=filters)
        else:
            done = sample_text(opened, out, k, seed=seed, filters=filters)
    print(f"Sample of {done['images']:,} images: {out}")
    for domain, counts in done["domains"].items():
        print(f"  {domain}: {', '.join(f'{name} {count:,}' for name, count in counts.items())}")
    print(f"Next: vislang curate fetch {out} --out PICTURES")
