"""Names as requests write them: `base`, `x` (an adapter's newest version) or `x@2`. Pure."""

import re

from app.errors import InvalidRequestError

BASE = "base"
"""How requests name the base alone."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """The name itself, when it may be an adapter's name; otherwise `InvalidRequestError` says what may."""
    if name == BASE:
        raise InvalidRequestError(f"{name!r} is the base model's name: call the adapter something else")
    if NAME.fullmatch(name) is None or ".." in name:
        raise InvalidRequestError(
            f"{name[:80]!r} cannot be an adapter's name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "begin with a letter or digit, and write no '..'"
        )
    return name


def name_of(reference: str | None) -> str:
    """The name in `x` or `x@2`; none is the base's."""
    return (reference or BASE).partition("@")[0]


def number_of(reference: str) -> str | None:
    """What stands for the version in `x@2`, whatever it is; None in `x`."""
    _, at, number = reference.partition("@")
    return number if at else None
