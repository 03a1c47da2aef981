"""FrozenLinear: linear layers of the base that share an input, as one product for rows of many adapters."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lorat.adapter import Linear
from lorat.deltas import Key
from lorat.layout import LIBRARY, Layout, linear, plain, round_rows
from lorat.routing import Merged, Routing

Activation = Callable[[Tensor], Tensor]
"""It may write its argument."""


class FrozenLinear(nn.Module):
    """Weight (out, in) and bias (out,) that are never written; the adapters come with each call."""

    laid_out: Tensor
    laid_out_bias: Tensor
    bias: Tensor

    def __init__(
        self,
        key: Key,
        linears: Sequence[Linear],
        activation: Activation | None = None,
        *,
        summed: bool = False,
        layout: Layout = LIBRARY,
    ) -> None:
        """summed: its output is summed on; on a CPU that, and what adapters add, is float32."""
        super().__init__()
        self.key = key
        self._activation = activation
        self._summed = summed
        self.layout = layout
        self.register_buffer("laid_out", layout.weight(torch.cat([linear.weight for linear in linears])))
        self.register_buffer("bias", torch.cat([linear.bias for linear in linears]))
        self.register_buffer("laid_out_bias", layout.bias(self.bias))

    @property
    def weight(self) -> Tensor:
        """The weight, (out, in); a copy where it is laid out otherwise."""
        return plain(self.laid_out)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """(rows, in), perhaps float32, to (rows, out): Wx + b and what each row's adapter adds; activated.

        Of weights that are laid out for the library.
        """
        key, summed = self.key, self._summed and not x.is_cuda
        rounded = x.to(self.bias.dtype)
        y = products(rounded, self.laid_out, self.bias, routing.merged(key), summed)
        routing.add_deltas(key, y, x)
        return self._activation(y) if self._activation else y


def products(x: Tensor, weight: Tensor, bias: Tensor, merged: list[Merged], summed: bool) -> Tensor:
    """Wx + b with each row's weight, as a function that TorchScript takes; float32 if `summed`."""
    y = _products(x, weight, bias, merged)
    return y.to(torch.float32) if summed else y


def _products(x: Tensor, weight: Tensor, bias: Tensor, merged: list[Merged]) -> Tensor:
    """Segments with a merged weight are one product each, what lies between them is the base's."""
    if not merged:
        return linear(x, weight, bias)
    parts: list[Tensor] = []
    done = 0
    for segment in merged:
        if done < segment.start:
            parts.append(_rows(x, done, segment.start, weight, bias))
        own = segment.bias
        parts.append(_rows(x, segment.start, segment.stop, segment.weight, bias if own is None else bias + own))
        done = segment.stop
    if done < len(x):
        parts.append(_rows(x, done, len(x), weight, bias))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _rows(x: Tensor, start: int, stop: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Wx + b of some rows; a round number of rows is computed, with neighbours that are let go."""
    rows = min(round_rows(stop - start), len(x))
    first = min(start, len(x) - rows)
    return linear(x[first : first + rows], weight, bias)[start - first : stop - first]
