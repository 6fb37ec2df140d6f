"""Any dataset of torchvision, by the name of its class."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from vislang.data.labelled import even_shards
from vislang.data.sample import BadSample, Sample
from vislang.errors import UserError
from vislang.files import fingerprint
from vislang.lookup import check_options, nearest


class TorchvisionDataset:
    """Any torchvision dataset by class name ('torchvision:CIFAR10'), options are its arguments.

    Nothing is downloaded unless download=True is given. A whole number as target is a label, a
    text or a list of texts are captions.

    Args:
        path: name of the class in torchvision.datasets.
        options: arguments of that class: root, train, split, download ...
    """

    def __init__(self, path: str, **options: Any):
        from torchvision import datasets

        known = [n for n in datasets.__all__ if hasattr(getattr(datasets, n), "__getitem__")]
        if path not in known:
            raise UserError(
                f"torchvision has no dataset {path!r}.{nearest(path, known)}"
                f" Known: {', '.join(sorted(known))}."
            )
        make = getattr(datasets, path)
        _check(make, path, options)
        try:
            self._data = make(**options)
        except Exception as error:  # each dataset has its own way of failing
            raise UserError(
                f"torchvision's {path} cannot be opened: {error}"
                " (root is its folder; download=True fetches it)."
            ) from error
        self.name, self._options = path.lower(), options
        names = getattr(self._data, "classes", None) or getattr(self._data, "categories", ())
        self.classes = tuple(n if isinstance(n, str) else ", ".join(map(str, n)) for n in names)
        self.gives = frozenset({"image"}) | self._gives_of_first()

    def _gives_of_first(self) -> frozenset[str]:
        if not len(self):
            return frozenset()
        texts, labels = _target(self._data[0])
        return frozenset(k for k, v in (("text", texts), ("label", labels)) if v)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        id_, origin = f"{index:09d}", f"torchvision.{type(self._data).__name__}:{index}"
        try:
            item = self._data[index]
        except Exception as error:  # its own loader decodes, and fails as it likes
            raise BadSample(id_, f"cannot decode: {error}", origin) from error
        texts, labels = _target(item)
        image = item[0] if isinstance(item, tuple) else item
        return Sample(id_, image, texts, labels, origin)

    def shards(self) -> Sequence[range]:
        return even_shards(len(self))

    @cached_property
    def fingerprint(self) -> str:
        options = {key: str(v) for key, v in self._options.items() if key != "download"}
        targets = getattr(self._data, "targets", None)
        return fingerprint([self.name, options, len(self), targets])


def _check(make: type, name: str, options: dict[str, Any]) -> None:
    parameters = inspect.signature(make).parameters
    check_options(f"torchvision's {name}", options, list(parameters))
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise UserError(f"torchvision's {name} needs the option {option!r}.")


def _target(item: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """(captions, labels) of a dataset's item."""
    target: Any = item[1] if isinstance(item, tuple) and len(item) > 1 else None
    if hasattr(target, "ndim") and target.ndim == 0:
        target = target.item()
    if isinstance(target, str):
        return (target,), ()
    if isinstance(target, list | tuple) and target and all(isinstance(t, str) for t in target):
        return tuple(target), ()
    if isinstance(target, int) and not isinstance(target, bool) and target >= 0:
        return (), (target,)
    return (), ()
