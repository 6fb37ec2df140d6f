"""CIFAR-10, DTD and Tiny ImageNet samples laid out as ELEVATER sets, and a model judged on them.

Three layouts: lines with one label (CIFAR-10), COCO (DTD), lines with several labels (Tiny
ImageNet, eleven-point mAP). Zero-shot, 5-shot and full probes by the toolkit's search, probes and
fine-tuning by ours, and a checked submission of each. Needs VISLANG_TEST_DATA and --model.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

SKIPPED = 77
TEMPLATES = ["a photo of a {}.", "a {}.", "a picture of the {}."]


def cifar(home: Path, data: Path, train: int, test: int) -> dict[str, Any]:
    """Lines with one label; archives copied as they are."""
    names = (data / "classnames.txt").read_text().split()
    record: dict[str, Any] = {"name": "cifar-10", "metric": "accuracy", "labelmap": "labels.txt"}
    (home / "labels.txt").write_text("\n".join(names) + "\n")
    for split, archive, each in (("train", "train_200.zip", train), ("test", "test_100.zip", test)):
        (home / archive).write_bytes((data / archive).read_bytes())
        entries = chosen(data / archive, lambda path: path.split("/")[1], each)
        lines = [f"{archive}@{path} {names.index(name)}" for name, path in entries]
        (home / f"{split}.txt").write_text("\n".join(lines) + "\n")
        record[split] = about(f"{split}.txt", archive, lines)
    return record | {"num_classes": len(names)}


def dtd(home: Path, data: Path, train: int, test: int) -> dict[str, Any]:
    """COCO JSON; category ids from 5 on."""
    names = (data / "classnames.txt").read_text().split()
    archive = "images_192.zip"
    (home / archive).write_bytes((data / archive).read_bytes())
    entries = chosen(data / archive, lambda path: path.split("/")[0], train + test)
    record: dict[str, Any] = {"name": "dtd", "metric": "accuracy", "format": "coco"}
    for split, part in (("train", slice(0, train)), ("test", slice(train, train + test))):
        own = [e for name in names for e in [e for e in entries if e[0] == name][part]]
        content = {
            "images": [{"id": i, "file_name": path, "zip_file": archive}
                       for i, (_, path) in enumerate(own)],
            "annotations": [{"image_id": i, "category_id": 5 + names.index(name)}
                            for i, (name, _) in enumerate(own)],
            "categories": [{"id": 5 + k, "name": name} for k, name in enumerate(names)],
        }  # fmt: skip
        (home / f"{split}.json").write_text(json.dumps(content))
        record[split] = about(f"{split}.json", archive, own)
    return record | {"num_classes": len(names)}


def tiny(home: Path, data: Path, train: int, test: int) -> dict[str, Any]:
    """Lines in the form of several labels, twenty classes, pictures unpacked from their zip."""
    words = [line.split("\t") for line in (data / "words_200.txt").read_text().splitlines()]
    wnids = dict(words[:: len(words) // 20][:20])
    order = list(wnids)
    (home / "labels.txt").write_text("\n".join(n.split(",")[0] for n in wnids.values()) + "\n")
    where = dict(line.split("\t")[:2] for line in
                 (data / "val_annotations.txt").read_text().splitlines())  # fmt: skip
    record: dict[str, Any] = {"name": "tiny-imagenet", "metric": "11point_mAP",
              "labelmap": "labels.txt", "type": "classification_multilabel"}  # fmt: skip
    for split, archive, each in (("train", "train_60.zip", train), ("test", "val_25.zip", test)):

        def name_of(path: str, split: str = split) -> str:
            return path.split("/")[1] if split == "train" else where[path.split("/")[-1]]

        entries = [e for e in chosen(data / archive, name_of, each) if e[0] in wnids]
        with zipfile.ZipFile(data / archive) as file:
            for _, path in entries:
                place = home / archive.removesuffix(".zip") / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.read(path))
        lines = [f"{archive}@{path} {order.index(name)}" for name, path in entries]
        (home / f"{split}_ic.txt").write_text("\n".join(lines) + "\n")
        record[split] = about(f"{split}_ic.txt", archive, lines)
    return record | {"num_classes": len(order)}


def chosen(archive: Path, name_of, each: int) -> list[tuple[str, str]]:
    """(class, entry) of the first `each` entries of every class, in an order that is mixed."""
    with zipfile.ZipFile(archive) as file:
        paths = [p for p in file.namelist() if not p.endswith("/")]
    groups: dict[str, list[str]] = {}
    for path in sorted(paths):
        groups.setdefault(name_of(path), []).append(path)
    found = [(name, path) for name, own in groups.items() for path in own[:each]]
    random.Random(1).shuffle(found)
    return found


def about(index: str, archive: str, samples: list) -> dict[str, Any]:
    """What a registry says of a split."""
    return {"index_path": index, "files_for_local_usage": [archive], "num_images": len(samples)}


def lay_out(root: Path, data: Path, times: int = 1) -> tuple[Path, Path]:
    """Three sets below root, two of them `times` as large; (registry, words)."""
    records = []
    makers = (
        (cifar, "cifar10-sample", (20 * times, 10 * times)),
        (dtd, "dtd-10class-sample", (12, 8)),
        (tiny, "tiny-imagenet-200-subset", (10 * times, 5 * times)),
    )
    for make, folder, sizes in makers:
        home = root / "classification" / folder
        home.mkdir(parents=True)
        records.append(make(home, data / folder, *sizes)
                       | {"root_folder": f"classification/{folder}"})  # fmt: skip
    words = {record["name"]: {"templates": TEMPLATES} for record in records}
    for name, content in (("registry", records), ("words", words)):
        (root / f"{name}.json").write_text(json.dumps(content))
    return root / "registry.json", root / "words.json"


TUNE = {"rates": [1e-3], "wise": [0.0, 0.5, 1.0], "epochs": 3}
RUNS: dict[str, dict[str, Any]] = {
    "elevater": {"tasks": ["zeroshot", "probe:5", "probe:full"]},
    "validated": {"tasks": ["probe:5", "probe:full", "finetune:5", "finetune:full"],
                  "protocol": "validated", "tune": TUNE},
}  # fmt: skip


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows for benchmarks/run.py."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=os.environ.get("VISLANG_TEST_MODEL", ""))
    parser.add_argument("--times", type=int, default=1, help="size of two of the sets, up to 5")
    parser.add_argument("--only", default="", help=f"one of {', '.join(RUNS)}")
    options = parser.parse_args(arguments)
    data = Path(os.environ.get("VISLANG_TEST_DATA", "/none"))
    if not data.is_dir() or not options.model:
        print("needs VISLANG_TEST_DATA and --model", file=sys.stderr)
        raise SystemExit(SKIPPED)
    import torch

    from vislang.data.elevater_sets import read_registry, status_table
    from vislang.evaluate.elevater.predictions import submit
    from vislang.evaluate.elevater.suite import evaluate_elevater

    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        registry, words = lay_out(root, data, options.times)
        assert all(row[1] == "present" for row in status_table(root, registry)["rows"])
        for name, asked in RUNS.items():
            if options.only not in ("", name):
                continue
            begun = time.time()
            own = {"registry": str(registry), "words": str(words), "model_name": "m", **asked}
            found = evaluate_elevater(options.model, ["all"], root, root / name, options=own,
                                      device="cpu", precision="fp32")  # fmt: skip
            if missing := found.tables.get("missing"):
                raise SystemExit(f"not evaluated: {missing['rows']}")
            seconds = time.time() - begun
            print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
            for row in found.tables["sets"]["rows"]:
                print(row, file=sys.stderr, flush=True)
            for task in asked["tasks"]:
                out = root / f"{name}.zip"
                submit([root / name], out, task.replace(":", "-"), read_registry(registry))
                values = {k.removeprefix(f"{task}: "): v for k, v in found.values.items()
                          if k.startswith(f"{task}: ")}  # fmt: skip
                rows.append({
                    "case": f"{name} {task}, three sets of real pictures",
                    "value": round(values["average (standard)"].value, 4),
                    "unit": "mean of the metrics, standard",
                    "seconds_of_all_tasks": round(seconds),
                    "zip_bytes": out.stat().st_size,
                    **{k: f"{v.value:.4f} ({v.low:.3f} to {v.high:.3f})"
                       for k, v in values.items()},
                })  # fmt: skip
    print(json.dumps(rows, indent=1))
    return rows


if __name__ == "__main__":
    main()
