"""What numbers were made from, so that two of them can be told comparable or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vislang.data.sample import Source


class Origin:
    """What was evaluated, as the user named it and as its fingerprints say.

    Args:
        model: as given: a name, or a model in memory.
        source: as given.
        source_options: arguments of its layout.
        train_source: as given, or None.
        step: of the model.
        settings: of the embedder.
        tested: the opened source.
        training: the opened training source, or None.
    """

    def __init__(
        self,
        model: Any,
        source: Any,
        source_options: Mapping[str, Any],
        train_source: Any,
        step: int | str,
        settings: Mapping[str, Any],
        tested: Source,
        training: Source | None,
    ):
        self.model = str(model) if isinstance(model, str | Path) else "in memory"
        self.source, self.source_options = _named(source), dict(source_options)
        self.train_source = None if train_source is None else _named(train_source)
        self.step, self.settings = step, settings
        self.tested, self.training = tested, training

    def provenance(self, options: Mapping[str, Any], trained: bool) -> dict[str, Any]:
        """Everything that the numbers of one evaluation depend on.

        Args:
            options: what the evaluation calls its settings.
            trained: whether it learnt from training samples.
        """
        kept = ("preprocess", "precision", "batch_size", "device", "limits")
        made: dict[str, Any] = {
            "model": self.model,
            "model_fingerprint": self.settings["model"],
            "source": self.source,
            "source_options": self.source_options,
            "source_fingerprint": self.tested.fingerprint,
            "step": self.step,
            "settings": {**options, **{key: self.settings[key] for key in kept}},
            "versions": versions(),
        }
        if trained and self.training is not None:
            made["train_source"] = self.train_source
            made["settings"]["train"] = self.training.fingerprint
        elif trained:
            made["train_source"] = f"a part of {self.source}"
            made["settings"]["train"] = "a part of the source"
        return made


def _named(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else source.name


def versions() -> dict[str, str]:
    """Versions of the packages that numbers may depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("vislang", "torch", "numpy", "scipy", "scikit-learn", "pillow", "open_clip_torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
