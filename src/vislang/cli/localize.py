"""vislang localize: boxes and heat-maps for phrases in a picture, or over a whole benchmark."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from vislang.cli.localizing import SUITES, Suite, run_suite
from vislang.errors import UserError


def localize(
    model: str,
    image: Path,
    phrases: list[str] = [],  # noqa: B006  read only
    *,
    out: Path | None = None,
    method: str = "",
    options: dict[str, Any] | None = None,
    suite: str = "",
    format: str = "flickr",
    images: Path | None = None,
    limit: int = 0,
    several: str = "union",
    domains: tuple[str, ...] = (),
    named: bool = False,
    subset: str = "ablation",
    tasks: tuple[str, ...] = ("localization",),
    calibrate: Path | None = None,
    deltas: Path | None = None,
    out_of_range: str = "wrap",
    shard: int = 64,
    engine: str = "serial",
    processes: int = 0,
    device: str = "auto",
) -> None:
    """Draw boxes and heat-maps where a picture shows what the phrases say; no training needed.

    With --suite a whole benchmark is judged: IMAGE is then its annotations (grounding), a COCO
    instances file (detection) or the file of its samples (grit), --images the pictures, --out a
    folder; the same command again goes on where it stopped.

    Args:
        model: a run folder, a checkpoint, a name such as open_clip:ViT-B-32/openai, or a folder of
            an OWL-ViT, OWLv2 or Grounding DINO as transformers saves it.
        image: a picture file; annotations or samples with --suite.
        phrases: what to look for, each in quotes.
        out: the drawing (.png, by default IMAGE-boxes.png), or the folder of a suite.
        method: slicvit, maskclip, sclip, naclip, resnet, selective_search, regionclip, owlvit,
            owlv2, grounding_dino, centre, random; by default what fits the model.
        options: of the method, for example --options.published vit14/flickr --options.boxes 3.
        suite: grounding, detection (COCO's AP) or grit.
        format: of the annotations of grounding: flickr, zsg, refcoco, coco or grit.
        images: folder or .zip of the pictures of a suite.
        limit: phrases or samples to take, spread evenly over the file; 0 for all.
        several: boxes of one phrase: union, or any of them.
        domains: grounding under these shifts, too: described (all 18), or names (`vislang list
            domains`); the boxes move with the picture.
        named: ask by the sentence that names the shift, as in "a drawing of a red mug".
        subset: ablation or test, the name of grit's submission.
        tasks: of grit: localization, refexp.
        calibrate: folder of a finished grounding suite, by which grit's confidence is fitted
            (Platt's scaling of the score to the overlap).
        deltas: GRIT's dist_deltas_TASK_SUBSET.hdf5, from which the distorted pictures of grit's one
            task are made in IMAGES where they are missing.
        out_of_range: what sums of picture and delta do beyond 0 ... 255: wrap, as GRIT's, or clip.
        shard: pictures or samples in one resumable piece.
        engine: of grit: serial, processes (each opens the model, one thread each) or ray; under
            torchrun serial ones share the pieces, too.
        processes: how many, for engine processes; 0 takes all cores.
        device: auto, cpu, cuda or cuda:N.
    """
    given = dict(locals())  # the flags, as `suite_of` takes them
    if not suite:
        from vislang.localize.opening import open_localizer

        _one(open_localizer(model, method, device, options or {}), image, phrases, out)
        return
    run_suite(suite_of(**given))


def suite_of(**given: Any) -> Suite:
    """The suite that the flags of `localize` ask for."""
    name, images, out = given["suite"], given["images"], given["out"]
    if name not in SUITES:
        raise UserError(f"suite must be one of {', '.join(SUITES)}, got {name!r}.")
    if given["phrases"] or images is None or out is None:
        raise UserError("A suite takes --images and --out, and no phrases.")
    same = {f.name: given[f.name] for f in fields(Suite) if f.name not in ("name", "file")}
    same["options"] = dict(given["options"] or {})
    return Suite(name, file=given["image"], **same)


def _one(localizer: Any, image: Path, phrases: list[str], out: Path | None) -> None:
    from vislang.data.decode import decode
    from vislang.data.sample import BadSample
    from vislang.files import whole_file
    from vislang.localize.draw import drawn_segments, sheet

    if not phrases:
        raise UserError('Say what to look for, for example: vislang localize MODEL IMAGE "a mug".')
    try:
        picture = decode(image)
    except BadSample as bad:
        raise UserError(f"{image} cannot be read: {bad.reason}.") from bad
    found = localizer([picture], [phrases])[0]
    for phrase, one in zip(phrases, found):
        rows = [
            f"  [{', '.join(f'{v:.1f}' for v in box)}]  {score:.4f}"
            for box, score in zip(one.boxes, one.scores)
        ]
        print("\n".join([f"{phrase!r}:", *(rows or ["  nothing found"])]))
        for note in one.notes:
            print(f"  note: {note}")
    out = out or Path(f"{image.stem}-boxes.png")
    with whole_file(out) as file:
        sheet(picture, phrases, found, more=drawn_segments(picture, localizer)).save(file, "PNG")
    print(f"drawn: {out}")
