"""HTTP's preconditions: what a request says of the version that is there."""

import pytest

from app.adapters.preconditions import Conditions
from app.errors import ConflictError, PreconditionFailedError
from app.store.catalog import Version

A, B, C = "a" * 64, "b" * 64, "c" * 64
NOW = "2026-01-02T03:04:05.000+00:00"

CURRENT = Version("x", 3, A, NOW, {})
ALLOWED = [  # current, digest, if_match, if_none_match, replace, is a new version written
    (None, A, None, None, False, True),
    (None, A, None, "*", False, True),
    (None, A, None, None, True, True),
    (CURRENT, A, None, None, False, False),
    (CURRENT, A, f'"{B}"', None, False, False),  # a retry whose If-Match has gone stale by its own success
    (CURRENT, A, None, None, True, False),
    (CURRENT, B, f'"{A}"', None, False, True),
    (CURRENT, B, A, None, False, True),
    (CURRENT, B, f'"sha256:{A}"', None, False, True),
    (CURRENT, B, f'"{C}", "{A}"', None, False, True),
    (CURRENT, B, "*", None, False, True),
    (CURRENT, B, None, None, True, True),
    (CURRENT, B, None, f'"{C}"', True, True),
]
REFUSED = [
    (CURRENT, B, None, None, False, ConflictError),
    (CURRENT, B, None, f'"{C}"', False, ConflictError),
    (CURRENT, B, f'"{C}"', None, False, PreconditionFailedError),
    (CURRENT, B, f'"{C}"', None, True, PreconditionFailedError),
    (CURRENT, B, f'W/"{A}"', None, False, PreconditionFailedError),  # If-Match compares strongly
    (CURRENT, B, "", None, False, PreconditionFailedError),
    (CURRENT, A, None, "*", False, PreconditionFailedError),
    (CURRENT, B, None, "*", True, PreconditionFailedError),
    (CURRENT, B, None, f'"{A}"', True, PreconditionFailedError),
    (CURRENT, B, None, f'"sha256:{A}"', True, PreconditionFailedError),
    (None, A, f'"{A}"', None, False, PreconditionFailedError),
    (None, A, "*", None, False, PreconditionFailedError),
]


@pytest.mark.parametrize(("current", "digest", "if_match", "if_none_match", "replace", "writes"), ALLOWED)
def test_preconditions_that_hold(current, digest, if_match, if_none_match, replace, writes) -> None:  # type: ignore[no-untyped-def]
    assert Conditions(if_match, if_none_match, replace).would_write(current, digest) is writes


@pytest.mark.parametrize(("current", "digest", "if_match", "if_none_match", "replace", "error"), REFUSED)
def test_preconditions_that_do_not(current, digest, if_match, if_none_match, replace, error) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error):
        Conditions(if_match, if_none_match, replace).would_write(current, digest)
