"""The encoder on a CPU that multiplies bfloat16, by kernels of our own: one call a batch, without Python."""

import threading

import numpy as np
import torch
from torch import Tensor

from lorat.cpu.kernels.attention import room_for
from lorat.cpu.kernels.encode import encode
from lorat.cpu.kernels.products import TILE_ROW
from lorat.cpu.kernels.records import LAYER, MODEL, ROOM, ROWS
from lorat.cpu.plan import Plan, Records
from lorat.layout import LANES, PANEL
from lorat.packed import Norm, PackedBert, PackedLayer
from lorat.packing import PackedBatch, pack
from lorat.routing import Routing


class Encoder:
    """The base on a CPU, for batches of any adapters. Its tensors are laid out as `lorat.layout.KERNELS`."""

    def __init__(self, model: PackedBert) -> None:
        self._model = model
        self._layers = np.array([_layer(layer) for layer in model.layers if isinstance(layer, PackedLayer)], LAYER)
        tables = (table.data_ptr() for table in (model.word, model.position, model.token_type))
        widths = model.word.shape[1], model.inner, model.heads
        self._base = np.array([(*tables, _norm(model.norm), *widths, model.norm.epsilon)], MODEL)
        self._rooms = threading.local()
        self(pack([[0]], [None]), Routing([]))  # compiled now, not in the first batch

    def __call__(self, batch: PackedBatch, routing: Routing) -> Tensor:
        """(tokens, hidden) float32: the last hidden states of a packed batch's sequences."""
        tokens = batch.offsets[-1]
        plan = Plan.of(routing.segments, tokens, len(self._layers))
        hidden = torch.empty(tokens, self._model.word.shape[1], dtype=torch.float32, device="cpu")
        encode(
            hidden.data_ptr(),
            *(row[:tokens].numpy() for row in (batch.ids, batch.positions, batch.types)),
            np.array(batch.offsets),
            self._base,
            self._layers,
            plan.blocks,
            plan.pieces,
            plan.merged,
            self._room(tokens, plan.ranks),
        )
        return hidden

    def _room(self, tokens: int, ranks: int) -> Records:
        """A thread's own ROOM, larger where the last one was too small."""
        room: Room | None = getattr(self._rooms, "own", None)
        if room is None or tokens > room.tokens or ranks > room.ranks:
            tokens, ranks = max(tokens, room.tokens if room else 0), max(ranks, room.ranks if room else 0)
            room = self._rooms.own = Room(self._model, tokens, ranks)
        return room.records


def _layer(layer: PackedLayer) -> tuple[tuple[int, int], ...]:
    """A LAYER."""
    qkv, output, intermediate, ffn_output = (
        (linear.laid_out.data_ptr(), linear.laid_out_bias.data_ptr()) for linear in layer.groups()
    )
    return qkv, output, _norm(layer.attention_norm), intermediate, ffn_output, _norm(layer.output_norm)


def _norm(norm: Norm) -> tuple[int, int]:
    return norm.weight.data_ptr(), norm.bias.data_ptr()


class Room:
    """Memory that passes of at most so many tokens, and ranks of an adapter at a linear, write to."""

    def __init__(self, model: PackedBert, tokens: int, ranks: int) -> None:
        self.tokens, self.ranks = tokens, ranks
        hidden = model.word.shape[1]
        sizes = {
            "rounded": 2 * tokens * hidden,
            "qkv": 6 * (tokens + LANES - 1) * hidden,
            "context": 2 * tokens * hidden,
            "inner": 2 * ROWS * model.inner,
            "tile": ROWS * TILE_ROW,
            "sums": ROWS * TILE_ROW,
            "shrunk": 2 * ROWS * ranks,
            "zeros": 4 * max(model.longest + LANES, model.head_size, PANEL),
            "attention": room_for(model.longest, model.head_size),
        }
        self._memory = {name: torch.zeros(size, dtype=torch.uint8, device="cpu") for name, size in sizes.items()}
        self.records = np.zeros(1, ROOM)
        self.records["ranks"] = ranks
        for name, memory in self._memory.items():
            self.records[name] = memory.data_ptr()
