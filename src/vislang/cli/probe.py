"""vislang probe: under which described shifts a model breaks, and whether words repair it."""

import sys
from pathlib import Path
from typing import Any

from vislang.errors import UserError


def probe(
    model: str,
    source: str,
    *,
    out: Path,
    source_options: dict[str, Any] | None = None,
    domains: tuple[str, ...] = ("described",),
    sentences: dict[str, list[str]] | None = None,
    axes: str = "corrected",
    analyses: tuple[str, ...] = (),
    analysis_options: dict[str, Any] | None = None,
    words: Path | None = None,
    prompts: tuple[str, ...] = ("standard", "own", "official"),
    bias: Path | None = None,
    photos: Path | None = None,
    checkpoints: tuple[str, ...] = (),
    start: str = "",
    part: str = "1/1",
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Show how a model breaks under described image shifts, and how far words bring it back.

    Embeds every image under every domain, and the prompts; the same command again goes on where
    it stopped. Writes scores, the CSV tables and one report.html into OUT.

    Args:
        model: a run folder, a checkpoint, or a name such as open_clip:ViT-B-32/openai.
        source: labelled images: a path whose layout is recognised, layout:path, or a name.
        out: folder for stores, scores, tables and report.html.
        source_options: arguments of the source's layout, for example {split: val}.
        domains: described (the 18), cifar, imagenet_c, single names, or package.module:function;
            unchanged images (noop) are always among them.
        sentences: of your own domains, as in {my.module:neon: ['a neon photo of a {}']}.
        axes: of the background mask: corrected, or original for the swapped ones.
        analyses: any of robustness,transfer,subspace,typographic,bias; by default all but bias,
            which needs --bias.
        analysis_options: arguments of analyses, for example {transfer: {test: 0.2}}.
        words: file of 'class<tab>word, word' lines: what prompts call each class.
        prompts: kinds to embed: standard and own, and official, ImageNet's 80 templates a class,
            which take most of the time where classes are many; they need open_clip's package.
        bias: folder with a folder of images and a text file of captions for each group.
        photos: CSV file of real photos with words on them: file, object, written_word.
        checkpoints: of a run: all, or steps, in place of the analyses: how accuracy changes along
            the run, which checkpoint a valid split of the images chooses, what the others say of
            it, and the models between it and the start; analysis_options.checkpoints may have
            choose, valid, alphas and seed.
        start: the model that checkpoints are compared with; by default that of step 0, or else the
            earliest.
        part: I/N embeds the I-th of N parts, which may run at the same time; the analyses run
            when all parts are done.
        seed: of domains that draw at random.
        batch_size: images a forward pass.
        workers: processes that make the shifted images; 0 makes them in this one.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
    """
    from vislang.evaluate.analyses import OF_DOMAINS, Probed, build_analyses, run_analyses
    from vislang.models.pretrained import load_model
    from vislang.report import write_report

    how: dict[str, Any] = {"device": device, "precision": precision, "workers": workers}
    shifts = {"domains": list(domains), "sentences": sentences, "axes": axes, "seed": seed}
    shifts |= {"words": words, "kinds": prompts}
    if checkpoints:
        if analyses or bias or photos or part != "1/1":
            raise UserError("--checkpoints takes no --analyses, --bias, --photos and --part.")
        given = labelled(source, source_options)
        told = {"source": source, "source_options": source_options or {}}
        _along_a_run(
            model, given, out, checkpoints, start, shifts, batch_size, how, told, analysis_options
        )
        return
    names, options = asked(analyses, analysis_options or {}, bias, photos)
    chosen, number = build_analyses(names, options), part_of(part)
    opened, loaded = labelled(source, source_options), load_model(model)
    rows = None
    if set(names) & set(OF_DOMAINS):
        rows = _store(loaded, opened, shifts, out, number, batch_size, how)
        if rows is None:
            print(f"Part {part} is embedded. The analyses run when all {number[1]} parts are.")
            return
    probed = Probed(loaded, opened, rows, out / "stores", how | {"batch_size": batch_size})
    step, made = _step_of(model), _provenance(model, source, source_options, probed, seed)
    found, failures = run_analyses(chosen, probed, out, step=step, provenance=made)
    for scores in found:
        print(f"\n{scores.evaluation} (n = {scores.n:,})")
        print("\n".join(f"  {note}" for note in scores.notes))
    if not found:
        raise UserError(" ".join(failures))
    print(f"\nScores: {out / 'scores' / step}\nReport: {write_report([out], out)}")
    if failures:
        raise UserError(" ".join(failures) + f" The other {len(found)} analyses are written.")


def labelled(source: str, options: dict[str, Any] | None) -> Any:
    """The opened source, which must have labels."""
    from vislang.data.sources import open_source

    opened = open_source(source, **(options or {}))
    if "label" not in opened.gives:
        raise UserError(
            f"vislang probe needs labelled images, but the source {opened.name!r} gives"
            f" {', '.join(sorted(opened.gives))}. Use a folder of class folders, for example; a"
            " single class folder counts as a folder of images."
        )
    return opened


def _along_a_run(
    run, source, out: Path, which, start: str, shifts, batch: int, how, origin, options
) -> None:
    """`--checkpoints`: all of them judged, and the page."""
    from vislang.evaluate.analyses import build_along
    from vislang.evaluate.checkpoint_job import probe_checkpoints
    from vislang.report import write_report

    analysis = build_along(options or {})
    scores = probe_checkpoints(
        run, source, out, which=which, start=start, analysis=analysis, shifts=shifts,
        batch=batch, how=how, origin=origin, on_progress=_show,
    )  # fmt: skip
    print("\n".join(scores.notes))
    print(f"\nScores: {out / 'scores'}\nReport: {write_report([out], out)}")


def asked(
    analyses: tuple[str, ...], options: dict[str, Any], bias: Path | None, photos: Path | None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names of the analyses, and their options with --bias and --photos filled in.

    >>> asked((), {}, Path("groups"), None)[0][-1]
    'bias'
    """
    from vislang.evaluate.analyses import ANALYSES

    names = tuple(analyses) or tuple(name for name in ANALYSES if name != "bias")
    if bias is not None and "bias" not in names:
        names = (*names, "bias")
    options = {name: dict(given) for name, given in options.items()}
    for name, key, path in (("bias", "folder", bias), ("typographic", "photos", photos)):
        if path is not None and name in names:
            options[name] = {key: str(path)} | options.get(name, {})
    return names, options


def part_of(text: str) -> tuple[int, int]:
    """(position from 0, number of parts) of I/N.

    >>> part_of("2/3")
    (1, 3)
    """
    number, slash, parts = text.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise UserError(f"--part must be I/N with I from 1 to N, such as 2/3; got {text!r}.")
    return int(number) - 1, int(parts)


def _store(model, source, shifts: dict[str, Any], out: Path, part, batch: int, how):
    """The images under every domain, embedded; None while other parts are missing."""
    from vislang.embed import embed_domains
    from vislang.files import fingerprint
    from vislang.models.fingerprint import fingerprint_model

    words = shifts["words"]
    given = words.read_text(encoding="utf-8-sig", errors="replace") if words else ""
    key = [fingerprint_model(model), source.fingerprint, shifts | {"words": given}, batch]
    name = f"{source.name}-domains-{fingerprint(key)[:8]}".replace("/", "-")
    found = embed_domains(
        {"model": model}, source, folder=out / "stores" / name, batch=batch, part=part,
        on_progress=_show, **shifts, **how,
    )  # fmt: skip
    return found.get("model")


def _provenance(model: str, source: str, source_options, probed, seed: int) -> dict[str, Any]:
    from vislang.evaluate.provenance import versions
    from vislang.models.fingerprint import fingerprint_model

    rows = probed.rows
    return {
        "model": model,
        "model_fingerprint": fingerprint_model(probed.model),
        "source": source,
        "source_options": dict(source_options or {}),
        "source_fingerprint": probed.source.fingerprint,
        "settings": {
            "domains": list(rows.domains) if rows is not None else [],
            "seed": seed,
            **{key: probed.how[key] for key in ("batch_size", "device", "precision")},
        },
        "versions": versions(),
    }


def _step_of(model: str) -> str:
    from vislang.cli.evaluate import step_of

    return f"{step_of(model):09d}"


def _show(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\r{done:,} of {total:,} images", end=end, file=sys.stderr, flush=True)
