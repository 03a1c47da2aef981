"""`lorat`: the command line. Nothing that is large is imported before a command needs it."""

import argparse
import io
import os
import sys
from collections.abc import Sequence

from app.commands import adapters, converting, serving, training
from lorat import __version__
from lorat.errors import LoratError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 for an error, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a directory's name may be no text
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough, as `| head` does
        _discard_output()
        return 1
    except (LoratError, OSError) as error:
        _discard_output()
        print(f"lorat: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lorat: stopped", file=sys.stderr)
        return 130
    return 0


def _discard_output() -> None:
    """Drop what cannot be written: Python would try once more at its end, and say so in lines of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("lorat", description="One frozen BERT, thousands of LoRA adapters, one endpoint.")
    parser.add_argument("--version", action="version", version=f"lorat {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serving.add_parsers(commands)
    training.add_parsers(commands)
    converting.add_parsers(commands)
    adapters.add_parsers(commands)
    return parser
