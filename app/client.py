"""The HTTP calls that the command line makes."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from app.adapters.upload import UploadLimits
from lorat.errors import LoratError

TIMEOUT_SECONDS = 300
_WAITS, _LONGEST_WAIT = 20, 60  # for room, of one call; seconds of one wait


class ServerError(LoratError):
    """The server could not be reached, or said no: with a status, where it did."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class FilesError(LoratError):
    """What is to be sent is not there, cannot be read, or is no adapter's directory."""


class ArgumentError(LoratError):
    """A URL, a key or a name that cannot be sent."""


class Client:
    """A LoRAT server."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """key: without the white space around it. Raises ArgumentError for one that no header holds, and for no URL."""
        headers = {b"Authorization": _bearer(key.strip())} if key and key.strip() else {}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
        except httpx.InvalidURL as error:
            raise ArgumentError(f"LORAT_URL, or --url, is no server's URL: {error}") from error
        if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
            raise ArgumentError(f"{url!r} is no server's URL (LORAT_URL, --url or --push): write http://HOST:PORT")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def push(self, directory: Path, name: str, *, replace: bool = False, dry_run: bool = False) -> dict[str, Any]:
        """Upload an adapter's directory (or one archive of it). Returns its record. Raises FilesError, ServerError."""
        with ExitStack() as stack:
            try:
                files = [("files", (sent, stack.enter_context(path.open("rb")))) for sent, path in files_of(directory)]
            except OSError as error:
                raise FilesError(f"{directory} cannot be read: {error}") from error
            params = {"replace": replace, "dry_run": dry_run}
            try:
                return self._object("POST", "/adapters", params=params, data={"name": name}, files=files)
            except ServerError as error:
                if error.status != httpx.codes.CONFLICT:
                    raise
                raise ServerError(f"{error} (here: --replace)", error.status) from error

    def info(self) -> dict[str, Any]:
        """What the server says of itself."""
        return self._object("GET", "/info")

    def require_base(self, base_id: str | None, base: str | None) -> None:
        """Raise ServerError unless a LoRAT answers there, and has this base. base: as `load_base` takes it."""
        info = self.info()
        if "model_sha" not in info:
            raise self._stranger()
        if info["model_sha"] != base_id:
            named = base or "the embedded one"
            raise ServerError(f"{self._http.base_url} has another base than {named}: name its base with --base")

    def require_push(self, name: str, replace: bool) -> None:
        """Raise ServerError where the key opens no writes, or not this name, or where the name is there already.

        Servers judge keys before they read files.
        """
        form, there = self._send("POST", "/adapters", data={"name": name}), self._send("GET", _path(name))
        for response in (form, there):
            if response.status_code in (401, 403):
                self._value(response)
        if there.is_success and not replace:
            raise ServerError(f"{name!r} is served already: choose another --name, or --replace it", 409)

    def infer(self, path: str, name: str, inputs: Sequence[Any], **options: Any) -> list[Any]:
        """What an adapter answers at `/embed`, `/classify` or `/token_classify`, an entry for each input.

        A server that has no room is asked again when it says, 20 times at most.
        """
        asked: dict[str, Any] = {"params": {"adapter": name}, "json": {"inputs": inputs, **options}}
        for _ in range(_WAITS):
            response = self._send("POST", path, **asked)
            seconds = _wait_for_room(response)
            if seconds is None:
                return list(self._value(response))
            time.sleep(seconds)
        return list(self._call("POST", path, **asked))

    def adapter(self, reference: str) -> dict[str, Any]:
        """The record of a name, or of `name@version`."""
        return self._object("GET", _path(reference))

    def adapters(self) -> Iterator[dict[str, Any]]:
        """Every adapter's record, by name."""
        return self._pages("/adapters", "adapters")

    def versions(self, name: str) -> Iterator[dict[str, Any]]:
        """The record of every version of a name, newest first."""
        return self._pages(f"{_path(name)}/versions", "versions")

    def rollback(self, name: str, version: int) -> dict[str, Any]:
        """Make an old version's content the newest again. Returns the record of what the name now means."""
        return self._object("POST", f"{_path(name)}/rollback", json={"version": version})

    def delete(self, reference: str) -> None:
        """Delete a name, or one version of it (`name@2`)."""
        self._call("DELETE", _path(reference))

    def _pages(self, path: str, field: str) -> Iterator[dict[str, Any]]:
        """What a list holds, page by page."""
        after: str | int | None = None
        while True:
            page = self._object("GET", path, params={"after": after} if after else {})
            if field not in page:
                raise self._stranger()
            yield from page[field]
            after = page.get("next")
            if not after:
                return

    def _object(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._call(method, path, **options)
        if not isinstance(answer, dict):
            raise self._stranger()
        return answer

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return self._value(self._send(method, path, **options))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(f"no answer from {self._http.base_url}: {error}. Is the server running?") from error
        except UnicodeEncodeError as error:
            raise ArgumentError(f"{error.object[:100]!r} cannot be sent: it is no text in UTF-8") from error

    def _value(self, response: httpx.Response) -> Any:
        if response.is_redirect:
            location = response.headers.get("location", "elsewhere")
            raise ServerError(
                f"{response.status_code}: {self._http.base_url} sends on to {location}: give that as --url"
            )
        if not response.is_success:
            raise ServerError(
                f"{response.status_code}: {_message(response)}{self._hint(response)}", response.status_code
            )
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise self._stranger() from error

    def _hint(self, response: httpx.Response) -> str:
        """What to change on a command line, where the server's own words do not say that."""
        if response.status_code == httpx.codes.UNAUTHORIZED:
            return " (here: --key, or LORAT_KEY)"
        if response.status_code == httpx.codes.NOT_FOUND and self._http.base_url.path.strip("/"):
            return f" (here: --url without {self._http.base_url.path.rstrip('/')!r}, unless a proxy takes it away)"
        return ""

    def _stranger(self) -> ServerError:
        return ServerError(f"{self._http.base_url} answers, but not as LoRAT does: is it the right --url?")


def files_of(directory: Path) -> list[tuple[str, Path]]:
    """What an upload of a directory (or of one archive) sends: names and files.

    Raises FilesError for none, for more than an upload may hold, and for what cannot be sent.
    """
    most = UploadLimits.max_files
    paths = [directory] if directory.is_file() else list(islice(_files_below(directory), most + 1))
    if not paths:
        raise FilesError(f"{directory} holds no files: name an adapter's directory")
    if len(paths) > most:
        raise FilesError(f"{directory} holds more than {most} files: name an adapter's own directory")
    root = directory.parent if directory.is_file() else directory
    return [(path.relative_to(root).as_posix(), path) for path in sorted(paths)]


def _files_below(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file():
            yield path
        elif path.is_symlink() or not path.is_dir():
            raise FilesError(f"{path} is a link to nowhere or to a folder, or no file: put files there, or remove it")


def _bearer(key: str) -> bytes:
    if not key.isprintable():  # a header with a control character is quoted by the error that refuses it
        raise ArgumentError("the key has characters that a header cannot hold: look at LORAT_KEY, or --key")
    return f"Bearer {key}".encode()


def _path(reference: str) -> str:
    """Where an adapter is. Raises ArgumentError for what would be another place."""
    if reference in ("", ".", "..") or not reference.isprintable():
        raise ArgumentError(f"{reference!r} is no adapter: send NAME, or NAME@VERSION")
    return f"/adapters/{quote(reference, safe='@')}"


def _wait_for_room(response: httpx.Response) -> int | None:
    """Seconds after which a server that has no room may be asked again; None: it has, or does not say when it will."""
    unsaid = "1" if response.status_code == 429 else ""
    seconds = response.headers.get("Retry-After", unsaid)
    if response.status_code not in (429, 503) or not seconds.isdecimal() or int(seconds) > _LONGEST_WAIT:
        return None
    return int(seconds)


def _message(response: httpx.Response) -> str:
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return response.text[:500]
