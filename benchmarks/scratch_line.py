"""The whole line from nothing, no step by hand: from words of Wikipedia to a judged model.

    VISLANG_TEST_DATA=... python benchmarks/scratch_line.py [--out runs/scratch] [--epochs 8]

1. `curate words` counts the words of a real excerpt of Wikipedia.
2. `curate images` asks for them at a server on loopback that answers as Unsplash's API does and
   has the training pictures of Flickr8k, each under those of its captions that hold the word.
3. `curate fetch` downloads what was found (loopback is allowed for this one call), `curate
   validate` decodes and divides it, `curate inspect` shows it, `curate tokenizer` learns from its
   captions.
4. `train scratch` with towers small enough for minutes on one core.
5. `evaluate`: retrieval on Flickr8k's dev pictures, zero-shot on CIFAR-10's sample, neither seen
   before; `cosine` on photos named by their captions; `report`.

Every step is the library's own command, printed as it is typed. It starts anew each time.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
DUMP = "wikipedia-dump/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SIZE = {"width": 128, "depth": 4, "heads": 4}
IMAGE = {"image_size": 48, "patch": 8, **SIZE}
TEXT = {"context": 32, **SIZE}


class Steps:
    """Runs commands of `vislang`, one after the other; notes how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, *words: object) -> None:
        from vislang.cli.main import main, split_command

        typed = [str(word) for word in words]
        print(f"\n$ vislang {shlex.join(typed)}", flush=True)
        began = time.perf_counter()
        if code := main(typed):
            raise SystemExit(f"vislang {typed[0]} ended with {code}")
        self.took(split_command(typed)[0], began)

    def took(self, name: str, began: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


@contextmanager
def serving_flickr(data: Path, most: int) -> Iterator[Any]:
    """Unsplash's API over the training pictures of Flickr8k, and the pictures themselves."""
    import threading

    import providers
    from loopback import running
    from vislang.data.sources import open_source

    archive = zipfile.ZipFile(data / "flickr8k/images_112.zip")
    files = {Path(name).name: name for name in archive.namelist()}
    source = open_source(
        f"flickr:{data}/flickr8k/captions.csv",
        images=str(data / "flickr8k/images_112.zip"), split="train",
    )  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for index in range(min(most, len(source))):
        sample, seen = source[index], set()
        name = Path(sample.id).name
        for caption in sample.texts:
            for word in set(caption.lower().split()) - seen:
                seen.add(word)  # the first caption that holds it
                fact = {"id": name.partition(".")[0], "caption": caption, "n": index, "file": name}
                found[word].append(fact)
    lock = threading.Lock()

    class Flickr(providers.Server):
        def answer(self, handler: Any, name: str, query: dict[str, str]) -> None:
            kind, _, file = name.partition("/")
            if kind != "pictures":
                if name in providers.PER_PAGE:
                    super().answer(handler, name, query)
                else:
                    handler.send({}, 404)
                return
            with lock:  # a zip is read from one place at a time
                body = archive.read(files[file])
            handler.send(body, Content_Type="image/jpeg")

        def _page(self, name: str, word: str, page: int) -> list[dict[str, Any]]:
            self.pictures, size = len(found[word]), providers.PER_PAGE[name]
            return found[word][(page - 1) * size : page * size]

        def _url(self, fact: dict[str, Any]) -> str:
            return f"{self.base}/pictures/{fact['file']}"

    with archive, running(Flickr()) as server:
        yield server


def gather(step: Steps, data: Path, out: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Words, pictures and their table; what came of each stage."""
    from vislang.curate.fetch import Fetching, Network, fetch_sample
    from vislang.files import read_json

    step("curate", "words", data / DUMP, "--out", out / "words", "--stop", "english",
         "--digits", "drop", "--shortest", 3, "--minimum", given.minimum,
         "--workers", 1)  # fmt: skip
    os.environ.setdefault("UNSPLASH_ACCESS_KEY", "loopback")
    with serving_flickr(data, given.pictures) as server:
        step("curate", "images", out / "words", "--out", out / "images", "--providers", "unsplash",
             "--endpoints", f"{{unsplash: '{server.base}/unsplash'}}",
             "--per_word", given.per_word)  # fmt: skip
        print(f"\n# vislang curate fetch {out}/images --out {out}/pictures, loopback allowed")
        began = time.perf_counter()
        network = Network(ports=(server.server_port,), allow_loopback=True)
        how = Fetching(side=64, per_host=16, threads=16)
        fetched = fetch_sample(out / "images", out / "pictures", how, network=network)
        step.took("curate fetch", began)
    step("curate", "validate", out / "pictures", "--out", out / "table", "--min_side", 64)
    step("curate", "inspect", out / "table", "--out", out / "table/report.html")
    images, table = read_json(out / "images/images.json"), read_json(out / "table/validated.json")
    return {"words": len(_words(out)), "pictures": images["pictures"], "merged": images["merged"],
            "fetched": fetched["status"], "kept": table["kept"], "splits": table["splits"],
            "rejected": table["rejected"]}  # fmt: skip


def _words(out: Path) -> list[str]:
    from vislang.curate.words import read_words

    return read_words(out / "words")


def learn(step: Steps, out: Path, given: argparse.Namespace) -> None:
    """Tokenizer and model."""
    table, run = f"table:{out}/table/pictures.parquet", out / "run"
    options = ["--source_options", "{split: train}"]
    step("curate", "tokenizer", table, *options, "--vocab", 4000, "--out", out / "tokenizer")
    text = TEXT | {"tokenizer": f"file:{out}/tokenizer/tokenizer.json"}
    step("train", "scratch", "--out", run, "--data.train", table,
         "--data.train_options", "{split: train}",
         "--model.image.options", json.dumps(IMAGE), "--model.text.options", json.dumps(text),
         "--model.width", 128, "--data.batch_size", given.batch, "--data.chunk", 0,
         "--data.workers", 0, "--data.augment_options", "{scale: [0.6, 1.0]}",
         "--optim.lr", 1e-3, "--optim.epochs", given.epochs, "--optim.weight_decay", 0.1,
         "--run.device", "cpu", "--run.precision", "fp32", "--run.threads", given.threads,
         "--run.evaluations", "[]", "--run.checkpoint_every", "4 epochs")  # fmt: skip


def judge(step: Steps, data: Path, out: Path) -> dict[str, Any]:
    """Scores on pictures that were never served."""
    from vislang.evaluate import read_scores

    run, how = out / "run", ("--workers", 0, "--device", "cpu", "--precision", "fp32")
    flickr = {"images": str(data / "flickr8k/images_112.zip"), "split": "dev"}
    step("evaluate", run, "--source", f"flickr:{data}/flickr8k/captions.csv",
         "--source_options", json.dumps(flickr), "--suite", "retrieval,overview", *how)  # fmt: skip
    step("evaluate", run, "--source", f"zip:{data}/cifar10-sample/test_100.zip",
         "--suite", "zeroshot", "--suite_options.zeroshot.prompts", "photos", *how)  # fmt: skip
    step("cosine", run, data / "typographic-bias/demoimages", "--names", "true",
         "--out", out / "cosines", "--device", "cpu", "--precision", "fp32")  # fmt: skip
    step("report", run)
    last = sorted((run / "scores").iterdir())[-1]
    values = {name: read_scores(last / f"{name}.json").values for name in ("retrieval", "zeroshot")}
    return {"page": run / "report.html", "n": values["retrieval"]["text_to_image@10"].n, **values}


def rows_of(made: dict[str, Any], found: dict[str, Any], step: Steps) -> list[dict[str, Any]]:
    """The table of outcomes."""
    rows = [{"case": "line: pictures kept of found", "value": made["kept"] / made["pictures"],
             "unit": "share", "seconds": {k: round(v, 1) for k, v in step.seconds.items()},
             **{k: v for k, v in made.items() if k != "kept"}}]  # fmt: skip
    images = 1000
    for suite, name, chance in (
        ("zeroshot", "accuracy", 0.1),
        ("retrieval", "image_to_text@10", 10 / images),
        ("retrieval", "text_to_image@10", 10 / images),
    ):
        value = found[suite][name]
        rows.append({"case": f"line: {suite} {name}", "value": value.value, "unit": "share",
                     "reference": chance, "reference_is": "chance", "n": value.n,
                     "interval": [round(value.low, 4), round(value.high, 4)]})  # fmt: skip
    return rows


def main() -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="runs/scratch")
    parser.add_argument("--epochs", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=6000, help="on the server")
    parser.add_argument("--per_word", type=int, default=120)
    parser.add_argument("--minimum", type=int, default=10, help="times a word must occur")
    given = parser.parse_args()
    if not os.environ.get("VISLANG_TEST_DATA"):
        raise SystemExit("set VISLANG_TEST_DATA to the folder with wikipedia-dump and flickr8k")
    data, out, step = Path(os.environ["VISLANG_TEST_DATA"]), Path(given.out), Steps()
    if out.exists() and any(out.iterdir()) and not (out / "words").is_dir():
        raise SystemExit(f"{out} holds something else than an earlier line: take another --out")
    shutil.rmtree(out, ignore_errors=True)
    made = gather(step, data, out, given)
    learn(step, out, given)
    found = judge(step, data, out)
    rows = rows_of(made, found, step)
    print(f"\n{'outcome':<36}{'value':>8}{'chance':>8}  95 % interval")
    for row in rows:
        chance = f"{row['reference']:.3f}" if "reference" in row else ""
        print(f"{row['case']:<36}{row['value']:>8.3f}{chance:>8}  {row.get('interval', '')}")
    print(f"\nPages: {found['page']}")
    print(f"       {out}/cosines/report.html\n       {out}/table/report.html")
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
