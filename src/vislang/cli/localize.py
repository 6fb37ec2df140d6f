"""vislang localize: boxes and heat-maps for phrases in a picture, or over a whole benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vislang.errors import UserError

SUITES = ("grounding", "detection", "grit")


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
    shard: int = 64,
    device: str = "auto",
) -> None:
    """Draw boxes and heat-maps where a picture shows what the phrases say; no training needed.

    With --suite a whole benchmark is judged: IMAGE is then its annotations (grounding), a COCO
    instances file (detection) or the file of its samples (grit), --images the pictures, --out a
    folder; the same command again goes on where it stopped.

    Args:
        model: a run folder, a checkpoint, a name such as open_clip:ViT-B-32/openai, or a folder of
            an OWL-ViT or OWLv2 as transformers saves it.
        image: a picture file; annotations or samples with --suite.
        phrases: what to look for, each in quotes.
        out: the drawing (.png, by default IMAGE-boxes.png), or the folder of a suite.
        method: slicvit, maskclip, sclip, naclip, resnet, selective_search, regionclip, owlvit,
            owlv2, centre, random; by default what fits the model.
        options: of the method, for example --options.published vit14/flickr --options.boxes 3.
        suite: grounding, detection (COCO's AP) or grit.
        format: of the annotations of grounding: flickr, zsg, refcoco or coco.
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
        shard: pictures or samples in one resumable piece.
        device: auto, cpu, cuda or cuda:N.
    """
    localizer = open_localizer(model, method, device, options or {})
    if not suite:
        _one(localizer, image, phrases, out)
        return
    if suite not in SUITES:
        raise UserError(f"suite must be one of {', '.join(SUITES)}, got {suite!r}.")
    if phrases or images is None or out is None:
        raise UserError("A suite takes --images and --out, and no phrases.")
    if domains and suite != "grounding":
        raise UserError("Shifts (--domains) are judged with --suite grounding.")
    if calibrate and suite != "grit":
        raise UserError("--calibrate is for --suite grit, whose samples ask for a confidence.")
    about = {"model": model, "source": str(image), "limit": limit}
    if suite == "grounding" and domains:
        _shifts(localizer, image, images, out, format, limit, several, shard, about, domains, named)
    elif suite == "grounding":
        _grounding(localizer, image, images, out, format, limit, several, shard, about)
    elif suite == "detection":
        _detection(localizer, image, images, out, limit, shard, about)
    else:
        _grit(localizer, image, images, out, limit, subset, tasks, shard, about, calibrate)


def open_localizer(model: str, method: str, device: str, options: dict[str, Any]) -> Any:
    """The localizer `method` on MODEL; without a name the one that fits what is there."""
    from vislang.localize import LOCALIZERS
    from vislang.lookup import lookup

    if method:
        return lookup("localizer", LOCALIZERS, method)(model, device, **options)
    folder = Path(model.partition("local-dir:")[2] or model).expanduser()
    if (folder / "config.json").is_file() and not (folder / "open_clip_config.json").is_file():
        return lookup("localizer", LOCALIZERS, "owlvit")(model, device, **options)
    from vislang.devices import pick_device
    from vislang.models.pretrained import load_model

    dual = load_model(model, pick_device(device))
    inner = getattr(dual.side("image").tower, "model", None)
    fits = "resnet" if hasattr(inner, "attnpool") and hasattr(inner, "layer4") else "slicvit"
    return lookup("localizer", LOCALIZERS, fits)(dual, device, **options)


def _spread(items: list[Any], limit: int) -> list[Any]:
    """`limit` of the items at even distances: the first ones would be of a few pictures."""
    if not 0 < limit < len(items):
        return items
    return [items[k * len(items) // limit] for k in range(limit)]


def _one(localizer: Any, image: Path, phrases: list[str], out: Path | None) -> None:
    from vislang.data.decode import decode
    from vislang.data.sample import BadSample
    from vislang.files import whole_file
    from vislang.localize.draw import sheet

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
        sheet(picture, phrases, found).save(file, "PNG")
    print(f"drawn: {out}")


def _grounding(
    localizer: Any, file: Path, images: Path, out: Path, format: str, limit: int,
    several: str, shard: int, about: dict[str, Any],
) -> None:  # fmt: skip
    from vislang.files import read_json
    from vislang.localize.draw import draw
    from vislang.localize.grounding import run_grounding
    from vislang.localize.phrases import Images, read_phrases
    from vislang.report.boxes import write_boxes

    pictures = Images(images)
    some = read_phrases(format, file, pictures)
    some = _spread(some, limit)
    scores = run_grounding(
        localizer, pictures, some, out, several=several, shard=shard, about=about
    )
    for name in (
        "accuracy_iou50",
        "centre_accuracy_iou50",
        "random_accuracy_iou50",
        "pointing",
        "centre_pointing",
    ):
        value = scores.values[name]
        print(f"{name:<24}{value.value:.4f}  [{value.low:.4f}, {value.high:.4f}]  n={value.n}")
    for note in scores.notes:
        print(f"note: {note}")

    def drawn(record: Any) -> Any:
        picture = pictures.read(record["image"])
        return draw(picture, localizer([picture], [[record["text"]]])[0][0], record["truth"])

    page = write_boxes(scores.as_json(), read_json(out / "records.json"), drawn, out / "boxes.html")
    print(f"records, scores and the page: {page}")


def _shifts(
    localizer: Any, file: Path, images: Path, out: Path, format: str, limit: int, several: str,
    shard: int, about: dict[str, Any], domains: tuple[str, ...], named: bool,
) -> None:  # fmt: skip
    from vislang.data.domains import open_domains
    from vislang.localize.phrases import Images, read_phrases
    from vislang.localize.shifts import run_shifts
    from vislang.report.boxes import write_numbers

    pictures = Images(images)
    some = _spread(read_phrases(format, file, pictures), limit)
    scores = run_shifts(
        localizer, pictures, some, out, open_domains(domains), named=named, several=several,
        shard=shard, about=about,
    )  # fmt: skip
    print(f"{'domain':<24}{'IoU > 0.5':>10}  {'change':>8}")
    for row in scores.tables["domains"]["rows"]:
        print(f"{row[0]:<24}{row[2]:>10.4f}  {row[7]:>+8.4f} [{row[8]:+.4f}, {row[9]:+.4f}]")
    for note in scores.notes:
        print(f"note: {note}")
    page = write_numbers(scores.as_json(), out / "shifts.html", "Grounding under shifts")
    print(f"scores and the page: {page}")


def _detection(
    localizer: Any, file: Path, images: Path, out: Path, limit: int, shard: int,
    about: dict[str, Any],
) -> None:  # fmt: skip
    from dataclasses import replace

    from vislang.localize.detect import read_instances, run_detection
    from vislang.localize.phrases import Images
    from vislang.report.boxes import write_numbers

    instances = read_instances(file)
    kept = _spread(list(instances.images), limit)
    instances = replace(instances, images={i: instances.images[i] for i in kept})
    scores = run_detection(localizer, Images(images), instances, out, shard=shard, about=about)
    for name, value in scores.values.items():
        print(f"{name:<12}{value.value:.4f}  [{value.low:.4f}, {value.high:.4f}]  n={value.n}")
    for note in scores.notes:
        print(f"note: {note}")
    page = write_numbers(scores.as_json(), out / "detection.html", "Detection")
    print(f"detections.json (COCO's result format), scores and the page: {page}")


def _calibrated(folder: Path | None) -> Any:
    from vislang.files import read_json
    from vislang.localize.grit import Confidence

    if folder is None:
        return Confidence()
    if not (folder / "grounding.json").is_file():
        raise UserError(f"{folder} holds no grounding.json: finish --suite grounding there first.")
    overlap = read_json(folder / "grounding.json")["per_sample"]["iou"]
    iou = dict(zip(overlap["ids"], overlap["values"]))
    records = [r for r in read_json(folder / "records.json") if r["scores"]]
    fitted = Confidence.fit([r["scores"][0] for r in records], [iou[r["id"]] for r in records])
    print(f"confidence = 1 / (1 + exp(-({fitted.a:.3g} score + {fitted.b:.3g})))")
    return fitted


def _grit(
    localizer: Any, file: Path, images: Path, out: Path, limit: int, subset: str,
    tasks: tuple[str, ...], shard: int, about: dict[str, Any], calibrate: Path | None = None,
) -> None:  # fmt: skip
    from vislang.files import write_json
    from vislang.localize.grit import (
        BOXED,
        judge_answers,
        read_samples,
        run_grit,
        write_submission,
    )
    from vislang.metrics.grit import aggregate
    from vislang.models.dual import count_parameters

    wrong = [task for task in tasks if task not in BOXED]
    if wrong:
        raise UserError(f"A localizer answers {' and '.join(BOXED)}, not {', '.join(wrong)}.")
    confidence = _calibrated(calibrate)
    samples = _spread(read_samples(file, tasks), limit)
    answers = run_grit(
        localizer, samples, images, out, shard=shard, about=about, progress=print,
        confidence=confidence,
    )  # fmt: skip
    if answers is None:
        print("this process has done its share; the others are not finished yet")
        return
    model = getattr(localizer, "model", None)
    millions = round(count_parameters(model)["total"] / 1e6) if model is not None else 0
    made = write_submission(out / f"{subset}.zip", answers, samples, millions)
    without = [e for some in answers.values() for e in some if "reason" in e]
    for entry in without[:5]:
        print(f"no answer to {entry['example_id']}: {entry['reason']}")
    if len(without) > 5:
        print(f"... and {len(without) - 5} more without an answer")
    print(f"valid submission, {sum(map(len, answers.values()))} answers: {made}")
    if judged := judge_answers(answers, samples):
        write_json(out / "grit.json", aggregate(judged))
        mean = sum(j.metric for j in judged) / len(judged)
        print(f"{len(judged)} samples whose truth is known: mean {100 * mean:.2f}")
