"""The adapters that are in slots before the server is ready."""

from collections.abc import Sequence

from app.adapters.registry import Bound, Registry
from app.engine.engine import Engine
from app.errors import UnknownAdapterError
from lorat.errors import ConfigError, LoratError


def preload(registry: Registry, engine: Engine, references: Sequence[str], slots: int) -> None:
    """Put each into a slot. Raises ConfigError, which names the setting, for one that cannot be and for too many."""
    bound = [_bind(registry, reference) for reference in references]
    contents = {one.version.digest: one.content for one in bound}
    if len(contents) > slots:
        raise ConfigError(
            f"LORAT_PRELOAD names {len(contents)} adapters, and LORAT_SLOTS is {slots}: preload fewer, or raise it"
        )
    for digest, content in contents.items():
        engine.preload(digest, content).result()


def _bind(registry: Registry, reference: str) -> Bound:
    try:
        return registry.bind(reference)
    except LoratError as error:
        close = error.close if isinstance(error, UnknownAdapterError) else None
        hint = f": did you mean {close!r}?" if close else ""
        raise ConfigError(f"LORAT_PRELOAD: {error}{hint}") from error
