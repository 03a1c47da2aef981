"""The fold of the log: numbers, references."""

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import (
    StoreError,
    UnknownAdapterError,
)
from app.store.catalog import Catalog

A, B, C = "a" * 64, "b" * 64, "c" * 64
NOW = "2026-01-02T03:04:05.000+00:00"


def upload(name: str, digest: str = A) -> dict[str, object]:
    return {"op": "upload", "name": name, "digest": digest, "created": NOW, "record": {"rank": 8}}


def delete(name: str, version: int | None = None) -> dict[str, object]:
    return {"op": "delete", "name": name, "version": version, "created": NOW}


def setting(name: str, **settings: object) -> dict[str, object]:
    return {"op": "settings", "name": name, "settings": settings, "created": NOW}


def catalog_of(*entries: dict[str, object]) -> Catalog:
    catalog = Catalog()
    for entry in entries:
        catalog.apply(entry)
    return catalog


def test_versions_are_numbered_and_the_newest_is_meant() -> None:
    catalog = catalog_of(upload("x", A), upload("y", B), upload("x", C))
    assert catalog.resolve("x").reference == "x@2"
    assert catalog.resolve("x@1").digest == A
    assert catalog.resolve("x").record == {"rank": 8}
    assert [v.version for v in catalog.versions("x")] == [2, 1]
    assert len(catalog) == 2
    assert catalog.digests() == {A, B, C}


def test_numbering_goes_on_after_a_delete() -> None:
    catalog = catalog_of(upload("x", A), upload("x", B), delete("x", 2))
    assert catalog.resolve("x").version == 1
    catalog.apply(delete("x"))
    assert catalog.newest("x") is None
    assert catalog.digests() == set()
    assert catalog.next_version("x") == 3
    catalog.apply(upload("x", C))
    assert catalog.resolve("x@3").digest == C
    with pytest.raises(UnknownAdapterError, match=r"x@1.*has the versions 3"):
        catalog.resolve("x@1")


@pytest.mark.parametrize("reference", ["x@0", "x@", "x@01", "x@-1", "x@two", "x@²", "x@1@1", "x@99999999999999999999"])
def test_a_version_that_is_none(reference: str) -> None:
    with pytest.raises(UnknownAdapterError) as caught:
        catalog_of(upload("x")).resolve(reference)
    assert repr(reference) in str(caught.value)


def test_an_unknown_name_is_named_and_a_close_one_suggested() -> None:
    catalog = catalog_of(upload("customer-intents"), upload("toxicity"))
    with pytest.raises(UnknownAdapterError, match=r"'custmer-intents'") as caught:
        catalog.resolve("custmer-intents")
    assert caught.value.close == "customer-intents" and "customer-intents" not in str(caught.value)
    with pytest.raises(UnknownAdapterError) as caught:
        catalog.resolve("quite-other")
    assert caught.value.close is None
    assert catalog.find("quite-other") is None


def test_ever_used_outlives_deletes() -> None:
    assert not Catalog().ever_used
    catalog = catalog_of(upload("x"), delete("x"))
    assert catalog.ever_used
    assert len(catalog) == 0


def test_pages_are_in_the_order_of_names() -> None:
    catalog = catalog_of(*(upload(name) for name in ["m", "b", "z", "b", "k"]))
    first = catalog.list()[:3]
    assert [v.reference for v in first] == ["b@2", "k@1", "m@1"]
    assert [v.name for v in catalog.list(first[-1].name)] == ["z"]
    assert [v.name for v in catalog.list("c")] == ["k", "m", "z"]  # the cursor's name may be gone by now


@pytest.mark.parametrize(
    "entry",
    [
        {**upload("x"), "op": "rename"},
        {},
        {**upload("x"), "digest": "sha256:" + A},
        {**upload("x"), "digest": None},
        {**upload("x"), "record": None},
        {**upload("x"), "name": 7},
        {"op": "delete", "name": "x", "created": NOW},  # not to be read as "every version"
        {**delete("x"), "version": "1"},
        {**delete("x"), "version": True},
        {**setting("x"), "settings": None},
        setting("x", pinned=1),
        setting("x", merge="sometimes"),
        setting("x", colour="blue"),
        {**setting("x"), "op": ["settings"]},
        {"op": "collect", "created": NOW},
        {"op": "collect", "created": NOW, "digests": [A, "../evil"]},
    ],
)
def test_an_entry_that_is_not_understood_changes_nothing(entry: dict[str, object]) -> None:
    catalog = catalog_of(upload("x"))
    with pytest.raises(StoreError):
        catalog.apply(entry)
    assert [v.reference for v in catalog.versions("x")] == ["x@1"]


def test_settings_are_merged_and_end_with_the_name() -> None:
    catalog = catalog_of(upload("x"), upload("y"))
    assert catalog.settings("x") == {"pinned": False, "merge": "auto"}
    catalog.apply(setting("x", pinned=True))
    catalog.apply(setting("x", merge="never"))
    catalog.apply(upload("x", B))
    catalog.apply(delete("x", 1))
    assert catalog.settings("x") == {"pinned": True, "merge": "never"}
    assert catalog.settings("y") == catalog.settings("nobody") == {"pinned": False, "merge": "auto"}
    catalog.apply(delete("x", 2))
    catalog.apply(setting("x", pinned=True))  # decided before, written after the delete
    catalog.apply(upload("x"))
    assert catalog.settings("x") == {"pinned": False, "merge": "auto"}


def test_when_a_content_lost_its_versions_is_known_until_it_is_collected() -> None:
    catalog = catalog_of(upload("x", A), upload("x", B), upload("y", A))
    assert catalog.ended(A) is None
    catalog.apply({**delete("x", 1), "created": "first"})
    assert (catalog.ended(A), catalog.ended(B)) == ("first", None)
    catalog.apply({**delete("x"), "created": "then"})
    catalog.apply({**delete("y"), "created": "last"})
    catalog.apply({**delete("y"), "created": "in vain"})
    assert (catalog.ended(A), catalog.ended(B)) == ("last", "then")
    catalog.apply({"op": "collect", "digests": [A], "created": NOW})
    assert catalog.ended(A) is None


def test_a_collection_raises_the_generation_and_nothing_else() -> None:
    catalog = catalog_of({"op": "collect", "digests": [A, B], "created": NOW})
    catalog.apply({"op": "collect", "digests": [A], "created": NOW})
    assert [catalog.generation(digest) for digest in (A, B, C)] == [2, 1, 0]
    assert not catalog.ever_used


names = st.sampled_from(["x", "y", "z"])
digests = st.sampled_from([A, B, C])
operations = st.one_of(
    st.builds(upload, names, digests),
    st.builds(delete, names, st.one_of(st.none(), st.integers(1, 6))),
)


@settings(deadline=None)
@given(st.lists(operations, max_size=40))
def test_no_number_is_ever_given_twice(entries: list[dict[str, object]]) -> None:
    catalog = Catalog()
    given: dict[str, list[int]] = {"x": [], "y": [], "z": []}
    alive: dict[tuple[str, int], object] = {}
    for entry in entries:
        name = str(entry["name"])
        number = catalog.next_version(name)
        catalog.apply(entry)
        if entry["op"] == "upload":
            given[name].append(number)
            alive[name, number] = entry["digest"]
        else:
            alive = {key: d for key, d in alive.items() if not (key[0] == name and entry["version"] in (None, key[1]))}
        for each, numbers in given.items():
            assert numbers == [*range(1, len(numbers) + 1)]
            there = {v.version: v.digest for v in catalog.versions(each)}
            assert there == {n: d for (key, n), d in alive.items() if key == each}
            newest = catalog.newest(each)
            assert (newest.version if newest else None) == max(there, default=None)
            assert [*there] == sorted(there, reverse=True)
    assert catalog.digests() == set(alive.values())
    assert len(catalog) == len({name for name, _ in alive}) == len(catalog.list())
    again = catalog_of(*entries)
    assert [again.versions(name) for name in given] == [catalog.versions(name) for name in given]


def test_readers_never_see_half_a_change() -> None:
    catalog = catalog_of(*(upload(f"n{i}") for i in range(50)))
    done = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                assert catalog.resolve("n7").name == "n7"
                assert len(catalog.list()) >= 50
                catalog.digests()
                assert catalog.find("nothing") is None
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(1500):
        catalog.apply(upload(f"m{i}"))
        catalog.apply(upload("n7", B))
        catalog.apply(delete("n7", catalog.resolve("n7").version))
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []


def test_versions_with_the_same_record_share_it_also_when_restored() -> None:
    """As rollbacks make them, and trainings with the same labels."""
    catalog = Catalog()
    for number in range(20):
        record = {"labels": [f"label {number % 2}"] * 100}
        catalog.apply({**upload("x", "ab"[number % 2] * 64), "record": record})
        catalog.apply({**upload("y", f"{number:064x}"), "record": {"labels": []}})
    restored = Catalog.restore(json.loads(json.dumps(catalog.state())))
    for each in (catalog, restored):
        assert len({id(version.record) for name in "xy" for version in each.versions(name)}) == 3
        assert len(each.state()["records"]) == 3
    assert restored.versions("x") == catalog.versions("x")
