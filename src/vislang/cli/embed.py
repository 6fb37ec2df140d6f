"""vislang embed: turn a source into a folder of embeddings; run again to resume."""

import sys
from pathlib import Path
from typing import Any


def embed(
    model: str,
    source: str,
    *,
    out: Path,
    source_options: dict[str, Any] | None = None,
    what: tuple[str, ...] = (),
    batch_size: int = 64,
    workers: int = 2,
    device: str = "auto",
    precision: str = "auto",
    dtype: str = "float32",
    engine: str = "serial",
    processes: int = 0,
) -> None:
    """Embed every image and text of a source; the same command again goes on where it stopped.

    Args:
        model: a run folder, a checkpoint, or a name such as open_clip:ViT-B-32/openai.
        source: a path whose layout is recognised, layout:path, or a name (`vislang list sources`).
        out: store folder to fill; units already there are kept.
        source_options: arguments of the source's layout, for example {split: test}.
        what: any of image,text,features (the image tower's output before its head); by default
            image and text, as far as model and source have them.
        batch_size: samples a forward pass.
        workers: loader processes; 0 loads in this process.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
        dtype: float32 or float16 on disk.
        engine: serial, processes (each with its own part of the source) or ray.
        processes: how many, for engine processes; 0 takes all cores.
    """
    from vislang.data.sources import open_source
    from vislang.embed import embed_source
    from vislang.models.pretrained import load_model

    options = source_options or {}
    opened, loaded = open_source(source, **options), load_model(model)
    if not what:
        here = [k for k in ("image", "text") if getattr(loaded, k) is not None]
        what = tuple(k for k in here if k in opened.gives)
    serial = engine == "serial"  # other engines open model and source in each process
    store = embed_source(
        loaded if serial else model, opened if serial else source, out, what=what,
        source_options=options, batch_size=batch_size, device=device, precision=precision,
        workers=workers, dtype=dtype, engine=engine, processes=processes or None,
        on_progress=_show,
    )  # fmt: skip
    rows = {"images": store.image, "texts": store.text, "features": store.features}
    counts = [f"{len(part):,} {name}" for name, part in rows.items() if part is not None]
    print(f"Store: {out} ({', '.join(counts)}; {len(store.rejected):,} samples rejected)")


def _show(done: int, total: int) -> None:
    end = "\n" if done >= total else ""
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} samples", end=end, file=sys.stderr, flush=True)
