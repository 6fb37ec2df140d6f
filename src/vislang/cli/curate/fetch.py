"""vislang curate fetch: download the pictures of a sample, safely."""

from pathlib import Path


def fetch(
    sample: Path,
    *,
    out: Path,
    layout: str = "tar",
    side: int = 224,
    quality: int = 95,
    shard: int = 1000,
    threads: int = 32,
    per_host: int = 2,
    pause_s: float = 0.0,
    seconds: float = 20.0,
    max_bytes: int = 20_000_000,
    max_pixels: int = 89_478_485,
    redirects: int = 5,
    robots: bool = True,
    opt_out: bool = True,
    ports: tuple[int, ...] = (),
    verify: bool = True,
    agent: str = "vislang",
    max_side: int = 30_000,
    animated: str = "first",
    max_frames: int = 1000,
    decode_s: float = 10.0,
    decode_workers: int = 0,
    retry_failed: str = "no",
    engine: str = "serial",
    workers: int = 2,
) -> None:
    """Download a sample's pictures; the same command again goes on where it stopped.

    Public http(s) addresses alone, at every hop of a redirect; what a site asks by robots.txt or
    headers is respected. Every URL has a row in OUT/ledger.parquet, failures with their reason.

    Args:
        sample: folder of `vislang curate sample`, or a Parquet file with a column url.
        out: folder to fill.
        layout: tar (webdataset) or folder (with pictures.parquet, for table:).
        side: pixels of the shorter side of what is written.
        quality: of the JPEG.
        shard: pictures of a unit.
        threads: requests at a time in one process, at most; fewer when more bring no more.
        per_host: of these, to one host.
        pause_s: seconds between the starts of two requests to one host.
        seconds: for one picture, with all its hops.
        max_bytes: of one picture.
        max_pixels: of one picture.
        redirects: hops of one picture.
        robots: respect robots.txt.
        opt_out: respect X-Robots-Tag and TDM-Reservation.
        ports: allowed besides 80 of http and 443 of https.
        verify: require valid certificates.
        agent: how we call ourselves; sites address us by what stands before the first / or space.
        max_side: of the longer side of one picture.
        animated: of several frames take the first, or refuse the picture.
        max_frames: a picture with more is refused in any case.
        decode_s: seconds of computing that one picture may take to decode.
        decode_workers: processes that decode; 0: one for each core.
        retry_failed: before ending, ask once more for failures that may pass (passing: timeouts,
            5xx, 429, broken connections), for all that is missing (all), or for nothing (no).
        engine: serial, processes, ray, or img2dataset (without these protections).
        workers: processes.
    """
    from vislang.curate.fetch import Caps, Fetching, Network, fetch_sample
    from vislang.data.decode import Limits

    how = Fetching(
        layout, side, quality, shard, threads, per_host, pause_s, robots, opt_out,
        Caps(max_bytes, seconds, redirects, agent), Limits(max_pixels, max_bytes),
        max_side, animated, max_frames, decode_s, decode_workers,
    )  # fmt: skip
    if engine == "img2dataset":
        from vislang.curate.fetch.img2dataset import fetch_with_img2dataset
        from vislang.curate.sample import TABLE

        fetch_with_img2dataset(sample / TABLE if sample.is_dir() else sample, out, how)
        return
    done = fetch_sample(
        sample, out, how, network=Network(ports, verify), engine=engine, workers=workers,
        retry_failed=retry_failed,
        on_done=lambda unit, note: print(f"{unit}: {note['status']}", flush=True),
    )  # fmt: skip
    print(f"Fetched {done['status'].get('ok', 0):,} of {done['rows']:,}: {out}")
    for status, count in sorted(done["status"].items(), key=lambda item: -item[1]):
        if status != "ok":
            print(f"  {status}: {count:,}")
    folder = next(iter(done["domains"]), "")
    spec = f"webdataset:{out}/{folder}" if layout == "tar" else f"table:{out}/pictures.parquet"
    print(f"Next: vislang curate collage {out}, or train on {spec}")
