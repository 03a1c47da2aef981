"""The encoder on a CPU that multiplies bfloat16, by kernels of our own: one call a batch, without Python."""

import math
import threading

import numpy as np
import torch
from torch import Tensor

from lorat.cpu.kernels.attention import room_for
from lorat.cpu.kernels.encode import encode
from lorat.cpu.kernels.linear import ROWS, TILE_SIZE
from lorat.cpu.kernels.records import LAYER, MODEL, ROOM
from lorat.cpu.plan import Plan, Records
from lorat.layout import PANEL
from lorat.packed import PackedBert, PackedLayer
from lorat.packing import PackedBatch
from lorat.routing import Routing

_BEYOND = 16  # rows that are read behind the last one


class Encoder:
    """The base on a CPU, for batches of any adapters. Its weights are laid out as `lorat.layout.KERNELS`."""

    def __init__(self, model: PackedBert) -> None:
        self._model = model
        self._kept: list[Tensor] = []  # what the records point to
        self._layers = np.array([self._layer(layer) for layer in model.layers if isinstance(layer, PackedLayer)], LAYER)
        tables = [self._address(table) for table in (model.word, model.position, model.token_type)]
        norm = self._address(model.norm.weight), self._address(model.norm.bias)
        inner = model.groups()[2].bias.shape[0]
        widths = model.word.shape[1], inner, model.heads
        self._base = np.array([(*tables, norm, *widths, model.norm.epsilon)], MODEL)
        self._rooms = threading.local()

    def __call__(self, batch: PackedBatch, routing: Routing) -> Tensor:
        """(tokens, hidden) float32: the last hidden states of a packed batch's sequences."""
        tokens = batch.offsets[-1]
        plan = Plan.of(routing.segments, tokens, len(self._layers))
        hidden = torch.empty(tokens, self._model.word.shape[1])
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

    def _layer(self, layer: PackedLayer) -> tuple[tuple[int, int], ...]:
        """A LAYER."""
        qkv, output, intermediate, ffn_output = (
            (linear.laid_out.data_ptr(), self._address(linear.bias.float())) for linear in layer.groups()
        )
        norms = (
            (self._address(norm.weight), self._address(norm.bias)) for norm in (layer.attention_norm, layer.output_norm)
        )
        return qkv, output, next(norms), intermediate, ffn_output, next(norms)

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _room(self, tokens: int, ranks: int) -> Records:
        """A thread's own ROOM, larger where the last one was too small."""
        room: Room | None = getattr(self._rooms, "own", None)
        if room is None or tokens > room.tokens or ranks > room.ranks:
            tokens, ranks = max(tokens, room.tokens if room else 0), max(ranks, room.ranks if room else 0)
            room = self._rooms.own = Room(self._model, tokens, ranks)
        return room.records


class Room:
    """Memory that passes of at most so many tokens, and ranks of an adapter at a linear, write to."""

    def __init__(self, model: PackedBert, tokens: int, ranks: int) -> None:
        self.tokens, self.ranks = tokens, ranks
        hidden, rows = model.word.shape[1], tokens + _BEYOND
        sizes = {
            "rounded": 2 * rows * hidden,
            "qkv": 6 * rows * hidden,
            "context": 2 * rows * hidden,
            "inner": 2 * ROWS * model.widest,
            "tile": TILE_SIZE,
            "sums": TILE_SIZE,
            "shrunk": 2 * ROWS * ranks,
            "zeros": 4 * max(model.longest + _BEYOND, model.head_size, PANEL),
            "attention": room_for(model.longest, model.head_size),
        }
        self._memory = {name: torch.zeros(math.ceil(size / 64) * 64, dtype=torch.uint8) for name, size in sizes.items()}
        addresses = {name: memory.data_ptr() for name, memory in self._memory.items()}
        self.records = np.array([tuple((addresses | {"ranks": ranks})[name] for name in ROOM.names or ())], ROOM)
