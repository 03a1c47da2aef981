"""A process that changes a store and is killed at a chosen moment, and one that looks at what is left.

Everything here runs in processes of its own: obstore's threads do not survive a fork.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import obstore

import app.store.objects
from app.adapters.changes import Changes
from app.adapters.preconditions import Conditions
from app.adapters.registry import Registry
from app.adapters.upload import UploadLimits
from app.errors import ConflictError
from app.store.adapter_log import AdapterLog
from app.store.gc import collect
from app.store.store import Store
from lorat import Adapter, read_adapter
from lorat.targets import BaseShape

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "tests.prove.killed_server"])  # there is one fork server for all proofs
TINY = BaseShape(layers=3, hidden=32, intermediate=64, has_pooler=True)
OPERATIONS = [  # kind, reference, which adapter or version
    ("upload", "a", 0),
    ("upload", "b", 1),
    ("upload", "a", 1),
    ("upload", "a", 2),
    ("upload", "b", 1),  # the same again: nothing new
    ("rollback", "a", 1),
    ("delete", "a@2", 0),
    ("upload", "b", 2),
    ("delete", "b", 0),
    ("collect", "", 0),
    ("upload", "b", 1),  # what was just collected
    ("delete", "a", 0),
    ("upload", "a", 0),
    ("delete", "b@3", 0),
    ("collect", "", 0),
    ("upload", "b", 1),
]
State = dict[str, list[tuple[int, int]]]
"""Per name: (version, which adapter), newest first."""


def states(operations: Sequence[tuple[str, str, int]] = OPERATIONS) -> list[State]:
    """What there is after the first 0, 1, 2 … operations, worked out without any code of the store."""
    given: dict[str, list[tuple[int, int]]] = {}
    alive: State = {}
    after: list[State] = [{}]
    for kind, reference, which in operations:
        name, _, number = reference.partition("@")
        before = alive.get(name, [])
        if kind == "rollback":
            which = dict(given[name])[which]
        if kind in ("upload", "rollback") and not (before and before[0][1] == which):
            given.setdefault(name, []).append((len(given.get(name, [])) + 1, which))
            alive = {**alive, name: [given[name][-1], *before]}
        if kind == "delete":
            alive = {**alive, name: [each for each in before if number and each[0] != int(number)]}
        alive = {each: versions for each, versions in alive.items() if versions}
        after.append(alive)
    return after


class NoDevice:
    """An engine without slots."""

    def content(self, digest: str) -> Adapter | None:
        return None

    def digests(self) -> list[str]:
        return []

    def forget(self, digest: str) -> None:
        pass


def open_changes(location: str) -> tuple[Registry, Changes]:
    registry = Registry(
        AdapterLog(Store.open(location)), lambda directory: read_adapter(directory, TINY), NoDevice(), cache_bytes=0
    )
    return registry, Changes(registry, UploadLimits())


def files(directory: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in sorted(directory.iterdir())]


def operate(location: str, adapters: list[Path], acknowledged: Path, kill_at: int) -> None:
    """Run the operations; note each one that returned. Killed before the store's call number `kill_at`, from 1."""
    calls = count_calls(kill_at)
    registry, changes = open_changes(location)
    with acknowledged.open("ab", buffering=0) as notes:
        for kind, reference, which in OPERATIONS:
            if kind == "upload":
                changes.upload(reference, files(adapters[which]), Conditions(replace=True))
            elif kind == "rollback":
                changes.rollback(reference, which)
            elif kind == "delete":
                changes.delete(reference)
            else:
                collect(registry.log, older_than_seconds=0)
            notes.write(b".")
    acknowledged.with_suffix(".calls").write_text(str(calls()))


def count_calls(kill_at: int) -> Callable[[], int]:
    """Count every call that touches the store, syncs included; before the one to be killed at, be killed."""
    count = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counting

    for name in ("put", "get", "head", "list", "delete"):
        setattr(obstore, name, counted(getattr(obstore, name)))
    app.store.objects._fsync = counted(app.store.objects._fsync)
    return lambda: count


def look(location: str, adapters: list[Path], answer: Connection) -> None:
    """Send what a fresh process finds: a State, read and checked version by version, or what went wrong."""
    try:
        registry, changes = open_changes(location)
        found: State = {}
        digests = [changes.upload("probe", files(each), dry_run=True).record for each in adapters]
        for newest in registry.catalog.list():
            versions = registry.catalog.versions(newest.name)
            for version in versions:
                assert registry.bind(version.reference).version == version
                assert registry.bind(version.reference).content.rank == version.record["rank"]
            found[newest.name] = [(v.version, digests.index(dict(v.record))) for v in versions]
        again = changes.upload("afterwards", files(adapters[0]))  # and it can go on
        assert again.version is not None and again.version.version == 1
        answer.send(found)
    except BaseException as error:
        answer.send(f"{type(error).__name__}: {error}")


def race(location: str, adapters: list[Path], rounds: int, start: float, answer: Connection) -> None:
    """Upload to one name `rounds` times, then to as many new names; send the versions won and names created."""
    won: list[tuple[int, str]] = []
    created: list[str] = []
    _, changes = open_changes(location)
    time.sleep(max(0.0, start - time.time()))
    for index in range(rounds):
        uploaded = changes.upload("x", files(adapters[index % len(adapters)]), Conditions(replace=True))
        if uploaded.new and uploaded.version is not None:
            won.append((uploaded.version.version, uploaded.version.digest))
    for index in range(rounds):
        try:
            changes.upload(f"new-{index}", files(adapters[0]))
            created.append(f"new-{index}")
        except ConflictError:
            pass
    answer.send((won, created))
