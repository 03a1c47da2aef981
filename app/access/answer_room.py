"""Memory for large answers: counted from before they are computed until their clients have them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.errors import InvalidRequestError, OverloadedError

SMALL_BYTES = 1 << 20
_SPECIAL_TOKENS = 2
_BYTES_PER_NUMBER = 4


class AnswerRoom:
    """So many bytes for all large answers together. A small one always finds room. Used from one thread."""

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Count an answer as long as it lasts. Raises InvalidRequestError for one that never fits, OverloadedError."""
        if size <= SMALL_BYTES:
            yield
            return
        if size > self._most:
            raise InvalidRequestError(
                f"the answer may have {size} bytes as numbers, the most here is {self._most} (max_embed_all_bytes): "
                "send fewer or shorter inputs in one request"
            )
        if self._taken + size > self._most:
            raise OverloadedError(
                f"answers of {self._taken} bytes are computed or wait for their clients, and this one may have {size}; "
                f"the most here is {self._most} (max_embed_all_bytes): try again later"
            )
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size


def most_bytes(inputs: Sequence[str | list[int]], longest: int, hidden: int) -> int:
    """What a vector for each token of the inputs may take.

    A text has no more tokens than bytes, and none has more than `longest`.
    """
    tokens = sum(min(longest, _most_tokens(item)) for item in inputs)
    return tokens * hidden * _BYTES_PER_NUMBER


def _most_tokens(item: str | list[int]) -> int:
    if isinstance(item, str):
        return len(item.encode("utf-8", "surrogatepass")) + _SPECIAL_TOKENS
    return len(item)
