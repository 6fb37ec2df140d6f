"""Whole benchmarks of localization: behind `vislang localize --suite` and `vislang evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.errors import UserError

if TYPE_CHECKING:
    from vislang.evaluate.scores import Scores

SUITES = ("grounding", "detection", "grit")


@dataclass(frozen=True)
class Suite:
    """What the flags of `vislang localize` ask for; they say what each field means."""

    name: str
    model: str
    file: Path
    images: Path
    out: Path
    method: str
    options: dict[str, Any]
    format: str
    limit: int
    several: str
    domains: tuple[str, ...]
    named: bool
    subset: str
    tasks: tuple[str, ...]
    calibrate: Path | None
    deltas: Path | None
    out_of_range: str
    shard: int
    engine: str
    processes: int
    device: str

    @property
    def about(self) -> dict[str, Any]:
        """What the records depend on besides the localizer."""
        return {"model": self.model, "source": str(self.file), "limit": self.limit}

    def spread(self, items: list[Any]) -> list[Any]:
        """`limit` of the items at even distances: the first ones would be of a few pictures."""
        if not 0 < self.limit < len(items):
            return items
        return [items[k * len(items) // self.limit] for k in range(self.limit)]

    def open(self) -> Any:
        """The localizer; where processes open it for themselves, this one needs no accelerator."""
        from vislang.localize.opening import open_localizer

        device = self.device if self.engine == "serial" else "cpu"
        return open_localizer(self.model, self.method, device, self.options)


def run_suite(suite: Suite) -> Scores:
    """Run one of SUITES, print what it found, write its page."""
    check(suite)
    localizer = suite.open()
    if suite.name == "grounding":
        return (_shifts if suite.domains else _grounding)(suite, localizer)
    return (_detection if suite.name == "detection" else _grit)(suite, localizer)


def check(suite: Suite) -> None:
    """Refuse what does not go together."""
    if suite.domains and suite.name != "grounding":
        raise UserError("Shifts (--domains) are judged with --suite grounding.")
    if suite.calibrate and suite.name != "grit":
        raise UserError("--calibrate is for --suite grit, whose samples ask for a confidence.")
    if suite.deltas and (suite.name != "grit" or suite.images.name != "images"):
        raise UserError(
            "--deltas is for --suite grit, whose --images must then be the folder GRIT/images."
        )
    if suite.engine != "serial" and suite.name != "grit":
        raise UserError("--engine is for --suite grit, the one of many thousand samples.")


def evaluate_localizer(
    model: str,
    suites: tuple[str, ...],
    options: Mapping[str, Any] | None,
    source: str,
    out: Path,
    how: Mapping[str, Any],
) -> None:
    """`vislang evaluate --suite grounding|detection|grit`: the suite of `vislang localize`.

    Its records lie in OUT/localize/SUITE, its scores beside those of the other evaluations.

    Args:
        model: a MODEL.
        suites: one of SUITES.
        options: suite -> flags of `vislang localize` without their dashes.
        source: the annotations.
        out: the run folder, or another for scores.
        how: device, precision.
    """
    from vislang.cli.arguments import read_arguments
    from vislang.cli.evaluate import step_of
    from vislang.cli.localize import localize, suite_of
    from vislang.evaluate.scores import write_scores

    name = next(name for name in SUITES if name in suites)
    if len(suites) > 1:
        raise UserError(f"{name} has annotations of its own: evaluate it by itself.")
    own = dict((options or {}).get(name, {}))
    if not source or "images" not in own:
        raise UserError(
            f"{name} needs its annotations and the folder of their pictures:"
            f" --source FILE --suite_options.{name}.images FOLDER. Its other options are the flags"
            f" of `vislang localize`, as in --suite_options.{name}.method maskclip."
        )
    if how.get("precision", "auto") != "auto":
        own["options"] = {"precision": how["precision"], **(own.get("options") or {})}
    place = out / "localize" / name
    given = {"suite": name, "out": str(place), "device": how["device"], **own}
    flags = [f"--{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in given.items()]
    arguments = read_arguments(localize, [model, source, *flags], "vislang localize")
    assert arguments is not None
    scores = run_suite(suite_of(**arguments))
    # How the report says to do it again.
    scores.provenance.update(suite=name, suite_options=own)
    gallery = Path(arguments["out"]) / "gallery.json"
    if gallery.is_file() and gallery.resolve().is_relative_to(out.resolve()):
        scores.provenance["gallery"] = str(gallery.resolve().relative_to(out.resolve()))
    print(f"Scores: {write_scores(scores, out / 'scores' / f'{step_of(model):09d}')}")


def _grounding(suite: Suite, localizer: Any) -> Scores:
    from vislang.files import read_json
    from vislang.localize.grounding import run_grounding
    from vislang.localize.phrases import Images, read_phrases
    from vislang.report.boxes import write_boxes

    pictures = Images(suite.images)
    some = suite.spread(read_phrases(suite.format, suite.file, pictures))
    scores = run_grounding(
        localizer, pictures, some, suite.out, several=suite.several, shard=suite.shard,
        about=suite.about,
    )  # fmt: skip
    for name in (
        "accuracy_iou50", "centre_accuracy_iou50", "random_accuracy_iou50", "over_centre_iou50",
        "pointing", "centre_pointing", "random_pointing",
    ):  # fmt: skip
        value = scores.values[name]
        print(f"{name:<24}{value.value:.4f}  [{value.low:.4f}, {value.high:.4f}]")
    pictures_asked = scores.values["accuracy_iou50"].n
    print(f"{scores.n} phrases in {pictures_asked} pictures")
    _notes(scores)
    records = read_json(suite.out / "records.json")
    draw = _drawer(localizer, pictures)
    page = write_boxes(
        scores.as_json(), records, draw, suite.out / "boxes.html",
        more=_superpixels(localizer, pictures, records),
    )  # fmt: skip
    print(f"records, scores and the page: {page}")
    return scores


def _drawer(localizer: Any, pictures: Any) -> Callable[[Mapping[str, Any]], Any]:
    from vislang.localize.draw import draw

    def drawn(record: Mapping[str, Any]) -> Any:
        picture = pictures.read(record["image"])
        return draw(picture, localizer([picture], [[record["text"]]])[0][0], record["truth"])

    return drawn


def _superpixels(localizer: Any, pictures: Any, records: list[dict[str, Any]]) -> list[Any]:
    """The coarsest and the finest level of one picture, if the localizer has superpixels."""
    usable = [r for r in records if not r["reason"]]
    if not usable or not hasattr(localizer, "segments"):
        return []
    from vislang.localize.draw import drawn_segments
    from vislang.report.gallery import picture

    shown = drawn_segments(pictures.read(usable[0]["image"]), localizer)
    cards = [{"text": text, "told": "", **picture(image)} for text, image in shown]
    return [{"title": "Superpixels", "cards": cards}]


def _shifts(suite: Suite, localizer: Any) -> Scores:
    from vislang.data.domains import open_domains
    from vislang.localize.phrases import Images, read_phrases
    from vislang.localize.shifts import run_shifts
    from vislang.report.boxes import write_numbers

    pictures = Images(suite.images)
    some = suite.spread(read_phrases(suite.format, suite.file, pictures))
    scores = run_shifts(
        localizer, pictures, some, suite.out, open_domains(suite.domains), named=suite.named,
        several=suite.several, shard=suite.shard, about=suite.about,
    )  # fmt: skip
    print(f"{'domain':<24}{'IoU > 0.5':>10}  {'change':>8}")
    for row in scores.tables["domains"]["rows"]:
        print(f"{row[0]:<24}{row[2]:>10.4f}  {row[7]:>+8.4f} [{row[8]:+.4f}, {row[9]:+.4f}]")
    _notes(scores)
    page = write_numbers(scores.as_json(), suite.out / "shifts.html", "Grounding under shifts")
    print(f"scores and the page: {page}")
    return scores


def _detection(suite: Suite, localizer: Any) -> Scores:
    from vislang.localize.detect import read_instances, run_detection
    from vislang.localize.phrases import Images
    from vislang.report.boxes import write_numbers

    instances = read_instances(suite.file)
    kept = suite.spread(list(instances.images))
    instances = replace(instances, images={i: instances.images[i] for i in kept})
    scores = run_detection(
        localizer, Images(suite.images), instances, suite.out, shard=suite.shard, about=suite.about
    )
    for name, value in scores.values.items():
        print(f"{name:<12}{value.value:.4f}  [{value.low:.4f}, {value.high:.4f}]  n={value.n}")
    _notes(scores)
    page = write_numbers(scores.as_json(), suite.out / "detection.html", "Detection")
    print(f"detections.json (COCO's result format), scores and the page: {page}")
    return scores


def _grit(suite: Suite, localizer: Any) -> Scores:
    from vislang.evaluate.provenance import versions
    from vislang.files import write_json
    from vislang.localize.grit import grit_scores, judge_answers, run_grit
    from vislang.localize.grit_format import write_submission
    from vislang.localize.grit_samples import BOXED, make_distorted, read_samples
    from vislang.localize.opening import Opening
    from vislang.report.boxes import write_numbers

    wrong = [task for task in suite.tasks if task not in BOXED]
    if wrong:
        raise UserError(f"A localizer answers {' and '.join(BOXED)}, not {', '.join(wrong)}.")
    millions = _millions(localizer)
    confidence = _calibrated(suite.calibrate)
    samples = suite.spread(read_samples(suite.file, suite.tasks))
    if suite.deltas:
        root = suite.images.parent
        made = make_distorted(root, samples, suite.deltas, suite.out_of_range)
        print(f"{made} distorted pictures made")
    if suite.engine != "serial":
        localizer = Opening.of(localizer, suite.model, suite.device)
    answers = run_grit(
        localizer, samples, suite.images, suite.out, shard=suite.shard, about=suite.about,
        progress=print, confidence=confidence, engine=suite.engine,
        workers=suite.processes or None,
    )  # fmt: skip
    told = {"localizer": localizer.name, "options": localizer.settings, **suite.about}
    provenance = {"model": suite.model, "source": str(suite.file), "settings": told,
                  "versions": versions()}  # fmt: skip
    if answers is None:
        print("this process has done its share; the others are not finished yet")
        return grit_scores([], provenance)
    file = write_submission(suite.out / f"{suite.subset}.zip", answers, samples, millions)
    without = [e for some in answers.values() for e in some if "reason" in e]
    for entry in without[:5]:
        print(f"no answer to {entry['example_id']}: {entry['reason']}")
    if len(without) > 5:
        print(f"... and {len(without) - 5} more without an answer")
    print(f"valid submission, {sum(map(len, answers.values()))} answers: {file}")
    judged = judge_answers(answers, samples)
    scores = grit_scores(judged, provenance)
    if judged:
        write_json(suite.out / "grit.json", scores.as_json())
        mean = sum(j.metric for j in judged) / len(judged)
        print(f"{len(judged)} samples whose truth is known: mean {100 * mean:.2f}")
        page = write_numbers(scores.as_json(), suite.out / "grit.html", "GRIT")
        print(f"scores and the page: {page}")
    return scores


def _millions(localizer: Any) -> int:
    from vislang.models.dual import count_parameters

    model = getattr(localizer, "model", None)
    return round(count_parameters(model)["total"] / 1e6) if model is not None else 0


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


def _notes(scores: Scores) -> None:
    for note in scores.notes:
        print(f"note: {note}")
