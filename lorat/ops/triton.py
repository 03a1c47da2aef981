"""What runs on a GPU: all adapters of a batch in one launch a linear layer, or in two, and passes of a layer in one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorat.deltas import Delta, Key
from lorat.gpu.lanes import settle
from lorat.ops import kernels, passes
from lorat.ops.table import PART, PART_FIELDS, Table, first_field
from lorat.ops.tiles import ROWS, tile

_SPAN = 1024  # inputs that one program sums up; it depends on the layer alone, so a row's sum is always the same
_COLUMNS, _WARPS = 256, 4
_CHUNK, _CHUNK_COLUMNS = 768, 128  # columns that one program adds to, and how many at a time
_NORM_ROWS, _NORM_WARPS = 4, 4
_GELU_SIZE = 2048
_POOL_ROWS, _POOL_COLUMNS = 32, 64
_LEAST_RANKS, _MOST_RANKS = 16, 64  # of one block: the matrix units take no fewer, and usual layers have no more


class Launch:
    """What all layers of a batch share: the tiles, and room for the shrunk rows.

    Its tensors belong to the stream that is current when it is made, and are used there only.
    """

    def __init__(self, tiles: Tensor, rows: int, ranks: int, aligned: int, widest: int) -> None:
        """tiles: (tiles, 3) int64 on the device, by `lorat.ops.tiles.tile` with addresses of tables.

        rows: of the batch. ranks: no entry of a table has more. aligned: see `Table`. widest: no x is wider.
        """
        self._tiles, self._rows, self._ranks, self._aligned = tiles, rows, ranks, aligned
        self._stride = -(-ranks // _LEAST_RANKS) * _LEAST_RANKS
        self._block = min(max(_LEAST_RANKS, _power_of_two(ranks)), _MOST_RANKS)
        self._shrunk = tiles.new_empty((_splits(widest), rows, self._stride), dtype=torch.float32)

    def add(self, key: Key, y: Tensor, x: Tensor) -> None:
        """y += what each tile's adapter adds at a linear layer, in place. y (rows, out), x (rows, in), of one dtype.

        Summed in float32 and rounded once; rows in no tile stay as they are, to the bit. Which way an adapter goes
        depends on its own ranks and the layer's width alone, so whoever shares the batch changes nothing.
        """
        assert x.stride(1) == y.stride(1) == 1 and x.dtype == y.dtype
        if x.shape[1] > _SPAN:
            self._in_two(key, y, x, least=0)
            return
        self._at_once(key, y, x)
        if self._ranks > _MOST_RANKS:
            self._in_two(key, y, x, least=_MOST_RANKS + 1)

    def _at_once(self, key: Key, y: Tensor, x: Tensor) -> None:
        kernels.shrink_expand[-(-y.shape[1] // _CHUNK), len(self._tiles)](
            y, x, self._tiles, first_field(key), y.stride(0), x.stride(0), y.shape[1], x.shape[1],
            ROWS=ROWS, RANKS=self._block, DEPTH=_depth(x), CHUNK=_CHUNK, COLUMNS=_CHUNK_COLUMNS, PART=PART,
            PART_FIELDS=PART_FIELDS, ALIGNED=self._aligned, WIDE=not x.is_cuda, num_warps=_WARPS, num_stages=3,
        )  # fmt: skip

    def _in_two(self, key: Key, y: Tensor, x: Tensor, least: int) -> None:
        count, splits, field = len(self._tiles), _splits(x.shape[1]), first_field(key)
        kernels.shrink[count, -(-self._stride // self._block), splits](
            self._shrunk, x, self._tiles, field, x.stride(0), x.shape[1], self._rows, self._stride,
            ROWS=ROWS, RANKS=self._block, DEPTH=_depth(x), SPAN=_SPAN, ALIGNED=self._aligned, LEAST=least,
            WIDE=not x.is_cuda,
        )  # fmt: skip
        kernels.expand[count, -(-y.shape[1] // _COLUMNS)](
            y, self._shrunk, self._tiles, field, y.stride(0), y.shape[1], self._rows, self._stride,
            ROWS=ROWS, RANKS=_LEAST_RANKS, COLUMNS=_COLUMNS, SPLITS=splits, PART=PART, PART_FIELDS=PART_FIELDS,
            ALIGNED=self._aligned, LEAST=least, WIDE=not x.is_cuda, num_warps=_WARPS, num_stages=1,
        )  # fmt: skip


def add_norm(y: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """The layer norm of y + residual, in y's memory. y, residual: (rows, width), contiguous."""
    assert y.is_contiguous() and residual.is_contiguous()
    rows, width = y.shape
    passes.add_norm[-(-rows // _NORM_ROWS),](
        y, residual, weight, bias, rows, width, epsilon,
        ROWS=_NORM_ROWS, COLUMNS=_power_of_two(width), num_warps=_NORM_WARPS,
    )  # fmt: skip
    return y


def gelu(y: Tensor) -> Tensor:
    """gelu(y), exact (erf), in y's memory; y is contiguous."""
    assert y.is_contiguous()
    passes.gelu[-(-y.numel() // _GELU_SIZE),](y, y.numel(), SIZE=_GELU_SIZE)
    return y


def pool(hidden: Tensor, bags: Tensor, modes: Sequence[str]) -> Tensor:
    """As `lorat.ops.reference.pool`."""
    assert hidden.is_contiguous() and bags.is_contiguous()
    width = hidden.shape[1]
    vectors = hidden.new_empty((len(bags), len(modes) * width), dtype=torch.float32)
    for place, mode in enumerate(modes):
        passes.pool[len(bags), -(-width // _POOL_COLUMNS)](
            vectors[:, place * width :], hidden, bags, vectors.stride(0), width,
            MODE=mode, ROWS=_POOL_ROWS, COLUMNS=_POOL_COLUMNS,
        )  # fmt: skip
    return vectors


def _depth(x: Tensor) -> int:
    return 128 if x.itemsize == 2 else 32


def _splits(width: int) -> int:
    return -(-width // _SPAN)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def lora_delta(y: Tensor, x: Tensor, segments: Sequence[tuple[int, int, Delta]]) -> None:
    """As `lorat.ops.reference.lora_delta`, with tables made for this one call: the model makes them beforehand."""
    key = (0, "qkv")
    tables = {id(delta): Table.of({key: delta}, 1, y.device) for _, _, delta in segments}
    if not tables:
        return
    places = [(start, stop, tables[id(delta)].fields.data_ptr()) for start, stop, delta in segments]
    ranks = max(table.ranks for table in tables.values())
    aligned = min(table.aligned for table in tables.values())
    Launch(torch.from_numpy(tile(places)).to(y.device), len(x), ranks, aligned, x.shape[1]).add(key, y, x)
    settle(y.device)  # the tables go out of scope here
