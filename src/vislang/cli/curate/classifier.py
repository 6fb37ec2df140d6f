"""vislang curate classifier: train a classifier of described domains."""

import sys
from pathlib import Path
from typing import Any

from vislang.errors import UserError


def classifier(
    model: str = "",
    *,
    out: Path,
    words: Path | None = None,
    source: str = "",
    source_options: dict[str, Any] | None = None,
    domains: tuple[str, ...] = ("described",),
    sentences: dict[str, list[str]] | None = None,
    merge: dict[str, list[str]] | None = None,
    pictures: Path | None = None,
    judge: Path | None = None,
    kind: str = "mlp",
    epochs: int = 10,
    batch_size: int = 32,
    lr: float = 2e-3,
    held_out: float = 0.1,
    calibrate: bool = True,
    top: tuple[int, ...] = (100, 1000, 10000),
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Train a classifier of domains on sentences, on pictures, or make one of sentences alone.

    Writes OUT/classifier.safetensors, classifier.json and report.html.

    Args:
        model: MODEL whose text side embeds the sentences; the one that made the collection.
        out: folder.
        words: a file with one class word a line.
        source: a source whose class names are the words, in place of a file.
        source_options: arguments of its layout.
        domains: names (`vislang list domains`).
        sentences: domain -> other templates for it, each with {} for the class word.
        merge: new name -> domains to take as one, as in {hazy: [blur, foggy]}.
        pictures: learn from a store of images x domains (`vislang probe` makes one) instead.
        judge: a store of images x domains to judge the classifier on.
        kind: mlp, linear, or prompts (no training: cosine with the mean sentence).
        epochs: passes.
        batch_size: rows a step.
        lr: peak learning rate.
        held_out: share of the class words kept for the report and the calibration.
        calibrate: choose the temperature on the held-out rows.
        top: K of the purity in the judgement.
        seed: of weights, order and split.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
    """
    from vislang.curate.classifier import Fit, train_classifier
    from vislang.curate.sentences import (
        classifier_of_sentences,
        overlap_warning,
        reword,
        teach_pictures,
        teach_sentences,
    )  # fmt: skip
    from vislang.data.domains import open_domains
    from vislang.store import DomainStore

    chosen = reword(open_domains(list(domains)), sentences, merge)
    if pictures is not None:
        taught = teach_pictures(DomainStore(pictures))
    else:
        if not model:
            raise UserError("vislang curate classifier needs a MODEL (or --pictures STORE).")
        if warning := overlap_warning(chosen):
            print(warning, file=sys.stderr)
        taught = teach_sentences(
            model, chosen, _words(words, source, source_options or {}), device=device,
            precision=precision,
        )  # fmt: skip
    if kind == "prompts":
        made = classifier_of_sentences(taught)
    else:
        fit = Fit(kind, epochs, batch_size, lr, held_out, calibrate, seed)
        made = train_classifier(taught.rows, taught.labels, taught.names, taught.groups, fit)
    made.about |= {
        "model": model or str(pictures),
        "learnt_from": "pictures" if pictures else "sentences",
    }
    made.save(out)
    print(f"Classifier of {len(made.names)} domains, width {made.width}: {out}")
    for name, value in made.about.get("held_out", {}).items():
        print(f"  held out, {name}: {value:.4g}")
    judged = _judge(made, judge, top) if judge is not None else None
    from vislang.report.classifier import write_classifier

    print(f"Page: {write_classifier(made, judged, out / 'report.html')}")


def _words(path: Path | None, source: str, options: dict[str, Any]) -> list[str]:
    if path is not None:
        try:
            return path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The words {path} cannot be read ({error}).") from error
    if source:
        from vislang.data.class_words import class_words
        from vislang.data.sources import open_source

        return [word for some in class_words(open_source(source, **options)) for word in some]
    raise UserError("Give class words: --words FILE (one a line), or --source SOURCE with classes.")


def _judge(made: Any, store: Path, top: tuple[int, ...]) -> Any:
    import torch

    from vislang.curate.judged import judge_classifier
    from vislang.curate.sentences import teach_pictures
    from vislang.store import DomainStore

    opened = DomainStore(store)
    missing = set(made.names) - set(opened.domains)
    if missing:
        raise UserError(f"{store} has no pictures of the domains {', '.join(sorted(missing))}.")
    shown = teach_pictures(opened, made.names)
    with torch.inference_mode():
        log_probs = made.log_probs(torch.from_numpy(shown.rows)).numpy()
    judged = judge_classifier(log_probs, shown.labels, top)
    print(
        f"On pictures: accuracy {judged.accuracy:.1%}, AMI {judged.ami:.3f}, n {len(shown.rows):,}"
    )
    for k in judged.makeup:
        print(f"  purity of the top {k:,}: {judged.purity(k).mean():.1%}")
    return judged
