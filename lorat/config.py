"""LoRATConfig: what is trained and how it is scaled."""

from dataclasses import dataclass
from numbers import Real
from typing import Literal

from lorat.errors import ConfigError

Mode = Literal["all", "part"]
MAX_RANK = 256
"""The highest rank that is trained and converted, and that is served unless LORAT_MAX_RANK says otherwise."""
MAX_ALPHA = 1e9
"""Alphas as high as this are neither trained nor served."""


@dataclass(frozen=True)
class LoRATConfig:
    """A validated recipe for one adapter.

    rank, alpha: `y = Wx + b + scaling * B(Ax)`, A of shape (rank, in), B of shape (out, rank);
        scaling is alpha / rank, or alpha / sqrt(rank) with `use_rslora` (arXiv 2312.03732).
    targets: names as in `lorat.targets.MODULES`.
    layers: indices of the encoder layers that carry the adapter.
    mode: "all" freezes the whole base; "part" freezes only the wrapped linears.
    dropout: probability on the adapter's input while training.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    layers: tuple[int, ...]
    mode: Mode = "all"
    dropout: float = 0.0
    use_rslora: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that cannot be honoured."""
        if self.mode not in ("all", "part"):
            raise ConfigError(f"mode={self.mode!r}: use 'all' (freeze the whole base) or 'part'")
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or not 1 <= self.rank <= MAX_RANK:
            raise ConfigError(f"rank={self.rank!r}: use a whole number from 1 to {MAX_RANK}")
        if not isinstance(self.alpha, Real) or not 0 < self.alpha < MAX_ALPHA:
            raise ConfigError(f"alpha={self.alpha!r}: use a number above 0 and below {MAX_ALPHA:g}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout!r}: use a probability from 0 to below 1")

    @property
    def scaling(self) -> float:
        """The factor on B(Ax)."""
        return scaling(self.alpha, self.rank, self.use_rslora)


def scaling(alpha: float, rank: int, use_rslora: bool) -> float:
    """alpha / rank (arXiv 2106.09685), or alpha / sqrt(rank) (rank-stabilised, arXiv 2312.03732)."""
    return float(alpha / rank**0.5) if use_rslora else alpha / rank
