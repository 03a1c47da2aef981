"""`lorat check | push | list | versions | rollback | delete | gc`."""

import argparse
import math
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from app.client import Client, files_of
from app.commands.process import SettingsError, prepare_process, read_settings
from app.environment import check_variables
from app.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8000"
_MOST_HOURS = 876_000  # a hundred years


def add_parsers(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    push = remote(commands.add_parser("push", help="upload an adapter's directory and serve it by name"), _push)
    push.add_argument("directory", type=Path, help="an adapter's directory, or a .zip, .tar or .tar.gz of it")
    push.add_argument("--name", required=True, help="the name that requests will use")
    push.add_argument("--replace", action="store_true", help="make it the newest version of a name that exists")
    push.add_argument("--dry-run", action="store_true", help="check and report, store nothing")
    remote(commands.add_parser("list", help="list the adapters of a server"), _list, opens="reading")
    versions = remote(
        commands.add_parser("versions", help="list the versions of an adapter, newest first"),
        _versions,
        opens="reading",
    )
    versions.add_argument("name")
    rollback = remote(commands.add_parser("rollback", help="make an old version the newest again"), _rollback)
    rollback.add_argument("name")
    rollback.add_argument("version", type=int)
    delete = remote(commands.add_parser("delete", help="delete an adapter"), _delete)
    delete.add_argument("name", help="NAME, or NAME@VERSION for one version")
    check = commands.add_parser("check", help="say what an upload would say, without a server")
    check.add_argument("directory", type=Path, help="an adapter's directory, or a .zip, .tar or .tar.gz of it")
    check.add_argument("--base", help="base model it is to run on (LORAT_BASE; default: the embedded MiniLM)")
    check.set_defaults(run=_check)
    collect = commands.add_parser("gc", help="remove contents from a store that no version means any more")
    collect.add_argument("--store", help="directory or URL (LORAT_STORE)")
    collect.add_argument(
        "--keep", type=int, help="end all but so many newest versions of each name (LORAT_KEEP_VERSIONS)"
    )
    collect.add_argument("--older-than-hours", type=_hours, default=24.0, help="spare younger contents (default 24)")
    collect.set_defaults(run=_gc)


def remote(parser: argparse.ArgumentParser, run: Any, opens: str = "writes") -> argparse.ArgumentParser:
    """A command that talks to a server. opens: what it needs a key for."""
    parser.add_argument(
        "--url", default=os.environ.get("LORAT_URL", DEFAULT_URL), help=f"the server (LORAT_URL; default {DEFAULT_URL})"
    )
    add_key(parser, opens)
    parser.set_defaults(run=run)
    return parser


def client_of(options: argparse.Namespace) -> Client:
    """The server that a command talks to. Raises SettingsError for a variable of another name than the known ones."""
    try:
        check_variables(os.environ, Settings.model_fields)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return Client(options.url, options.key)


def add_key(parser: argparse.ArgumentParser, opens: str) -> None:
    """The option of a key, from the environment where it is not given."""
    parser.add_argument("--key", default=os.environ.get("LORAT_KEY"), help=f"a key that opens {opens} (LORAT_KEY)")


def _check(options: argparse.Namespace) -> None:
    _require(options.directory)
    settings = read_settings(**({"base": options.base} if options.base else {}))
    prepare_process()
    from app.adapters.changes import inspect
    from app.main import check_adapter, load_model, upload_limits

    received = files_of(options.directory)
    model = load_model(settings)
    with tempfile.TemporaryDirectory(prefix="lorat-") as directory:
        found = inspect(received, Path(directory) / "files", upload_limits(settings), partial(check_adapter, model))
    _report(options.directory, "would be accepted", {**found.record, "ignored": found.files.ignored})


def _require(directory: Path) -> None:
    if not directory.exists():
        raise SettingsError(f"{directory} does not exist: name an adapter's directory")


def _push(options: argparse.Namespace) -> None:
    _require(options.directory)
    with client_of(options) as client:
        record = client.push(options.directory, options.name, replace=options.replace, dry_run=options.dry_run)
    if options.dry_run:
        _report(options.directory, "would be accepted", record)
    else:
        report_pushed(options.directory, record)


def report_pushed(directory: Path, record: dict[str, Any]) -> None:
    """Say what an upload is served as."""
    _report(directory, f"is served as {record['name']}@{record['version']}", record)


def _report(directory: Path, done: str, record: dict[str, Any]) -> None:
    """What was matched, and what was left out."""
    layers = ", ".join(map(str, record["layers"]))
    print(f"{directory} {done}: {_summary(record)}")
    print(f"  layers {layers}; {record['parameters']:,} parameters; base {record['base_match']}")
    if record["labels"]:
        print(f"  labels {', '.join(record['labels'])}")
    if record.get("ignored"):
        print(f"  left out {', '.join(record['ignored'])}")


def _list(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        for record in client.adapters():
            print(f"{record['name']}@{record['version']}\t{_summary(record)}")


def _summary(record: dict[str, Any]) -> str:
    labels = f", {len(record['labels'])} labels" if record["labels"] else ""
    return (
        f"{record['task']}{labels}, rank {record['rank']} on {', '.join(record['targets'])}, {record['bytes']:,} bytes"
    )


def _versions(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        for record in client.versions(options.name):
            print(f"{record['name']}@{record['version']}\t{record['created']}\t{_summary(record)}")


def _rollback(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        record = client.rollback(options.name, options.version)
    print(f"{options.name}@{options.version} is served as {record['name']}@{record['version']}")


def _hours(given: str) -> float:
    """What argparse makes of a number of hours. Raises ArgumentTypeError."""
    try:
        hours = float(given)
    except ValueError:
        hours = math.nan
    if not 0 <= hours <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of hours from 0 to {_MOST_HOURS}")
    return hours


def _gc(options: argparse.Namespace) -> None:
    from app.store.adapter_log import AdapterLog
    from app.store.gc import collect
    from app.store.location import local_root
    from app.store.store import Store

    settings = read_settings(**({"store": options.store} if options.store else {}))
    keep = settings.keep_versions if options.keep is None else options.keep
    root = local_root(settings.store)
    if root and not (root / "log").is_dir():  # opening it would make one
        raise SettingsError(f"there is no store at {settings.store}: look at LORAT_STORE, or --store")
    log = AdapterLog(Store.open(settings.store))
    if not (root or log.sequence):  # of a bucket only that can be known
        raise SettingsError(f"nothing was ever uploaded to {settings.store}: look at LORAT_STORE, or --store")
    done = collect(log, older_than_seconds=options.older_than_hours * 3600, keep_versions=keep)
    print(
        f"{settings.store}: {done.versions_ended} versions ended, "
        f"{done.contents_removed} contents removed, {done.bytes_freed:,} bytes freed"
    )


def _delete(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        client.delete(options.name)
    print(f"{options.name} is deleted")
