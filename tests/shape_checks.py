"""Shapes in signatures are checked while tests run, and cost nothing otherwise.

`install()` wraps, as each module of vislang is imported, those functions whose annotations
speak of arrays (`Float[np.ndarray, "N D"]`); letters must agree between arguments and result.
Other annotations are pyright's business. jaxtyping's own import hook would need every name of
every annotation at run time, and ours are imported for type checkers only.
"""

import functools
import importlib.abc
import importlib.machinery
import inspect
import re
import sys
import types
from collections.abc import Callable
from typing import Any

KINDS = ("Float", "Int", "UInt8", "Bool", "Integer", "Num", "Shaped")
ARRAY = re.compile(rf"\b({'|'.join(KINDS)})\[")


def array_annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Those annotations of a function that are arrays, or an array or None, as real types."""
    found = {
        name: text
        for name, text in getattr(function, "__annotations__", {}).items()
        if isinstance(text, str) and ARRAY.search(text)
    }
    if not found:
        return {}
    import jaxtyping
    import numpy as np
    import torch

    names = {name: getattr(jaxtyping, name) for name in KINDS}
    names |= {"np": np, "torch": torch, "Tensor": torch.Tensor, **function.__globals__}  # type: ignore[attr-defined]
    resolved = {}
    for name, text in found.items():
        try:
            kind = eval(text, names)
        except NameError:  # beside a type that only type checkers import
            continue
        if isinstance(kind, type | types.UnionType) and not isinstance(kind, types.GenericAlias):
            resolved[name] = kind
    return resolved


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or one that raises TypeError where arrays are not what it announces.

    The check comes after the call, so that a function that refuses its arguments does so in its
    own words; arguments that are no arrays (lists, say) are the function's business.
    """
    hints = array_annotations(function)
    if not hints:
        return function
    import numpy as np
    import torch
    from jaxtyping import AnnotationError, jaxtyped

    arrays = (np.ndarray, torch.Tensor)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        values = signature.bind(*args, **kwargs).arguments | {"return": result}
        with jaxtyped("context"):  # letters agree within this block
            for name, hint in hints.items():
                value = values.get(name)
                try:
                    fits = not isinstance(value, arrays) or isinstance(value, hint)
                except AnnotationError:  # "d+1" where no d was seen
                    continue
                if not fits:
                    others = {k: tuple(getattr(v, "shape", ())) for k, v in values.items()}
                    raise TypeError(
                        f"{function.__module__}.{function.__qualname__}: {name} announces"
                        f" {function.__annotations__[name]} but is {value.dtype}"
                        f" {tuple(value.shape)}; all shapes: {others}"
                    )
        return result

    return wrapper


def check_module(module: types.ModuleType) -> None:
    """Replace the module's own functions and methods by checked ones."""
    for name, item in list(vars(module).items()):
        if getattr(item, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(item):
            setattr(module, name, checked(item))
        elif inspect.isclass(item):
            for inner, method in list(vars(item).items()):
                if inspect.isfunction(method) and inner != "__init__":
                    setattr(item, inner, checked(method))


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        super().exec_module(module)
        check_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if not fullname.startswith("vislang."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Check every module of vislang that is imported from now on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
