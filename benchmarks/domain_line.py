"""The whole line of described domains on real pictures, from a "web collection" to fine-tuning.

    VISLANG_TEST_DATA=... python benchmarks/domain_line.py [--out runs/domains] [--steps 400]

1. Tiny ImageNet pictures of ten classes, each under a domain chosen at random, are put on a
   loopback server; their captions say the class alone.  A small dual encoder, trained on other
   pictures with sentences that name the domain, stands for the CLIP that embedded the collection.
2. classifier (text only) -> score -> sample -> fetch -> collage, each by the library's functions.
3. Purity of the best K of each domain against the known truth.
4. Fine-tuning from the same start, with the same budget, on domain-pure and on uniform batches of
   the fetched pictures: the learning rate of each is chosen by a sweep on valid pictures, then
   three seeds (those after the first on the first one's data, by `data.from_run`), with
   checkpoints at fractions of an epoch.
5. All checkpoints under the domains; of each run the one that a valid split chooses, and on the
   test split the paired difference between the two kinds of batches with its interval.

Everything is written below --out and ends in its report.html; the same command again starts anew.
"""

import argparse
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
DOMAINS = ("brighten", "dim", "noop", "sepia", "sketchify")
CLASSES, PER_CLASS, SIDE, WIDTH = 10, (50, 90, 10, 25), 32, 64  # start, web, valid, judged
RATES = (1e-5, 1e-4, 1e-3)


def read_pictures() -> dict[str, list[tuple[str, np.ndarray]]]:
    """Split -> (class word, uint8 [64, 64, 3])."""
    from vislang.data.decode import decode

    root = os.environ.get("VISLANG_TEST_DATA")
    if not root:
        raise SystemExit("set VISLANG_TEST_DATA to the folder with tiny-imagenet-200-subset")
    root = Path(root) / "tiny-imagenet-200-subset"
    lines = (root / "words_200.txt").read_text().splitlines()
    words = dict(line.split("\t")[:2] for line in lines[:CLASSES])
    found: dict[str, list] = {"start": [], "web": [], "valid": [], "judged": []}
    of_class: dict[str, list[bytes]] = {wnid: [] for wnid in words}
    for name in ("train_60.zip", "train_90_more.zip", "val_25.zip"):
        known = {}
        if name.startswith("val"):
            rows = (root / "val_annotations.txt").read_text().splitlines()
            known = {row.split("\t")[0]: row.split("\t")[1] for row in rows}
        with zipfile.ZipFile(root / name) as archive:
            for entry in sorted(archive.namelist()):
                wnid = known.get(Path(entry).name) or entry.split("/")[1]
                if wnid in of_class and entry.endswith(".JPEG"):
                    of_class[wnid].append(archive.read(entry))
    for wnid, data in of_class.items():
        word, at = words[wnid].split(",")[0], 0
        for split, count in zip(found, PER_CLASS):
            found[split] += [(word, decode(one)) for one in data[at : at + count]]
            at += count
    return found


def under(pixels: np.ndarray, domain: str, id: str) -> np.ndarray:
    """A picture under one domain."""
    from vislang.data.domains import DOMAINS as TABLE
    from vislang.data.domains import apply_domains

    made = apply_domains(pixels, [TABLE[domain]], seed=0, id=id)[0]
    assert isinstance(made, np.ndarray), made
    return made


def jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def config(train: str, steps: int, batch: int, **changes: Any) -> Any:
    """A small dual encoder whose towers are the whole model, so that a start can be loaded."""
    from vislang.config import (
        DataConfig,
        ModelConfig,
        ObjectiveConfig,
        OptimConfig,
        RunConfig,
        TowerConfig,
        TrainConfig,
    )  # fmt: skip

    size = {"width": WIDTH, "depth": 2, "heads": 4}
    start = changes.pop("start", None)
    weights = str(start / "model.safetensors") if start else ""
    return TrainConfig(
        recipe="domains",
        model=ModelConfig(
            TowerConfig("scratch_vit", {"image_size": SIDE, "patch": 8, **size}, weights, "none"),
            TowerConfig("scratch_text", {"tokenizer": "bytes", "context": 64, **size}, weights,
                        "none"), width=WIDTH),
        objective=ObjectiveConfig("infonce"),
        data=DataConfig(train=train, batch_size=batch, workers=0, augment="none",
                        from_run=changes.get("from_run", ""), valid=changes.get("valid", "")),
        optim=OptimConfig(lr=changes.get("lr", 1e-3), steps=steps, warmup=0.1),
        run=RunConfig(seed=changes.get("seed", 0), device="cpu", precision="fp32", threads=1,
                      keep=1, tensorboard=False, diagnostics_every="", log_every=20,
                      checkpoint_every=f"{steps} steps",
                      checkpoint_at=changes.get("checkpoint_at", ()),
                      evaluations=("zeroshot",) if changes.get("valid") else ()),
    )  # fmt: skip


def train_start(pictures: list, folder: Path, steps: int) -> Path:
    """The model that stands for CLIP: each picture under every domain, with a sentence of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from vislang.data.domains import DOMAINS as TABLE
    from vislang.train import train

    rows: dict[str, list] = {"image": [], "caption": []}
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, (word, pixels) in enumerate(pictures):
        for domain in DOMAINS:
            name = f"{number:05d}-{domain}.jpg"
            (folder / "images" / name).write_bytes(jpeg(under(pixels, domain, name)))
            rows["image"].append(name)
            rows["caption"].append(str(rng.choice(TABLE[domain].templates)).replace("{}", word))
    pq.write_table(pa.table(rows), folder / "table.parquet")
    made = config(f"table:{folder / 'table.parquet'}", steps, 64)
    from vislang.config import with_changes

    options = {"images_root": str(folder / "images")}
    return train(with_changes(made, {"data.train_options": options}), folder / "run")


def embed(model: Any, pictures: list[np.ndarray]) -> np.ndarray:
    import torch

    side, rows = model.side("image"), []
    with torch.no_grad():
        for first in range(0, len(pictures), 128):
            batch = [side.tower.prepare(p) for p in pictures[first : first + 128]]
            rows.append(side(torch.stack(batch)).numpy())
    return np.concatenate(rows)


def make_web(model: Any, pictures: list, root: Path, base: str) -> tuple[dict[int, bytes], list]:
    """(row -> JPEG on the server, row -> domain), and the collection in LAION's layout."""
    from curate_parts import add_part

    rng = np.random.default_rng(1)
    truth = [str(d) for d in rng.choice(DOMAINS, len(pictures))]
    shown = [under(p, d, str(i)) for i, ((_, p), d) in enumerate(zip(pictures, truth))]
    rows = embed(model, shown).astype(np.float16)
    urls = [f"{base}/good/{i}.jpg" for i in range(len(shown))]
    captions = [word for word, _ in pictures]
    columns = {"url": urls, "caption": captions, "NSFW": ["UNLIKELY"] * len(urls)}
    half = len(rows) // 2
    for number, part in enumerate((slice(0, half), slice(half, None))):
        some = {name: values[part] for name, values in columns.items()}
        add_part(root, "web", number, rows[part], some)
    return {i: jpeg(p) for i, p in enumerate(shown)}, truth


def write_folders(pictures: list, folder: Path, domains: tuple[str, ...]) -> Path:
    """Pictures as a folder of class folders, each under every one of these domains."""
    for number, (word, pixels) in enumerate(pictures):
        for domain in domains:
            name = f"{number:05d}-{domain}.png"
            (folder / word).mkdir(parents=True, exist_ok=True)
            from PIL import Image

            Image.fromarray(under(pixels, domain, name)).save(folder / word / name)
    return folder


def curate(web: Path, model: Any, words: list[str], out: Path, k: int) -> Any:
    """Classifier of sentences, scores, sample; returns the classifier and the sample's table."""
    from vislang.curate.classifier import Fit, train_classifier
    from vislang.curate.collections import open_collection
    from vislang.curate.sample import Duplicates, read_sample, sample_top
    from vislang.curate.score import Scoring, score_collection
    from vislang.curate.sentences import teach_sentences
    from vislang.data.domains import DOMAINS as TABLE

    how = {"device": "cpu", "precision": "fp32"}
    taught = teach_sentences(model, [TABLE[d] for d in DOMAINS], words, **how)
    made = train_classifier(taught.rows, taught.labels, taught.names, taught.groups,
                            Fit(epochs=30, held_out=0.2))  # fmt: skip
    made.save(out / "classifier")
    score_collection(open_collection(web), made, out / "scores", Scoring(k=2 * k))
    sample_top(out / "scores", out / "sample", k=k, duplicates=Duplicates(cosine=0))
    return made, read_sample(out / "sample")[0]


def purity_of(table: Any, truth: list[str]) -> dict[str, Any]:
    """Of each domain: the share of its rows that truly show it, with Wilson's interval."""
    from vislang.metrics.intervals import wilson

    half, found = len(truth) // 2, {}
    for domain in DOMAINS:
        mine = [r for r in table.to_pylist() if r["domain"] == domain]
        rows = [r["row"] + (half if r["part"].endswith("1") else 0) for r in mine]
        found[domain] = wilson(sum(truth[row] == domain for row in rows), len(rows))
    return found


def chosen_rate(spec: str, out: Path, kind: str, valid: Path, **how: Any) -> float:
    """The learning rate that is best on the valid pictures, by a sweep."""
    from vislang.evaluate import judge_from_config
    from vislang.report.sweep import write_tables
    from vislang.train.sweep import sweep

    made = sweep(config(spec, how["steps"], 32, start=how["start"], valid=str(valid)),
                 {"optim.lr": list(RATES)}, out / f"sweep-{kind}", judge_from_config)  # fmt: skip
    write_tables(made, out / f"sweep-{kind}")
    if not made["best"]:
        raise SystemExit(f"no run of {out}/sweep-{kind} finished: {made['rows']}")
    return made["best"]["values"]["optim.lr"]


def tune(
    spec: str, out: Path, kind: str, rate: float, seeds: int, judged: Any, **how: Any
) -> list[Any]:
    """The scores of every seed's checkpoints; seeds after the first take the first one's data."""
    from vislang.evaluate.checkpoint_job import probe_checkpoints
    from vislang.train import train

    found = []
    for seed in range(seeds):
        folder = out / f"{kind}-{seed}"
        origin = {"from_run": str(out / f"{kind}-0")} if seed else {}
        train(config(spec, how["steps"], 32, start=how["start"], seed=seed, lr=rate,
                     checkpoint_at=("doubling",), **origin), folder)  # fmt: skip
        found.append(probe_checkpoints(
            folder, judged, folder, shifts={"domains": list(DOMAINS), "kinds": ("standard", "own")},
            how={"device": "cpu", "precision": "fp32"}, origin={"source": judged.name},
        ))  # fmt: skip
        print(f"{kind}, seed {seed}: {found[-1].notes[0]}")
    return found


def difference(scores: dict[str, list[Any]], metric: str) -> Any:
    """Pure less uniform over the same test pictures: mean over seeds, whole pictures resampled."""
    from vislang.metrics.intervals import paired_difference

    every = [one.per_sample[metric] for some in scores.values() for one in some]
    assert all(part["ids"] == every[0]["ids"] for part in every)
    shares = {
        kind: np.mean([one.per_sample[metric]["values"] for one in found], axis=0)
        for kind, found in scores.items()
    }
    return paired_difference(shares["pure"], shares["uniform"])


def verdict_of(gap: Any) -> str:
    """What the interval supports."""
    if gap.interval.low <= 0 <= gap.interval.high:
        return "no difference is shown"
    return "pure batches are better" if gap.interval.low > 0 else "uniform batches are better"


def main() -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="runs/domains")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tune", type=int, default=60)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    import torch

    import hostile
    from domain_line_page import write_page
    from vislang.curate.collage import draw_collages
    from vislang.curate.fetch import Fetching, Network, fetch_sample
    from vislang.data.sources import open_source
    from vislang.models.pretrained import load_model

    torch.set_num_threads(1)
    out = Path(given.out)
    shutil.rmtree(out, ignore_errors=True)
    pictures = read_pictures()
    start = train_start(pictures["start"], out / "start", given.steps)
    model = load_model(start)
    words = sorted({word for word, _ in pictures["start"]})
    with hostile.serving() as server:
        data, truth = make_web(model, pictures["web"], out / "web", server.base)

        def good(self: Any) -> None:
            self.send(data[int(self.path.rpartition("/")[2].partition(".")[0])])

        hostile.Hostile.do_good = good  # type: ignore[method-assign]
        made, table = curate(out / "web", model, words, out, given.k)
        network = Network(ports=(server.server_port,), allow_loopback=True)
        how = Fetching(side=SIDE * 2, per_host=16, threads=8)
        done = fetch_sample(out / "sample", out / "pictures", how, network=network)
    collages = draw_collages(out / "pictures", out / "collages")
    purity = purity_of(table, truth)
    chance = {d: truth.count(d) / len(truth) for d in DOMAINS}
    valid = write_folders(pictures["valid"], out / "valid", DOMAINS)
    judged = open_source(str(write_folders(pictures["judged"], out / "judged", ("noop",))))
    specs = {"pure": f"pure:{out}/pictures", "uniform": f"webdataset:{out}/pictures/*/*.tar"}
    budget = {"steps": given.tune, "start": start}
    rates = {kind: chosen_rate(s, out, kind, valid, **budget) for kind, s in specs.items()}
    scores = {
        kind: tune(spec, out, kind, rates[kind], given.seeds, judged, **budget)
        for kind, spec in specs.items()
    }
    gaps = {metric: difference(scores, metric) for metric in ("last_accuracy", "best_accuracy")}
    verdicts = {metric: verdict_of(gap) for metric, gap in gaps.items()}
    page = write_page(out, purity, chance, collages, scores, rates, gaps, verdicts)
    print(page)
    gains = {
        metric: {kind: [round(one.values[metric].value, 4) for one in found]
                 for kind, found in scores.items()}
        for metric in ("last_change", "best_change")
    }  # fmt: skip
    start_accuracy = scores["pure"][0].values["start_accuracy"].value
    rows = [
        {"case": f"purity of the top {given.k}, mean of {len(DOMAINS)} domains",
         "value": float(np.mean([one.value for one in purity.values()])), "unit": "share",
         "reference": float(np.mean(list(chance.values()))), "reference_is": "chance",
         "purity": {d: one.value for d, one in purity.items()}, "fetched": done["status"],
         "held_out_words": made.about.get("held_out")},
    ]  # fmt: skip
    for metric, at in (("last", "end of the budget"), ("best", "checkpoint chosen on valid")):
        gap = gaps[f"{metric}_accuracy"]
        ends = [round(gap.interval.low, 4), round(gap.interval.high, 4)]
        rows.append(
            {"case": f"pure against uniform batches, own-domain zero-shot, {at}",
             "value": gap.interval.value, "unit": "accuracy", "interval": ends,
             "p": round(gap.p, 4), "verdict": verdicts[f"{metric}_accuracy"],
             "gain_over_start_of_each_seed": gains[f"{metric}_change"], "learning_rates": rates,
             "start": start_accuracy, "seeds": given.seeds}
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
