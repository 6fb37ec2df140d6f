"""vislang evaluate: any set of evaluations of a model, from one pass over the images."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.cli.localizing import SUITES as LOCALIZING
from vislang.errors import UserError

if TYPE_CHECKING:
    from vislang.data.sample import Source
    from vislang.evaluate.scores import Scores


def evaluate(
    model: str,
    *,
    source: str = "",
    source_options: dict[str, Any] | None = None,
    train_source: str = "",
    train_options: dict[str, Any] | None = None,
    suite: tuple[str, ...] = (),
    suite_options: dict[str, Any] | None = None,
    texts: Path | None = None,
    dataset: tuple[str, ...] = (),
    data_root: Path = Path("data"),
    out: Path | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Score a model by any set of evaluations; there is one pass over the images for all of them.

    Scores go to OUT/scores/STEP/ as JSON, CSV and Markdown, every number with n and an interval.
    Embeddings go to OUT/stores/ and are used again.

    Args:
        model: a run folder, a checkpoint, or a name such as open_clip:ViT-B-32/openai.
        source: samples to test on: a path whose layout is recognised, layout:path, or a name; of a
            run, by default its data.valid.
        source_options: arguments of the source's layout, for example {split: test}.
        train_source: samples that probe, knn and fewshot learn from; of a run tested on its
            data.valid, by default its data.train; otherwise a part of the source.
        train_options: arguments of that source's layout.
        suite: evaluations, as in zeroshot,retrieval (`vislang list evaluations`); by default all
            that the source has captions or labels for. words, sentences, passages and triplets
            read files of texts alone, SOURCE being their folder; a text tower is enough for them.
            all: everything that the model's sides, the source and TEXTS allow; what cannot be done
            is said and does not stop the others.
            elevater reads its sets below DATA_ROOT, finetune trains on TRAIN_SOURCE; grounding,
            detection and grit read SOURCE as annotations, with the flags of `vislang localize` as
            suite_options: each by itself (docs/evaluation.md).
        suite_options: arguments of evaluations, for example {zeroshot: {prompts: prompts.txt}}.
        texts: with --suite all, a folder below which words, sentences, passages and triplets find
            their files.
        dataset: instead of a source, data sets of the catalogue: all (the fifteen of
            language-guided pre-training), names such as cifar10,dtd, or a YAML file of your own;
            probe and few-shot unless a suite is given. What is missing is said, with how to get it.
        data_root: folder below which these data sets lie.
        out: folder for scores and stores; by default the run folder.
        batch_size: samples a forward pass.
        workers: loader processes; 0 loads in this process.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
    """
    from vislang.data.sources import open_source
    from vislang.evaluate import evaluate as run_evaluations

    run = run_folder(model)
    out = out or run
    if out is None:
        raise UserError(f"{model} is no run folder, so it needs a place for its scores: --out DIR.")
    how = {"batch_size": batch_size, "device": device, "precision": precision, "workers": workers}
    if {"elevater", "finetune"} & set(suite):
        from vislang.cli.learning import evaluate_learning

        given = (source, source_options, train_source, train_options)
        evaluate_learning(model, suite, suite_options, given, (dataset, data_root), out, how)
        return
    if set(LOCALIZING) & set(suite):
        from vislang.cli.localizing import evaluate_localizer

        evaluate_localizer(model, suite, suite_options, source, out, how)
        return
    if suite == ("all",) and dataset:
        raise UserError(
            "--dataset does not go with --suite all: name evaluations, as in --suite probe,fewshot,"
            " or leave --suite out. ELEVATER's sets below --data_root belong to --suite all."
        )
    if suite == ("all",):
        from vislang.cli.everything import evaluate_everything

        given = (source, source_options, train_source, train_options)
        evaluate_everything(model, given, texts, data_root, out, suite_options, how)
        return
    if texts is not None:
        raise UserError(
            "--texts goes with --suite all. For some of the text suites name them and give their"
            " folder as the source: --suite words,sentences --source FOLDER."
        )
    if _texts_alone(suite):
        _evaluate_texts(model, source, out, suite, suite_options, how)
        return
    if dataset:
        _evaluate_catalogue(model, dataset, data_root, out, suite, suite_options, how)
        return
    if not source:
        if run is None:
            raise UserError(f"{model} is no run folder, so it needs samples: --source SOURCE.")
        source, source_options, train_source, train_options = sources_of(
            run, train_source, train_options
        )
    names, suite_options = suite, dict(suite_options or {})
    if not suite:
        opened = open_source(source, **(source_options or {}))
        names, suite_options = fitting(opened, sides_of(model), suite_options)
    # By name, not opened: the scores then say how to open it again, for the report's pictures.
    scores = run_evaluations(
        model, source, names, out, step=step_of(model), options=suite_options,
        source_options=source_options,
        train_source=train_source or None, train_options=train_options,
        **how,
    )  # fmt: skip
    print(table(scores))
    print(f"Scores: {out / 'scores' / f'{step_of(model):09d}'}")
    if run is not None:
        print(f"Next: vislang report {run}")


def _texts_alone(suite: tuple[str, ...]) -> bool:
    """Whether these are evaluations of texts alone; a mixture with others is refused."""
    from vislang.evaluate.text_suites import TEXT_SUITES

    alone = [name for name in suite if name in TEXT_SUITES]
    if alone and len(alone) < len(suite):
        raise UserError(
            f"{', '.join(alone)} read files of texts, the others of the suite read samples:"
            " evaluate them one after the other."
        )
    return bool(alone)


def _evaluate_texts(
    model: str,
    source: str,
    out: Path,
    suite: tuple[str, ...],
    options: dict[str, Any] | None,
    how: dict[str, Any],
) -> None:
    from vislang.evaluate.text_suites import evaluate_texts

    if not source:
        raise UserError(f"{', '.join(suite)} need the folder of their files: --source FOLDER.")
    way = {key: how[key] for key in ("batch_size", "device", "precision")}
    scores = evaluate_texts(model, source, suite, out, options=options, step=step_of(model), **way)
    print(table(scores))
    print(f"Scores: {out / 'scores' / f'{step_of(model):09d}'}")


def _evaluate_catalogue(
    model: str,
    names: tuple[str, ...],
    root: Path,
    out: Path,
    suite: tuple[str, ...],
    options: dict[str, Any] | None,
    how: dict[str, Any],
) -> None:
    from vislang.evaluate.catalogue import SUITE, evaluate_datasets

    found = evaluate_datasets(
        model, names, root, out, suite=suite or SUITE, options=options, step=step_of(model), **how
    )
    print(table([found]))
    for name, why in found.tables.get("missing", {}).get("rows", ()):
        print(f"missing: {name}: {why}")
    print(f"Scores: {out / 'scores' / f'{step_of(model):09d}' / 'datasets.json'}")


def run_folder(model: str) -> Path | None:
    """The run that a MODEL belongs to, if it is a run folder or one of its checkpoints.

    >>> run_folder("open_clip:ViT-B-32/openai")
    """
    path = Path(model)
    for folder in (path, path.parent.parent):
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            return folder
    return None


def step_of(model: str) -> int:
    """Optimizer steps behind a MODEL; 0 where there is no telling."""
    run = run_folder(model)
    if run is None:
        return 0
    if Path(model) == run:
        from vislang.models.saved import newest_checkpoint

        return int(newest_checkpoint(run).name)
    return int(Path(model).name) if Path(model).name.isdigit() else 0


def sources_of(run: Path, train_source: str, train_options: dict[str, Any] | None):
    """The sources that a run names: what it is tested on, and what a probe learns from."""
    from vislang.config import read_config

    data = read_config(run / "config.yaml").data
    if not data.valid:
        raise UserError(f"The run {run} names no data.valid to test on: give --source SOURCE.")
    if train_source:
        return data.valid, data.valid_options, train_source, train_options
    return data.valid, data.valid_options, data.train, data.train_options


def sides_of(model: str) -> tuple[str, ...]:
    """The sides of a MODEL, as far as they can be told without loading it."""
    from vislang.config import ModelConfig, from_dict, read_config
    from vislang.files import read_json
    from vislang.models.saved import NOTE, sides_of

    run = run_folder(model)
    if run is not None:
        return sides_of(read_config(run / "config.yaml").model)
    if (Path(model) / NOTE).is_file():
        return sides_of(from_dict(ModelConfig, read_json(Path(model) / NOTE)["model"], "model"))
    kind = model.partition(":")[0]
    alone = {"timm": "image", "torchvision": "image"} | dict.fromkeys(
        ("huggingface", "sentence_transformers"), "text"
    )
    return (alone[kind],) if kind in alone else ("image", "text")


def fitting(
    source: "Source", sides: Iterable[str], options: dict[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """All evaluations that fit a source and a model's sides, and options with episodes that fit."""
    names, options = tuple(servable(source, sides=sides)), dict(options)
    if "fewshot" in names:
        way = min(5, max(2, len(source.classes)))
        options["fewshot"] = {"way": way} | dict(options.get("fewshot", {}))
    return names, options


def servable(
    source: "Source", names: Iterable[str] = (), sides: Iterable[str] = ("image", "text")
) -> list[str]:
    """Those evaluations (of all, if none are named) for which a source and a model with these
    sides have what they need."""
    return [name for name, why in lacking(source, names, sides).items() if not why]


def lacking(
    source: "Source", names: Iterable[str] = (), sides: Iterable[str] = ("image", "text")
) -> dict[str, str]:
    """What each evaluation (of all, if none are named) lacks, in words; "" where nothing."""
    from vislang.evaluate import EVALUATIONS
    from vislang.evaluate.runner import build_evaluation

    found = {}
    for name in names or EVALUATIONS:
        evaluation = build_evaluation(name)
        try:
            asked = evaluation.requests(source)
        except UserError as error:
            found[name] = str(error).split(". ")[0]
            continue
        wanted = {"image"} if asked.images or asked.features else set()
        if (asked.captions or asked.texts) and not asked.text_optional:
            wanted.add("text")
        lost = sorted(wanted - set(sides))
        found[name] = f"the model has no {' and no '.join(lost)} side" if lost else ""
    return found


def table(scores: Iterable["Scores"]) -> str:
    """Every value with its interval, one a line."""
    rows = [
        (found.evaluation, name, f"{v.value:.4g}", f"{v.low:.4g} to {v.high:.4g}", f"n = {v.n:,}")
        for found in scores
        for name, v in found.values.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)] if rows else []
    return "\n".join("  ".join([*map(str.ljust, row, widths), row[4]]).rstrip() for row in rows)
