"""`lorat serve | tune`."""

import argparse
import gc
from typing import Any

from app.commands.process import prepare_process, read_settings
from app.listening import bind
from app.settings import Settings


def add_parsers(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    _add_serve(commands.add_parser("serve", help="serve the base and the adapters of a store"))
    tune = commands.add_parser("tune", help="measure how many tokens a forward pass should hold on this machine")
    for name in ("base", "device", "dtype", "workers"):
        tune.add_argument(f"--{name}", help=f"{Settings.model_fields[name].description} (LORAT_{name.upper()})")
    tune.set_defaults(run=_tune)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    for name, field in Settings.model_fields.items():
        default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar=_metavar(name, field.annotation),
            help=f"{field.description} (LORAT_{name.upper()}; default {default!r})".replace("%", "%%"),
        )
    parser.set_defaults(run=_serve)


def _metavar(name: str, kind: object) -> str:
    """What a flag's help calls its value."""
    if kind is bool:
        return "true|false"
    return "N" if "_per_" in name else name.rpartition("_")[2].upper()


def _serve(options: argparse.Namespace) -> None:
    settings = read_settings(**_given(options))
    listeners = bind(settings.host, settings.port)
    prepare_process()
    gc.disable()  # until it is ready: looking through what the imports leave behind is a fifth of the start
    from app.server import serve

    serve(settings, listeners)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that a command line names."""
    return {name: value for name in Settings.model_fields if (value := getattr(options, name, None)) is not None}


def _tune(options: argparse.Namespace) -> None:
    settings = read_settings(**_given(options))
    prepare_process()
    from app.engine.tuning import choose_budget, measure_pace
    from app.main import default_workers, load_model

    model = load_model(settings)
    workers = settings.workers or default_workers(model.device)
    paces = []
    for pace in measure_pace(model, workers):
        paces.append(pace)
        print(f"{pace.tokens:>6} tokens in a pass: {pace.rate:>9,.0f} tokens/s", flush=True)
    print(f"LORAT_MAX_BATCH_TOKENS={choose_budget(paces)}")
