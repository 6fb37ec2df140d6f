"""One evaluation of one run: its numbers, tables, confusions, examples, cosines and map."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vislang.report import examples, matrices, scatter, shifts
from vislang.report.collect import Run, Score
from vislang.report.gallery import kept_gallery
from vislang.report.markup import Html, foreign, join, tag
from vislang.report.pictures import Finder, Origin, Pictures
from vislang.report.tables import metrics, named_tables, settings

TITLES = {
    "zeroshot": "Zero-shot classification",
    "retrieval": "Image–text retrieval",
    "probe": "Linear probe",
    "finetune": "Fine-tuning",
    "elevater": "ELEVATER",
    "knn": "Nearest neighbours",
    "cluster": "Clustering",
    "fewshot": "Few-shot episodes",
    "overview": "The shared space",
    "sentences": "Sentences",
    "words": "Words",
    "passages": "Passages",
    "triplets": "Triplets",
    "datasets": "Many data sets",
    "diagnostics": "Feature diagnostics",
    "checkpoints": "Checkpoints under described shifts",
    "robustness": "Robustness to described shifts",
    "transfer": "Probes across domains",
    "subspace": "Class and domain in the embedding",
    "grounding": "Phrase grounding",
    "shifts": "Grounding under shifts",
    "detection": "Detection",
    "grit": "GRIT",
    "typographic": "Words written on images",
    "bias": "Groups of images, groups of captions",
}
# Metrics that a reader looks for first.
HEADLINE = re.compile(
    r"^((same_text_)?(image_to_text|text_to_image)@1|accuracy|ami|accuracy_\d+_way_\d+_shot"
    r"|best_accuracy|wise_accuracy|shifted_accuracy|fitted_on_unchanged_accuracy|domain_share"
    r"|.*: average \(elevater.*\)|(similarity|classes)_mean|mean_(bare|template)|ndcg@10|mrr@10"
    r"|word_wins|accuracy_iou50|centre_accuracy_iou50|AP|AP50|acc\.any\.agg\.loc)$"
)
MOST_HEADLINES = 2  # of one evaluation


def headline_names(metrics: Iterable[str]) -> list[str]:
    """The metrics that a reader looks for first.

    Where captions stand at several images, the recalls that count any of them as right come in
    place of those that ask for the one that was drawn.

    >>> headline_names(["image_to_text@1", "same_text_image_to_text@1", "mean_recall"])
    ['same_text_image_to_text@1']
    """
    found = [name for name in metrics if HEADLINE.match(name)]
    shared = [name for name in found if name.startswith("same_text_")]
    return (shared or found)[:MOST_HEADLINES]


def title_of(score: Score) -> str:
    """What the evaluation is called on the page."""
    title = TITLES.get(score.evaluation) or score.evaluation.replace("_", " ")
    return title if score.name == score.evaluation else f"{title} ({score.name})"


def in_order(scores: Mapping[str, Score]) -> list[Score]:
    """Known evaluations first, in the order of TITLES; others by name."""
    places = {name: place for place, name in enumerate(TITLES)}
    return sorted(scores.values(), key=lambda score: (places.get(score.evaluation, 99), score.name))


def evaluation(run: Run, score: Score, finder: Finder, id_: str) -> Html:
    """Everything that the file of one evaluation holds."""
    pictures = finder.find(
        _wanted(score), origins(run, score), str(score.provenance.get("source_fingerprint") or "")
    )
    at = f"step {score.step:,}" if score.step is not None else score.at
    facts = [foreign(at, 60)]
    facts += [f"n = {score.n:,}"] if score.n is not None else []
    source = score.provenance.get("source")
    facts += [foreign(source, 120)] if source else []
    return tag(
        "section",
        tag("h3", foreign(title_of(score), 80)),
        tag("p", [tag("span", fact) for fact in facts], class_="meta"),
        _values_and_notes(score),
        [tag("p", foreign(note), class_="missing") for note in pictures.notes],
        _parts(score, pictures, _classes(run)),
        kept_gallery(run.folder, score.provenance.get("gallery")),
        _provenance(score),
        id=id_,
        class_="evaluation",
    )


def _notes(score: Score) -> list[str]:
    """What the evaluation itself wants a reader to know."""
    notes = score.body.get("notes")
    return [str(note) for note in notes[:20]] if isinstance(notes, list) else []


def _values_and_notes(score: Score) -> list[Html]:
    """Values, then small print; what an analysis found in words comes before its values."""
    told = score.evaluation in shifts.TOLD
    notes = [tag("p", foreign(note), class_=None if told else "note") for note in _notes(score)]
    values = metrics(score.values, f"{title_of(score)}: values")
    return [*notes, values] if told else [values, *notes]


def _parts(score: Score, pictures: Pictures, order: Sequence[str]) -> list[Html]:
    shown: list[Html] = []
    if "confusion" in score.body:
        shown += [tag("h4", "Confusion matrix"), *matrices.confusion(score.mapping("confusion"))]
    if "examples" in score.body:
        items = score.items("examples")
        shown += (
            examples.examples(items, pictures)
            if items
            else [tag("p", "The file holds no examples.", class_="missing")]
        )
    if "cosine" in score.body:
        shown += [
            tag("h4", "Pictures × captions"),
            *matrices.cosine(score.mapping("cosine"), pictures),
        ]
    if "map" in score.body:
        shown += [
            tag("h4", "Map of embeddings"),
            *scatter.scatter(score.mapping("map"), pictures, order),
        ]
    drawn, instead = shifts.draw(score)
    shown += drawn
    left = {name: body for name, body in score.mapping("tables").items() if name not in instead}
    tables = named_tables(left)
    return [*shown, tag("div", tables, class_="tables")] if tables else shown


def _classes(run: Run) -> list[str]:
    """Names of the classes in the order of their indices, from any confusion matrix of the run."""
    for score in run.latest.values():
        classes = score.mapping("confusion").get("classes")
        if isinstance(classes, list):
            return [str(name) for name in classes]
    return []


def _wanted(score: Score) -> Iterator[str]:
    """Ids of all pictures that `_parts` will show."""
    yield from examples.shown_images(score.items("examples"))
    yield from matrices.shown_images(score.mapping("cosine"))
    yield from (point[0] for point in scatter.points_of(score.mapping("map"))[0])


def origins(run: Run, score: Score) -> list[Origin]:
    """Where the pictures of a score may lie, best guess first."""
    found = []
    named = score.provenance.get("source")
    sides = [
        (run.get(f"data.{side}"), run.get(f"data.{side}_options")) for side in ("valid", "train")
    ]
    if isinstance(named, str) and named:
        own = score.provenance.get("source_options")
        options = next((o for spec, o in sides if spec == named), None)
        found.append((named, own if isinstance(own, Mapping) else options))
    found += sides
    unique: dict[str, Origin] = {}
    for spec, options in found:
        if isinstance(spec, str) and spec:
            origin = Origin(spec, dict(options) if isinstance(options, Mapping) else {})
            unique.setdefault(origin.key, origin)
    return list(unique.values())


def _provenance(score: Score) -> Html:
    if not score.provenance:
        return tag(
            "p", "The file does not say what these numbers were made from.", class_="missing"
        )
    return tag(
        "details",
        tag("summary", "Provenance of these numbers"),
        join(settings(score.provenance, f"{title_of(score)}: provenance")),
    )
