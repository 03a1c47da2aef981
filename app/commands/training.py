"""`lorat train | eval`."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from app.client import ServerError
from app.commands.adapters import add_key, client_of, remote, report_pushed
from app.commands.process import SettingsError, prepare_process
from app.names import check_name
from lorat.errors import LoratError
from lorat.training.command import add_arguments, read_columns, read_plan, show


def add_parsers(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    train = commands.add_parser("train", help="fine-tune an adapter on a labelled file")
    add_arguments(train)
    train.add_argument("--push", dest="url", metavar="URL", help="serve the result at this server")
    train.add_argument("--replace", action="store_true", help="with --push: make it the newest version of its name")
    add_key(train, "writes")
    train.set_defaults(run=_train)
    evaluate = remote(
        commands.add_parser("eval", help="scores of an adapter on a labelled file, beside the frozen base's"),
        _eval,
        opens="inference",
    )
    evaluate.add_argument("--data", type=Path, required=True, help="a file, or a directory of splits")
    evaluate.add_argument(
        "--train", type=Path, metavar="FILE", help="rows to fit the frozen base's probe to, where --data is a file"
    )
    evaluate.add_argument("--adapter", type=Path, help="an adapter's directory")
    evaluate.add_argument("--name", help="an adapter of the server, in place of --adapter")
    evaluate.add_argument("--base", help="directory or hub id; default: the embedded all-MiniLM-L6-v2")
    evaluate.add_argument("--leave-out", action="append", default=[], metavar="LABEL", help="skip a label's rows")
    evaluate.add_argument("--column", action="append", default=[], metavar="NAME=FIELD", help="read FIELD as NAME")


def _train(options: argparse.Namespace) -> None:
    plan = read_plan(options)
    if options.url and not options.name:
        raise SettingsError("--push needs --name: the name that requests will use")
    prepare_process()
    if options.url:
        _check_push(options)
    from lorat.train import train

    show(train(plan))
    if options.url:
        _push(plan.out, options)


def _check_push(options: argparse.Namespace) -> None:
    """Refuse before the training what would be refused after it: the name, the URL, the key, another base."""
    check_name(options.name)
    with client_of(options) as client:
        from lorat import load_base

        client.require_base(load_base(options.base, device="cpu").shape.base_id, options.base)
        client.require_push(options.name, options.replace)


def _push(out: Path, options: argparse.Namespace) -> None:
    """Serve what was trained. Raises ServerError, which says how to go on: the training is done."""
    try:
        with client_of(options) as client:
            record = client.push(out, options.name, replace=options.replace)
    except LoratError as error:
        again = shlex.join(["lorat", "push", str(out), "--name", options.name, "--replace", "--url", options.url])
        raise ServerError(f"{error}. The adapter is whole in {out}, it is served by: {again}") from error
    report_pushed(out, record)


def _eval(options: argparse.Namespace) -> None:
    if bool(options.adapter) == bool(options.name):
        raise SettingsError("give --adapter DIRECTORY, or --name NAME of an adapter that is served at --url")
    columns = dict(read_columns(options.column))
    prepare_process()
    from app.evaluating import evaluate_directory, evaluate_served
    from lorat.evaluate import Source

    source = Source(options.data, columns, tuple(options.leave_out), options.train)
    if options.adapter:
        evaluation = evaluate_directory(source, options.adapter, options.base)
    else:
        with client_of(options) as client:
            evaluation = evaluate_served(source, options.name, client, options.base)
    for line in evaluation.about:
        print(line)
    show(evaluation.scores)
