"""A run on the data of another run (`data.from_run`): the same spec, and the same content.

A run notes in `data.json` what it is trained on; the fingerprint there is that of the content as it
was, so that data which were added to, fetched anew or moved are not taken for the same.
"""

import os
from dataclasses import replace
from pathlib import Path

from vislang.config import TrainConfig
from vislang.data.sample import Source
from vislang.errors import UserError
from vislang.files import read_json, write_json

NOTE = "data.json"


def with_data(config: TrainConfig) -> TrainConfig:
    """The config with the training source of the run that `data.from_run` names, if any."""
    data = config.data
    if not data.from_run:
        return config
    note = Path(data.from_run) / NOTE
    if not note.is_file():
        is_run = (note.parent / "config.yaml").is_file()
        why = (
            f"it has no {NOTE}, which a run writes when it starts: start it once more"
            if is_run
            else "there is no run folder of that name"
        )
        raise UserError(f"data.from_run is {data.from_run!r}, but {why}.")
    about = read_json(note)
    taken = replace(data, train=about["train"], train_options=about["train_options"])
    return replace(config, data=taken)


def check_data(config: TrainConfig, source: Source) -> None:
    """Refuse data that are not what the run named by `data.from_run` was trained on."""
    if not config.data.from_run:
        return
    about = read_json(Path(config.data.from_run) / NOTE)
    if source.fingerprint != about["fingerprint"]:
        raise UserError(
            f"The data of {config.data.from_run} ({about['train']}) changed since it was trained:"
            f" then {about['samples']:,} samples with the fingerprint {about['fingerprint']}, now"
            f" {len(source):,} with {source.fingerprint}. Restore them; or name them yourself"
            " (data.train) without data.from_run, as they are then other data."
        )


def note_data(folder: Path, config: TrainConfig, source: Source) -> None:
    """Write `data.json`, once for a run."""
    if not (folder / NOTE).exists():
        about = {
            "train": config.data.train,
            "train_options": config.data.train_options,
            "fingerprint": source.fingerprint,
            "samples": len(source),
            "from_run": config.data.from_run,
            "started_in": os.getcwd(),
        }
        write_json(folder / NOTE, about)
