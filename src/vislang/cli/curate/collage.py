"""vislang curate collage: look at what was fetched."""

from pathlib import Path


def collage(
    fetched: Path,
    *,
    out: Path | None = None,
    domain: str = "",
    count: int = 100,
    rows: int = 8,
    captions: bool = True,
    nsfw: bool = False,
    seed: int = 0,
) -> None:
    """Draw random fetched pictures of each domain side by side, with their captions.

    Writes OUT/DOMAIN.png and a page with all of them, OUT/report.html.

    Args:
        fetched: folder of `vislang curate fetch`.
        out: folder; by default FETCHED/collages.
        domain: draw this one alone.
        count: pictures to draw.
        rows: lines of pictures at most.
        captions: write captions below them.
        nsfw: show also what is tagged as possibly unsafe, in place of a grey tile.
        seed: of the draw.
    """
    from vislang.curate.collage import Collage, draw_collages
    from vislang.report.collages import write_collages

    folder = out or fetched / "collages"
    made = draw_collages(fetched, folder, Collage(count, rows, captions, nsfw, seed), domain)
    for name, path in made.items():
        print(f"{name}: {path}")
    print(f"Page: {write_collages(fetched, made, folder / 'report.html')}")
