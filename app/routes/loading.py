"""vLLM's way of adding an adapter: by a directory on this machine, below the one that is configured for it."""

from pathlib import Path

from app.adapters.preconditions import Conditions
from app.errors import ConflictError, ForbiddenError
from app.service import Service
from lorat.errors import LoratError


class AlreadyLoadedError(LoratError):
    """The name is served, and the request does not say to replace it."""


class NoAdapterError(LoratError):
    """There is no adapter at this path."""


def load_directory(service: Service, name: str, path: str, replace: bool) -> None:
    """Upload the adapter in a directory below `LORAT_LORA_DIR`, and serve it in this process.

    Raises AlreadyLoadedError, NoAdapterError, ForbiddenError where no directory is configured, and whatever refuses
    an upload.
    """
    if service.settings.lora_dir is None:
        raise ForbiddenError("no directory is configured for lora_path: set LORAT_LORA_DIR, or POST /adapters")
    served = service.registry.catalog.newest(name) is not None and name not in service.unloaded
    if served and not replace:
        raise AlreadyLoadedError(
            f"The lora adapter '{name}' has already been loaded. "
            "If you want to load the adapter in place, set 'load_inplace' to True."
        )
    received = _files_below(service.settings.lora_dir, path)
    conditions = Conditions(replace=True) if replace or name in service.unloaded else Conditions()
    try:
        service.changes.upload(name, received, conditions)
    except ConflictError as error:  # another process was first
        raise AlreadyLoadedError(str(error)) from error
    service.serve(name)


def _files_below(root: Path, path: str) -> list[tuple[str, Path]]:
    """The files of a directory, by their paths in it. Raises NoAdapterError where any of it is outside the root."""
    root = root.resolve()
    try:
        directory = (root / path).resolve()
        below = directory.is_relative_to(root) and directory.is_dir()
        files = sorted(file for file in directory.rglob("*") if not file.is_dir()) if below else []
        plain = all(file.resolve().is_relative_to(root) and file.is_file() for file in files)
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a null byte, a ring of links
        raise NoAdapterError(f"No adapter found for {path[:100]!r}: no readable path") from error
    if not below:
        raise NoAdapterError(f"No adapter found for {path[:100]!r}: name a directory below LORAT_LORA_DIR")
    if not plain:
        raise NoAdapterError(f"No adapter found for {path[:100]!r}: it holds what is no file, or a link to elsewhere")
    return [(file.relative_to(directory).as_posix(), file) for file in files]
