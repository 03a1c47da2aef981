"""`lorat serve | tune | check | push | list | versions | rollback | delete | gc`."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.client import Client, files_of
from app.settings import Settings
from lorat.errors import LoratError
from lorat.memory import keep_freed_memory

_SWITCH_SECONDS = 0.0005
DEFAULT_URL = "http://127.0.0.1:8000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 for an error, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except LoratError as error:
        print(f"lorat: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("lorat", description="One frozen BERT, thousands of LoRA adapters, one endpoint.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve the base and the adapters of a store"))
    tune = commands.add_parser("tune", help="measure how many tokens a forward pass should hold on this machine")
    for name in ("base", "device", "dtype", "workers"):
        tune.add_argument(f"--{name}", help=f"{Settings.model_fields[name].description} (LORAT_{name.upper()})")
    tune.set_defaults(run=_tune)
    push = _remote(commands.add_parser("push", help="upload an adapter's directory and serve it by name"), _push)
    push.add_argument("directory", type=Path, help="an adapter's directory, or a .zip, .tar or .tar.gz of it")
    push.add_argument("--name", required=True, help="the name that requests will use")
    push.add_argument("--replace", action="store_true", help="make it the newest version of a name that exists")
    push.add_argument("--dry-run", action="store_true", help="check and report, store nothing")
    _remote(commands.add_parser("list", help="list the adapters of a server"), _list)
    versions = _remote(commands.add_parser("versions", help="list the versions of an adapter, newest first"), _versions)
    versions.add_argument("name")
    rollback = _remote(commands.add_parser("rollback", help="make an old version the newest again"), _rollback)
    rollback.add_argument("name")
    rollback.add_argument("version", type=int)
    delete = _remote(commands.add_parser("delete", help="delete an adapter"), _delete)
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
    collect.add_argument("--older-than-hours", type=float, default=24.0, help="spare younger contents (default 24)")
    collect.set_defaults(run=_gc)
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    for name, field in Settings.model_fields.items():
        default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar=name.rpartition("_")[2].upper(),
            help=f"{field.description} (LORAT_{name.upper()}; default {default!r})".replace("%", "%%"),
        )
    parser.set_defaults(run=_serve)


def _remote(parser: argparse.ArgumentParser, run: Any) -> argparse.ArgumentParser:
    parser.add_argument("--url", default=os.environ.get("LORAT_URL", DEFAULT_URL), help="the server (LORAT_URL)")
    parser.add_argument("--key", default=os.environ.get("LORAT_KEY"), help="a key that opens writes (LORAT_KEY)")
    parser.set_defaults(run=run)
    return parser


def _serve(options: argparse.Namespace) -> None:
    settings = read_settings(**_given(options))
    _prepare_process()
    from app.server import serve

    serve(settings)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that a command line names."""
    return {name: value for name in Settings.model_fields if (value := getattr(options, name, None)) is not None}


def _tune(options: argparse.Namespace) -> None:
    settings = read_settings(**_given(options))
    _prepare_process()
    from app.main import default_workers, load_model
    from app.tuning import choose_budget, measure_pace

    model = load_model(settings)
    workers = settings.workers or default_workers(model.device)
    paces = []
    for pace in measure_pace(model, workers):
        paces.append(pace)
        print(f"{pace.tokens:>6} tokens in a pass: {pace.rate:>9,.0f} tokens/s a worker", flush=True)
    print(f"LORAT_MAX_BATCH_TOKENS={choose_budget(paces)}")


def read_settings(**given: Any) -> Settings:
    """Settings from `given`, then the environment. Raises SettingsError naming each wrong one."""
    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = [f"LORAT_{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors(include_input=False)]
        raise SettingsError("; ".join(wrong)) from error


class SettingsError(LoratError):
    """A setting that cannot be honoured."""


def _prepare_process() -> None:
    """What must be set before torch and tokenizers are imported.

    OpenMP's threads spin at every barrier; beside an event loop and a tokeniser that starves all of them. The
    engine's threads take Python's lock for moments only: they should not wait 5 ms for it each time.
    """
    keep_freed_memory()
    sys.setswitchinterval(_SWITCH_SECONDS)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _check(options: argparse.Namespace) -> None:
    _require(options.directory)
    settings = read_settings(**({"base": options.base} if options.base else {}))
    _prepare_process()
    from app.changes import inspect
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
    with Client(options.url, options.key) as client:
        record = client.push(options.directory, options.name, replace=options.replace, dry_run=options.dry_run)
    done = "would be accepted" if options.dry_run else f"is served as {record['name']}@{record['version']}"
    _report(options.directory, done, record)


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
    with Client(options.url, options.key) as client:
        for record in client.adapters():
            print(f"{record['name']}@{record['version']}\t{_summary(record)}")


def _summary(record: dict[str, Any]) -> str:
    labels = f", {len(record['labels'])} labels" if record["labels"] else ""
    return (
        f"{record['task']}{labels}, rank {record['rank']} on {', '.join(record['targets'])}, {record['bytes']:,} bytes"
    )


def _versions(options: argparse.Namespace) -> None:
    with Client(options.url, options.key) as client:
        for record in client.versions(options.name):
            print(f"{record['name']}@{record['version']}\t{record['created']}\t{_summary(record)}")


def _rollback(options: argparse.Namespace) -> None:
    with Client(options.url, options.key) as client:
        record = client.rollback(options.name, options.version)
    print(f"{options.name}@{options.version} is served as {record['name']}@{record['version']}")


def _gc(options: argparse.Namespace) -> None:
    from app.adapter_log import AdapterLog
    from app.gc import collect
    from app.store import Store

    settings = read_settings(**({"store": options.store} if options.store else {}))
    keep = settings.keep_versions if options.keep is None else options.keep
    log = AdapterLog(Store.open(settings.store))
    done = collect(log, older_than_seconds=options.older_than_hours * 3600, keep_versions=keep)
    print(
        f"{settings.store}: {done.versions_ended} versions ended, "
        f"{done.contents_removed} contents removed, {done.bytes_freed:,} bytes freed"
    )


def _delete(options: argparse.Namespace) -> None:
    with Client(options.url, options.key) as client:
        client.delete(options.name)
    print(f"{options.name} is deleted")
