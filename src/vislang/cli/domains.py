"""vislang domains show: a contact sheet of one picture under every domain."""

from pathlib import Path


def show(
    image: Path,
    *,
    domains: tuple[str, ...] = ("described",),
    sentences: dict[str, list[str]] | None = None,
    axes: str = "corrected",
    seed: int = 0,
    side: int = 160,
    columns: int = 6,
    out: Path | None = None,
) -> None:
    """Draw one picture under each domain, with its name and its first sentence.

    Args:
        image: a picture file.
        domains: names (`vislang list domains`), described, cifar, imagenet_c/3, or your own
            package.module:function.
        sentences: of your own domains, as in {my.module:neon: ['a neon photo of a {}']}.
        axes: of the background mask: corrected, or original for the swapped ones.
        seed: of random domains.
        side: pixels that the longer side of each picture is drawn with.
        columns: pictures in a row.
        out: the sheet; by default IMAGE-domains.png in the current folder.
    """
    from vislang.data.decode import decode
    from vislang.data.domains import open_domains
    from vislang.data.domains.sheet import contact_sheet
    from vislang.data.sample import BadSample
    from vislang.errors import UserError
    from vislang.files import whole_file

    chosen = open_domains(list(domains), sentences=sentences, axes=axes)
    try:
        pixels = decode(image)
    except BadSample as bad:
        raise UserError(f"{image} cannot be drawn: {bad.reason}.") from bad
    if side < 16 or columns < 1:
        raise UserError(f"side must be at least 16 and columns 1, got {side} and {columns}.")
    sheet, failed = contact_sheet(pixels, chosen, seed, image.name, side, columns)
    out = out or Path(f"{image.stem}-domains.png")
    with whole_file(out) as file:
        sheet.save(file, "PNG")
    for reason in failed:
        print(reason)
    print(f"{len(chosen) - len(failed)} of {len(chosen)} domains drawn: {out}")
