"""HTTP's preconditions, on the version that a name means."""

from app.errors import ConflictError, PreconditionFailedError
from app.store.catalog import Version


def check_preconditions(
    current: Version | None, digest: str, *, if_match: str | None, if_none_match: str | None, replace: bool
) -> bool:
    """Whether content with this digest is to become the next version after `current` (None: no such adapter).

    False: it is the newest version's content already, so there is nothing to do, even under a stale `If-Match`.
    Raises `PreconditionFailedError` when `If-Match` or `If-None-Match` (ETags as sent: quoted or not, `*`, or several
    with commas) does not hold, and `ConflictError` when other content is there and neither `If-Match` nor `replace`
    says to go on.
    """
    wanted, unwanted = _etags(if_match), _etags(if_none_match)
    if current is not None and "*" in unwanted:
        raise PreconditionFailedError(
            f"adapter {current.name!r} exists already and If-None-Match: * only creates: choose another name"
        )
    if current is not None and current.digest == digest:
        return False
    if current is not None and current.digest in unwanted:
        raise PreconditionFailedError(f"adapter {current.name!r} still has the ETag that If-None-Match excludes")
    if if_match is not None:
        if current is None:
            raise PreconditionFailedError("there is no such adapter to match: leave If-Match out to create it")
        if "*" not in wanted and current.digest not in wanted:
            raise PreconditionFailedError(
                f'adapter {current.name!r} has changed: its ETag is "{current.digest}" now: look again'
            )
        return True
    if current is not None and not replace:
        raise ConflictError(
            f"adapter {current.name!r} exists already with other content: send If-Match with its ETag, "
            "or ?replace=true, to add a new version"
        )
    return True


def _etags(header: str | None) -> set[str]:
    return {tag.strip().strip('"') for tag in (header or "").split(",")} - {""}
