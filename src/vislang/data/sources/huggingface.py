"""Datasets of the Hugging Face hub, or saved locally by its library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.data.columns import choose
from vislang.data.labelled import even_shards
from vislang.data.labels import encode
from vislang.data.patterns import name_of
from vislang.data.sample import Sample
from vislang.data.sources.table import _CAPTION, _IMAGE, _LABEL
from vislang.errors import UserError
from vislang.files import fingerprint
from vislang.lookup import nearest


class HuggingFaceDataset:
    """Hugging Face dataset: a folder made by save_to_disk, or a name or folder for load_dataset.

    Args:
        path: the folder, or the name on the hub.
        split: of a dataset that has several.
        config: name of a configuration of the dataset.
        image: column with the image; '' takes the first of type Image or of a usual name.
        caption: column with a caption or a list of them; a list names several columns.
        label: column with the class.
    """

    def __init__(
        self,
        path: str,
        *,
        split: str = "",
        config: str = "",
        image: str = "",
        caption: str | Sequence[str] = "",
        label: str = "",
    ):
        import datasets

        data = _load(path, split, config)
        features, where = data.features, f"The dataset {path}"
        known = list(features)
        pictures = [n for n, f in features.items() if isinstance(f, datasets.Image)]
        picture = choose(image, known, [*map(str.lower, pictures), *_IMAGE], "image", where)
        wanted = [caption] if isinstance(caption, str) else list(caption)
        texts = [c for w in wanted or [""] if (c := choose(w, known, _CAPTION, "caption", where))]
        target = choose(label, known, _LABEL, "label", where)
        if not picture and not texts:
            raise UserError(
                f"{where} has no column with a usual name for images or captions."
                f" Say which: image=COLUMN, caption=COLUMN. Columns: {', '.join(known)}."
            )
        if picture and isinstance(features[picture], datasets.Image):
            data = data.cast_column(picture, datasets.Image(decode=False))
        self._data = data.select_columns(
            list(dict.fromkeys(filter(None, [picture, *texts, target])))
        )
        self._picture, self._texts, self._target = picture, texts, target
        self.name = name_of(path, config, split)
        self._set_classes(features)
        parts = {"image": picture, "text": texts, "label": target}
        self.gives = frozenset(kind for kind, found in parts.items() if found)
        self.fingerprint = fingerprint([data._fingerprint, picture, texts, target, self.classes])

    def _set_classes(self, features: Any) -> None:
        self.classes: tuple[str, ...] = ()
        self._index: dict[str, int] | None = None
        if not self._target:
            return
        self.classes = tuple(getattr(features[self._target], "names", None) or ())
        if not self.classes and str(getattr(features[self._target], "dtype", "")).endswith(
            "string"
        ):
            names = encode(self._data.unique(self._target))[1]
            self.classes, self._index = tuple(names), {name: i for i, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        row = self._data[int(index)]
        texts: list[str] = []
        for name in self._texts:
            value = row[name]
            texts += [t for t in (value if isinstance(value, list) else [value]) if t]
        image = row[self._picture] if self._picture else None
        if isinstance(image, dict):
            image = image.get("bytes") or (Path(image["path"]) if image.get("path") else None)
        elif isinstance(image, str):
            image = Path(image)
        label = row[self._target] if self._target else None
        if self._index is not None:
            label = self._index.get(str(label).strip()) if label else None
        labels = () if label is None or int(label) < 0 else (int(label),)
        id_ = f"{index:09d}"
        return Sample(id_, image, tuple(map(str, texts)), labels, f"{self.name}:{index}")

    def shards(self) -> Sequence[range]:
        return even_shards(len(self))

    @staticmethod
    def recognises(path: Path) -> bool:
        """A folder that save_to_disk made."""
        return (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()


def _load(path: str, split: str, config: str) -> Any:
    import datasets

    try:
        if HuggingFaceDataset.recognises(Path(path)):
            data = datasets.load_from_disk(path)
        else:
            data = datasets.load_dataset(path, config or None)
    except Exception as error:  # the hub, the network and builders fail in many ways
        raise UserError(
            f"The Hugging Face dataset {path!r} cannot be opened: {str(error).splitlines()[0]}"
            " Give a folder made by save_to_disk, or a name that load_dataset knows."
        ) from error
    if not isinstance(data, dict):
        return data
    splits = [str(name) for name in data]
    if not split and len(splits) == 1:
        return data[splits[0]]
    if split not in splits:
        got = f"no split {split!r}.{nearest(split, splits)}" if split else "several splits."
        raise UserError(f"The dataset {path} has {got} Choose one: {', '.join(splits)}.")
    return data[split]
