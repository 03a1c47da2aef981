"""FrozenLinear: linear layers of the base that share an input, as one product for rows of many adapters."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lorat.adapter import Linear
from lorat.layout import lay_out, linear, plain, round_rows
from lorat.routing import Key, Merged, Routing

Activation = Callable[[Tensor], Tensor]
"""It may write its argument."""


class FrozenLinear(nn.Module):
    """Weight (out, in) and bias (out,) that are never written; the adapters come with each call."""

    laid_out: Tensor
    bias: Tensor

    def __init__(self, key: Key, linears: Sequence[Linear], activation: Activation | None = None) -> None:
        super().__init__()
        self.key = key
        self._activation = activation
        self.register_buffer("laid_out", lay_out(torch.cat([linear.weight for linear in linears])))
        self.register_buffer("bias", torch.cat([linear.bias for linear in linears]))

    @property
    def weight(self) -> Tensor:
        """The weight, (out, in); a copy where it is laid out otherwise."""
        return plain(self.laid_out)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """(rows, in), perhaps float32, to (rows, out): Wx + b and what each row's adapter adds; activated."""
        rounded = x.to(self.bias.dtype)
        merged = routing.merged(self.key)
        y = self._with_merged(rounded, merged) if merged else linear(rounded, self.laid_out, self.bias)
        routing.add_deltas(self.key, y, x)
        return self._activation(y) if self._activation else y

    def _with_merged(self, x: Tensor, merged: list[Merged]) -> Tensor:
        """Segments with a merged weight are one product each; what lies between them is the base's."""
        parts, done = [], 0
        for segment in [*merged, Merged(len(x), len(x), self.laid_out, None)]:
            for part in (Merged(done, segment.start, self.laid_out, None), segment):
                if part.start < part.stop:
                    parts.append(self._part(x, part))
            done = segment.stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _part(self, x: Tensor, part: Merged) -> Tensor:
        """The rows of one weight; a round number of rows is computed, with neighbours that are let go."""
        rows = min(round_rows(part.stop - part.start), len(x))
        first = min(part.start, len(x) - rows)
        bias = self.bias if part.bias is None else self.bias + part.bias
        y = linear(x[first : first + rows], part.weight, bias)
        return y[part.start - first : part.stop - first]
