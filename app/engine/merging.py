"""Which adapters compute with merged weights. Pure: shares of traffic in, a choice out.

Merged weights save what an adapter's low-rank products cost; they take memory, and time to make. An adapter is worth
them when the time it would save is noticeable: its share of the tokens, times what its products add to a row. It gets
them once it has stayed in its slot until they would have paid for themselves: where adapters outnumber the slots it may
soon give way. It keeps them until its share has clearly fallen, so that a choice does not flap.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

_COST = 3.0  # a row's time grows by once (kernels of our own) to three times what its adapter adds to its arithmetic
_ENTER, _LEAVE = 0.01, 0.004  # shares of all time that merging must promise, and below which it ends
_COPY = 500  # tokens of the base that take as long as making merged weights (a CPU's; elsewhere none are chosen)
_MEMORY_TOKENS = 50_000  # after so many tokens what was seen before counts for a third


@dataclass(frozen=True)
class Candidate:
    """An adapter in a slot. size: its products' share of the base's arithmetic; bytes: of a merged copy."""

    size: float
    bytes: int
    tokens: int
    """Of its rows, since it is in its slot."""

    @property
    def cost(self) -> float:
        """What its products add to a row's time, as a share of the base's."""
        return _COST * self.size

    @property
    def has_stayed(self) -> bool:
        """Whether merged weights would have paid for themselves since it is in its slot."""
        return self.cost * self.tokens >= _COPY


class MergePolicy:
    """Chooses by what was seen of the traffic."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of merged copies together."""
        self._limit = limit
        self._shares: dict[str, float] = {}

    def observe(self, tokens: Mapping[str | None, int]) -> None:
        """Note the tokens that one batch had of each adapter (None: the base)."""
        total = sum(tokens.values())
        if not total:
            return
        weight = min(1.0, total / _MEMORY_TOKENS)
        faded = {digest: share * (1 - weight) for digest, share in self._shares.items()}
        for digest, count in tokens.items():
            if digest is not None:
                faded[digest] = faded.get(digest, 0.0) + weight * count / total
        self._shares = {digest: share for digest, share in faded.items() if share > 1e-6}

    def choose(
        self, candidates: Mapping[str, Candidate], merged: Set[str], always: Set[str], never: Set[str]
    ) -> frozenset[str]:
        """Who of the candidates computes with merged weights from now on, `merged` being those who do.

        Whoever is to be merged `always` is, and what memory that leaves goes to those who gain most.
        """
        chosen = {digest for digest in candidates if digest in always}
        left = self._limit - sum(candidates[digest].bytes for digest in chosen)
        gains = {
            digest: candidate.cost * self._shares.get(digest, 0.0)
            for digest, candidate in candidates.items()
            if digest not in chosen and digest not in never and (digest in merged or candidate.has_stayed)
        }
        # one that is merged goes before one that gains as much, or there would be no end of taking turns
        order = sorted(gains, key=lambda digest: gains[digest] * (2 if digest in merged else 1), reverse=True)
        for digest in order:
            worth = gains[digest] >= (_LEAVE if digest in merged else _ENTER)
            if worth and candidates[digest].bytes <= left:
                chosen.add(digest)
                left -= candidates[digest].bytes
        return frozenset(chosen)
