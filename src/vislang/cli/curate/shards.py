"""vislang curate shards: choose parts of a collection of embeddings and fetch them."""

from pathlib import Path


def shards(
    base: str,
    *,
    out: Path,
    groups: dict[str, tuple[int, int, int]] | None = None,
    pattern: str = "laion5b",
    engine: str = "serial",
    workers: int = 2,
    only_list: bool = False,
) -> None:
    """Fetch img_emb and metadata files of a collection, checked; the same command resumes.

    Args:
        base: folder, http(s) address, or any that fsspec knows (s3://...), above the groups.
        out: folder to fill.
        groups: name -> [files that there are, files to take, seed], as in {laion2B-en: [2314, 100,
            0]}; by default the 250 of LAION-5B that the original took.
        pattern: how files are called below base: laion5b, clip-retrieval or vislang.
        engine: serial, processes or ray.
        workers: processes.
        only_list: print the choice and fetch nothing.
    """
    from vislang.curate.collections import open_collection
    from vislang.curate.shards import fetch_shards, pick_shards

    picks = pick_shards({k: (v[0], v[1], v[2]) for k, v in groups.items()} if groups else None)
    if only_list:
        print("\n".join(pick.unit for pick in picks))
        return
    done = 0

    def on_done(unit, note) -> None:
        nonlocal done
        done += 1
        print(f"{unit}: {note['rows']:,} rows of width {note['width']}", flush=True)

    fetch_shards(base, picks, out, pattern=pattern, engine=engine, workers=workers, on_done=on_done)
    found = open_collection(out)
    print(f"{len(found):,} embeddings in {len(found.parts)} parts: {out}")
    print(f"Next: vislang curate score {out} --classifier CLASSIFIER --out SCORES")
