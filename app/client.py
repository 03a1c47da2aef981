"""The HTTP calls that the command line makes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from lorat.errors import LoratError

TIMEOUT_SECONDS = 300


class ServerError(LoratError):
    """The server could not be reached, or said no."""


class FilesError(LoratError):
    """There is nothing to send."""


class Client:
    """A LoRAT server."""

    def __init__(self, url: str, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def push(self, directory: Path, name: str, *, replace: bool = False, dry_run: bool = False) -> dict[str, Any]:
        """Upload an adapter's directory (or one archive of it). Returns its record."""
        with ExitStack() as stack:
            files = [("files", (sent, stack.enter_context(path.open("rb")))) for sent, path in files_of(directory)]
            params = {"replace": replace, "dry_run": dry_run}
            return self._call("POST", "/adapters", params=params, data={"name": name}, files=files)

    def info(self) -> dict[str, Any]:
        """What the server says of itself."""
        return self._call("GET", "/info")

    def infer(self, path: str, name: str, inputs: Sequence[Any], **options: Any) -> list[Any]:
        """What an adapter answers at `/embed`, `/classify` or `/token_classify`, an entry for each input."""
        answers: Any = self._call("POST", path, params={"adapter": name}, json={"inputs": inputs, **options})
        return list(answers)

    def adapter(self, reference: str) -> dict[str, Any]:
        """The record of a name, or of `name@version`."""
        return self._call("GET", f"/adapters/{reference}")

    def adapters(self) -> Iterator[dict[str, Any]]:
        """Every adapter's record, by name."""
        after: str | None = None
        while True:
            page = self._call("GET", "/adapters", params={"after": after} if after else {})
            yield from page["adapters"]
            after = page["next"]
            if not after:
                return

    def versions(self, name: str) -> list[dict[str, Any]]:
        """The record of every version of a name, newest first."""
        found: list[dict[str, Any]] = self._call("GET", f"/adapters/{name}/versions")["versions"]
        return found

    def rollback(self, name: str, version: int) -> dict[str, Any]:
        """Make an old version's content the newest again. Returns the record of what the name now means."""
        return self._call("POST", f"/adapters/{name}/rollback", json={"version": version})

    def delete(self, reference: str) -> None:
        """Delete a name, or one version of it (`name@2`)."""
        self._call("DELETE", f"/adapters/{reference}")

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(f"no answer from {self._http.base_url}: {error}. Is the server running?") from error
        if response.is_success:
            return response.json() if response.content else {}
        raise ServerError(f"{response.status_code}: {_message(response)}")


def files_of(directory: Path) -> list[tuple[str, Path]]:
    """What an upload of a directory (or of one archive) sends: names and files. Raises FilesError for none."""
    paths = [directory] if directory.is_file() else [path for path in directory.rglob("*") if path.is_file()]
    if not paths:
        raise FilesError(f"{directory} holds no files: name an adapter's directory")
    root = directory.parent if directory.is_file() else directory
    return [(path.relative_to(root).as_posix(), path) for path in sorted(paths)]


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return response.text[:500]
