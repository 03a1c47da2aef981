"""Names: what may be one, and what a reference names."""

import pytest

from app.errors import InvalidRequestError
from app.names import BASE, check_name, name_of, number_of


@pytest.mark.parametrize("name", ["a", "0", "team-a.intent_2", "x" * 64, "base2", "a-"])
def test_a_name_that_may_be(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "base", "A", "-a", ".a", "_a", "a..b", "a/b", "a@1", "x" * 65, "ä", "a\n", " a", "a b", "a\0", "../a"]
)
def test_a_name_that_may_not_be(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="base model" if name == "base" else "1 to 64"):
        check_name(name)


@pytest.mark.parametrize(
    ("reference", "name", "number"),
    [(None, BASE, None), ("", BASE, None), ("x", "x", None), ("x@2", "x", "2"), ("x@", "x", ""), ("x@2@3", "x", "2@3")],
)
def test_what_a_reference_names(reference: str | None, name: str, number: str | None) -> None:
    assert (name_of(reference), number_of(reference or "")) == (name, number)
