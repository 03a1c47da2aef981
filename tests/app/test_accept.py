"""What an Accept header asks for."""

import pytest

from app.accept import prefers

OCTETS, JSON = "application/octet-stream", "application/json"


@pytest.mark.parametrize(
    ("accept", "octets"),
    [
        ("application/octet-stream", True),
        ("APPLICATION/OCTET-STREAM", True),
        ("application/json, application/octet-stream;q=1.0", True),
        ("*/*;q=0.1,application/octet-stream ; charset=x; Q=0.5", True),
        ("application/octet-stream;q=0", False),
        ("application/octet-stream;q=0.000, */*", False),
        ("application/octet-stream;q=0.5, application/json", False),
        ("application/octet-streams", False),
        ("*/*", False),
        (";;,q=,", False),
        ("", False),
    ],
)
def test_octets_are_for_those_who_like_them_as_well_as_json(accept: str, octets: bool) -> None:
    assert prefers(accept, OCTETS, JSON) == octets
