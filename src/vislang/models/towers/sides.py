"""Which sides a builder has, and what a tower of each side must do."""

from vislang.errors import UserError

SIDES = ("image", "text")


def check_side(side: str, has: tuple[str, ...], tower: str) -> None:
    """Refuse a side that the builder `tower` cannot make.

    >>> check_side("text", ("image",), "timm")
    Traceback (most recent call last):
    vislang.errors.UserError: The tower 'timm' has no text side, only image. ...
    """
    if side not in SIDES:
        raise UserError(f"side must be image or text, got {side!r}.")
    if side not in has:
        raise UserError(
            f"The tower {tower!r} has no {side} side, only {' and '.join(has)}."
            f" Choose another tower for model.{side}.name (`vislang list towers`)."
        )


def choose(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value`, if it is one of `allowed`."""
    if value not in allowed:
        raise UserError(f"{what} must be one of {', '.join(allowed)}; got {value!r}.")
    return value
