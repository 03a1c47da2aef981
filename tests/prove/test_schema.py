"""10,000 requests made from the OpenAPI document: no 5xx, no answer that it does not declare."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.schema import conforms, damaged, serving

pytestmark = pytest.mark.prove
SEED, REQUESTS, DAMAGED = 1, 10_000, 2_000
ADMIN_KEY, API_KEY = "opens-writes", "opens-inference"
ALL = "examples,coverage,fuzzing"


def test_10000_requests_are_answered_as_declared(tiny_path: Path, tmp_path: Path, keep: Callable[[str], None]) -> None:
    started, cases, accepted, statuses = time.perf_counter(), Counter[str](), Counter[str](), Counter[int]()

    def count(name: str, report: dict) -> None:
        cases[name] = report["test_cases"]["generated"]
        rates = [phase for route in report["valid_rates"].values() for phase in route.values()]
        accepted[name] = sum(phase["accepted"] for phase in rates)

    with serving(tiny_path, tmp_path / "open") as server:
        count("no keys", conforms(server, tmp_path, seed=SEED, examples=150, phases=ALL))
        statuses += damaged(server, seed=SEED, count=DAMAGED)
    with serving(tiny_path, tmp_path / "closed", ADMIN_KEY, API_KEY) as server:
        for name, key, examples in (
            ("admin key", ADMIN_KEY, 60),
            ("inference key", API_KEY, 20),
            ("a wrong key", "x", 5),
        ):
            count(name, conforms(server, tmp_path, seed=SEED, examples=examples, phases=ALL, key=key))
    assert cases.total() >= REQUESTS

    keep(f"schemathesis made {cases.total():,} requests from the OpenAPI document, over all routes (uploads and")
    keep(f"deletions too), seed {SEED}, and sent them to `lorat serve`, and {DAMAGED:,} bodies were damaged. No answer")
    keep("was a 5xx, and each had a status, content type, headers and body that its route declares; what the document")
    keep("forbids was refused.\n")
    keep("| requests with | sent | valid and accepted |\n|---|---|---|")
    for name, sent in cases.items():
        keep(f"| {name} | {sent:,} | {accepted[name]:,} |")
    keep(f"\nDamaged bodies by status: {', '.join(f'{key}: {value}' for key, value in sorted(statuses.items()))}.")
    keep(f"{time.perf_counter() - started:.0f} s.")
