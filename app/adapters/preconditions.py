"""HTTP's preconditions, on the version that a name means. Pure."""

from dataclasses import dataclass

from app.errors import ConflictError, PreconditionFailedError
from app.store.catalog import Version


@dataclass(frozen=True)
class Conditions:
    """What a request says of the version that is there.

    if_match, if_none_match: the headers as sent: `*`, or tags with commas, quoted or not; a tag is a version's digest,
    with or without `sha256:`. replace: an upload's `?replace=true`.
    """

    if_match: str | None = None
    if_none_match: str | None = None
    replace: bool = False

    def would_write(self, current: Version | None, digest: str) -> bool:
        """Whether content with this digest is to become the next version after `current` (None: no such adapter).

        False: it is the newest version's content already, so there is nothing to do, even under a stale `If-Match`.
        Raises `PreconditionFailedError` as `check_unchanged`, and `ConflictError` when other content is there and
        neither `If-Match` nor `replace` says to go on.
        """
        if current is None:
            if self.if_match is not None:
                raise PreconditionFailedError("there is no such adapter to match: leave If-Match out to create it")
            return True
        if "*" in _etags(self.if_none_match):
            raise PreconditionFailedError(
                f"adapter {current.name!r} exists already and If-None-Match: * only creates: choose another name"
            )
        if current.digest == digest:
            return False
        self.check_unchanged(current)
        if self.if_match is None and not self.replace:
            raise ConflictError(
                f"adapter {current.name!r} exists already with other content: send If-Match with its ETag, "
                "or ?replace=true, to add a new version"
            )
        return True

    def check_unchanged(self, current: Version) -> None:
        """Raises PreconditionFailedError when a header does not hold for a version that is there."""
        if is_known(current, self.if_none_match):
            raise PreconditionFailedError(
                f"adapter {current.name!r} is there as If-None-Match excludes it: leave the header out to change it"
            )
        if self.if_match is not None and not _match(_etags(self.if_match), current):
            raise PreconditionFailedError(
                f'adapter {current.name!r} has changed: its ETag is "{current.digest}" now: look again'
            )


ANY = Conditions()
"""Of a request that says nothing."""


def is_known(current: Version, if_none_match: str | None) -> bool:
    """Whether who sends this `If-None-Match` has the content already."""
    return _match(_etags(if_none_match), current)


def _match(tags: set[str], current: Version) -> bool:
    return not tags.isdisjoint({"*", current.digest, f"sha256:{current.digest}"})


def _etags(header: str | None) -> set[str]:
    return {tag.strip().strip('"') for tag in (header or "").split(",")} - {""}
