"""vislang cosine: every picture of a folder against every caption, as a page."""

from pathlib import Path
from typing import Any

MATRIX = "vislang.evaluate.matrix:Matrix"


def cosine(
    model: str,
    source: str,
    *,
    out: Path,
    source_options: dict[str, Any] | None = None,
    names: bool = False,
    most: int = 100,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Draw the cosines of a few pictures (columns) and captions (rows), the pictures above.

    Writes OUT/report.html, and the numbers into OUT/scores/.

    Args:
        model: a run folder, a checkpoint, or a name such as open_clip:ViT-B-32/openai.
        source: pictures with captions: a folder (with --names true), a table, or another source.
        out: folder for the page.
        source_options: arguments of the source's layout.
        names: the pictures' file names are their captions.
        most: refuse more pictures than can be read.
        batch_size: pictures a forward pass.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
    """
    from vislang.cli.evaluate import step_of, table
    from vislang.data.sources import open_source
    from vislang.errors import UserError
    from vislang.evaluate import evaluate
    from vislang.report import write_report

    options = dict(source_options or {}) | ({"captions": "names"} if names else {})
    if "text" not in open_source(source, **options).gives:
        raise UserError(
            f"The pictures of {source} have no captions. If their file names are the captions, add"
            " --names true; else give a table of pictures and captions."
        )
    scores = evaluate(
        model, source, (MATRIX,), out, options={MATRIX: {"most": most}}, source_options=options,
        step=step_of(model), batch_size=batch_size, device=device, precision=precision,
    )  # fmt: skip
    print(table(scores))
    print(f"Page: {write_report([out], out)}")
