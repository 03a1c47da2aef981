"""`lorat`: the command line. Nothing that is large is imported before a command needs it."""

import argparse
import sys
from collections.abc import Sequence

from app.commands import adapters, serving, training
from lorat.convert.command import add_parser as add_convert
from lorat.errors import LoratError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 for an error, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except LoratError as error:
        print(f"lorat: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lorat: stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("lorat", description="One frozen BERT, thousands of LoRA adapters, one endpoint.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serving.add_parsers(commands)
    training.add_parsers(commands)
    add_convert(commands)
    adapters.add_parsers(commands)
    return parser
