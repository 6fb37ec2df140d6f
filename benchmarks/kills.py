"""A training run killed 100 times at random moments ends with the bits of one left alone.

Each kill is a SIGKILL to the whole process at a random moment after its start: while it imports,
resumes, trains or writes a checkpoint.  Afterwards every file of the last checkpoint is compared
byte for byte with that of an uninterrupted run.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KILLS, STEPS = 100, 400
TRAIN = (
    "import sys; from pathlib import Path; from vislang.config import read_config;"
    "from vislang.train import train; train(read_config(sys.argv[1]), Path(sys.argv[2]))"
)


def config():
    """A small dual encoder with dropout on real digits, a checkpoint every other step."""
    from vislang.config import with_changes
    from vislang.recipes import find_config

    return with_changes(
        find_config("demo"),
        {
            "model.image.options.dropout": 0.1,
            "model.image.options.depth": 1,
            "model.text.options.depth": 1,
            "data.batch_size": 32,
            "optim.steps": STEPS,
            "run.threads": 1,
            "run.checkpoint_every": "2 steps",
            "run.log_every": 1,
            "run.evaluations": [],
            "run.evaluate_every": "",
            "run.tensorboard": False,
        },
    )


def start(settings: Path, folder: Path) -> subprocess.Popen:
    """The training command as a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(settings), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def last_checkpoint(folder: Path) -> dict[str, str]:
    """Checksums of the newest checkpoint's tensors."""
    from vislang.train.checkpoint import newest_checkpoint

    path = newest_checkpoint(folder)[0]
    sums = json.loads((path / "done.json").read_text())["sha256"]
    return {name: value for name, value in sums.items() if name.endswith(".safetensors")}


def main() -> list[dict]:
    """Train twice, once under fire; print one JSON line."""
    from vislang.config import write_config

    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        settings, alone, shot = (Path(temporary) / n for n in ("c.yaml", "alone", "shot"))
        write_config(settings, config())
        began = time.monotonic()
        if start(settings, alone).wait():
            raise SystemExit("the uninterrupted run failed")
        whole_s = time.monotonic() - began
        kills, skipped, moments = 0, 0, {"before the first line": 0, "later": 0}
        while kills < KILLS:
            process = start(settings, shot)
            # Up to a little longer than it takes to import, resume and do some steps.
            try:
                out, _ = process.communicate(timeout=draw.uniform(0.3, 1.0) * min(whole_s, 8.0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, _ = process.communicate()
                kills += 1
            else:
                if process.returncode:
                    raise SystemExit(f"a resumed run failed:\n{out}")
                break  # finished before it could be killed often enough
            skipped += out.count("is skipped")
            moments["later" if (shot / "log.jsonl").exists() else "before the first line"] += 1
        process = start(settings, shot)
        out, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"the last run failed:\n{out}")
        same = last_checkpoint(alone) == last_checkpoint(shot)
    if not same:
        raise SystemExit("gate: the killed run ended with other bits")
    result = {
        "case": f"{STEPS} steps, SIGKILL at random moments",
        "value": kills,
        "unit": "kills survived",
        "target": f"{KILLS} kills, identical bits, no torn file read",
        "met": kills >= KILLS and same and not skipped,
        "torn_checkpoints_seen": skipped,
        "uninterrupted_s": round(whole_s, 1),
    }
    print(json.dumps(result))
    return [result]


if __name__ == "__main__":
    main()
