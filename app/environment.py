"""Which `LORAT_*` variables mean something. A misspelled one would be a key, perhaps, that silently is none."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

PREFIX = "LORAT_"
_OTHERS = frozenset(
    {
        "LORAT_URL", "LORAT_KEY",  # the command line's
        "LORAT_IMAGE", "LORAT_GPU_IMAGE", "LORAT_S3_IMAGE",  # docker-compose.yml's, which hands all of .env on
    }
)  # fmt: skip
_LINK = re.compile(r"LORAT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)", re.ASCII)
_LINKED_PORT = re.compile(r"(tcp|udp|sctp)://")


def check_variables(environment: Mapping[str, str], fields: Iterable[str]) -> None:
    """Raises ValueError, which names each variable that is neither one of these settings nor known otherwise.

    What Kubernetes sets for a service whose name begins with `lorat` is passed over.
    """
    known = {f"{PREFIX}{field.upper()}" for field in fields} | _OTHERS
    ours = {name.upper(): value for name, value in environment.items() if name.upper().startswith(PREFIX)}
    unknown = sorted(name for name, value in ours.items() if name not in known and not _is_link(name, value))
    if unknown:
        raise ValueError("; ".join(f"{name} is no setting: {_hint(name, known)}" for name in unknown))


def check_port(value: object) -> object:
    """A port's value as it was given. Raises ValueError for Kubernetes' own."""
    if isinstance(value, str) and _LINKED_PORT.match(value):
        raise ValueError(
            "this is what Kubernetes sets for a service named lorat: give the pod enableServiceLinks: false"
        )
    return value


def _is_link(name: str, value: str) -> bool:
    return bool(_LINK.fullmatch(name) or (name.endswith("_PORT") and _LINKED_PORT.match(value)))


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in sorted(known)], n=1)
    return f"did you mean {PREFIX}{close[0]}?" if close else "`lorat serve --help` lists them"
