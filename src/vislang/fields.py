"""What a field of a config takes: plain values, as YAML and flags give them, against a type."""

import types
import typing
from collections.abc import Mapping
from typing import Any

from vislang.errors import UserError


def checked(kind: Any, value: Any, where: str) -> Any:
    """`value` as a field of type `kind` takes it; anything else is a UserError that names `where`.

    >>> checked(int, 3.0, "a"), checked(float, "1e-4", "a"), checked(tuple[str, ...], "x, y", "a")
    (3, 0.0001, ('x', 'y'))
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(kind):
            try:
                return checked(option, value, where)
            except UserError:
                continue
    elif kind is bool and isinstance(value, bool):
        return value
    elif kind is int and not isinstance(value, bool) and isinstance(value, int | float):
        if float(value).is_integer():
            return int(value)
    elif kind is float and not isinstance(value, bool):
        # YAML reads 1e-4 as text, so numbers may come as strings.
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif kind is str and isinstance(value, str):
        return value
    elif kind is type(None) and value is None:
        return None
    elif origin is dict and isinstance(value, Mapping):
        return dict(value)
    elif kind == tuple[str, ...] and isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    elif origin in (tuple, list) and isinstance(value, list | tuple):
        arguments = typing.get_args(kind)
        inner = arguments[0]
        fixed = origin is tuple and len(arguments) > 1 and arguments[1] is not Ellipsis
        if fixed and len(value) != len(arguments):
            raise UserError(f"{where} must have {len(arguments)} values, got {value!r}.")
        return origin(checked(inner, item, f"{where}[{i}]") for i, item in enumerate(value))
    name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise UserError(f"{where} must be {name}, got {value!r} ({type(value).__name__}).")
