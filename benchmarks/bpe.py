"""Learning a tokenizer: `vislang curate tokenizer` against the tokenizers library called directly.

    VISLANG_TEST_DATA=... python benchmarks/bpe.py [--captions 140000] [--vocab 8000]

Both read the same CSV file of captions (Flickr8k's, repeated with numbers until there are enough)
and learn with the same normalisation on one thread, one after the other, REPEATS times. The
direct call is what one would write by hand: csv.reader into train_from_iterator.  Gate: the two
learn the same merges in the same order.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPEATS = 3


def make_table(path: Path, captions: int) -> None:
    """One column of captions."""
    root = os.environ.get("VISLANG_TEST_DATA")
    if not root:
        raise SystemExit("set VISLANG_TEST_DATA to the folder with flickr8k")
    with (Path(root) / "flickr8k/captions.csv").open(encoding="utf-8", newline="") as file:
        said = [row["caption"] for row in csv.DictReader(file)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["caption"])
        for n in range(captions):
            again = n // len(said)
            writer.writerow([f"{said[n % len(said)]} {again}" if again else said[n]])


def ours(path: Path, vocab: int) -> str:
    from vislang.curate.tokenizer import BpeRules, Captions, learn_bpe
    from vislang.data.sources import open_source

    return learn_bpe(Captions(open_source(f"table:{path}")), BpeRules(vocab))


def direct(path: Path, vocab: int) -> str:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    def captions() -> Iterator[str]:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield row["caption"]

    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Sequence([
        normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(), normalizers.Prepend(" "),
    ])  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - 3, min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(captions(), trainer)
    return made.to_str()


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--captions", type=int, default=140_000)
    parser.add_argument("--vocab", type=int, default=8000)
    given = parser.parse_known_args()[0]
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.csv"
        make_table(path, given.captions)
        texts, seconds = {}, {"ours": [], "direct": []}
        for _ in range(REPEATS):
            for name, learn in (("ours", ours), ("direct", direct)):
                began = time.perf_counter()
                texts[name] = learn(path, given.vocab)
                seconds[name].append(time.perf_counter() - began)
    merges = {name: json.loads(text)["model"]["merges"] for name, text in texts.items()}
    assert merges["ours"] == merges["direct"], "the two did not learn the same merges"
    rate = {name: given.captions / min(taken) for name, taken in seconds.items()}
    ratio = rate["ours"] / rate["direct"]
    return {
        "case": f"{given.captions:,} captions, vocabulary {given.vocab:,}, one thread",
        "value": rate["ours"], "unit": "captions/s", "reference": rate["direct"],
        "reference_is": "tokenizers called directly", "ratio": ratio, "target": ">= 1.0",
        "met": ratio >= 0.97, "merges": len(merges["ours"]),
    }  # fmt: skip


if __name__ == "__main__":
    print(main())
