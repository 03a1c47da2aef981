"""The encoder on a GPU: embeddings and layers over staged tensors."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from lorat.deltas import Key
from lorat.gpu.attention import choose_attention, runs_flash
from lorat.gpu.buckets import Bucket
from lorat.gpu.plan import Plan
from lorat.packed import Attention, PackedBert
from lorat.routing import Routing, Segment

if TYPE_CHECKING:
    from lorat.ops.triton import Launch  # a CPU has no Triton


class TiledRouting(Routing):
    """Routing whose low-rank products are a launch or three per linear layer."""

    def __init__(self, merged: Iterable[Segment], keys: frozenset[Key], launch: "Launch") -> None:
        """merged: the segments with merged weights. keys: where anything is added. launch: of the tiles."""
        super().__init__(merged)
        self._keys = keys
        self._launch = launch

    def add_deltas(self, key: Key, y: Tensor, x: Tensor) -> None:
        """As `Routing.add_deltas`."""
        if key in self._keys:
            self._launch.add(key, y, x)


class Encoder:
    """The base on staged tensors. `tiled`: adapters by the Triton kernels. Its calls wait for nothing on the device."""

    def __init__(self, model: PackedBert, *, tiled: bool) -> None:
        self._model, self._tiled, self.device = model, tiled, model.device
        self.flash = runs_flash(model.device, model.dtype, model.head_size)

    def exact(self, plan: Plan, inputs: Sequence[Tensor]) -> Tensor:
        """(tokens, hidden) of a batch; inputs: `plan.stage()` on the device."""
        return self._run(inputs, self._attention(inputs, plan.longest), self._routing(plan, inputs[-1]))

    def filled(self, bucket: Bucket, inputs: Sequence[Tensor], plan: Plan | None = None) -> Tensor:
        """(bucket.tokens, hidden) of whatever batch is in the inputs, `plan.stage(bucket)` on the device.

        Without `plan` it reads nothing but the bucket and the inputs, so that a graph of it serves every batch.
        """
        keys = frozenset((layer, group) for layer in range(len(self._model.layers)) for group in bucket.groups)
        if self._tiled or plan is None:
            routing: Routing = self._tiles(inputs[-1], bucket.tokens, bucket.ranks, 8, (), keys)
        else:
            routing = Routing(plan.segments)
        return self._run(inputs, self._attention(inputs, bucket.longest), routing)

    def _attention(self, inputs: Sequence[Tensor], longest: int) -> Attention:
        return choose_attention(self.flash, inputs[3], longest, self._model.heads, self._model.dtype)

    def _routing(self, plan: Plan, tiles: Tensor) -> Routing:
        if not self._tiled:
            return Routing(plan.segments)
        return self._tiles(tiles, len(plan.ids), plan.ranks, plan.aligned, plan.merged, plan.keys)

    def _tiles(
        self, tiles: Tensor, rows: int, ranks: int, aligned: int, merged: Iterable[Segment], keys: frozenset[Key]
    ) -> Routing:
        if not len(tiles):
            return Routing(merged)
        from lorat.ops.triton import Launch  # a CPU has no Triton

        return TiledRouting(merged, keys, Launch(tiles, rows, ranks, aligned, self._model.widest))

    def _run(self, inputs: Sequence[Tensor], attention: Attention, routing: Routing) -> Tensor:
        ids, positions, types = inputs[:3]
        hidden: Tensor = self._model(ids, positions, types, attention, routing)
        return hidden
