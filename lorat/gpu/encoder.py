"""The encoder on a GPU: embeddings and layers over staged tensors."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lorat.gpu.attention import choose_attention, runs_flash
from lorat.gpu.buckets import Bucket
from lorat.gpu.plan import Plan
from lorat.ops.table import Key
from lorat.packed import Attention
from lorat.routing import Routing, Segment


class TiledRouting(Routing):
    """Routing whose low-rank products are one shrink and one expand launch per linear layer."""

    def __init__(self, merged: Iterable[Segment], keys: frozenset[Key], launch: Any) -> None:
        """merged: the segments with merged weights. keys: where anything is added. launch: of the tiles."""
        super().__init__(merged)
        self._keys = keys
        self._launch = launch

    def touches(self, key: Key) -> bool:
        """As `Routing.touches`."""
        return key in self._keys or super().touches(key)

    def add_deltas(self, key: Key, y: Tensor, x: Tensor) -> None:
        """As `Routing.add_deltas`."""
        if key in self._keys:
            self._launch.add(key, y, x)


class Encoder:
    """A BERT's embeddings and packed layers, without what transformers' own loop does around them.

    `tiled`: adapters by the Triton kernels. Its calls wait for nothing on the device.
    """

    def __init__(self, model: Any, *, tiled: bool) -> None:
        """model: transformers' BertModel with `PackedLayer`s."""
        self.device: torch.device = model.device
        self._model, self._tiled, self._dtype = model, tiled, model.dtype
        config = model.config
        self._heads: int = config.num_attention_heads
        self._widest = max(config.hidden_size, config.intermediate_size)
        self.flash = runs_flash(self.device, self._dtype, config.hidden_size // self._heads)

    def exact(self, plan: Plan, inputs: Sequence[Tensor]) -> Tensor:
        """(tokens, hidden) of a batch; inputs: `plan.stage()` on the device."""
        longest = int(plan.lengths.max())
        return self._run(inputs, self._attention(inputs, longest), self._routing(plan, inputs[-1]))

    def filled(self, bucket: Bucket, inputs: Sequence[Tensor], plan: Plan | None = None) -> Tensor:
        """(bucket.tokens, hidden) of whatever batch is in the inputs, `plan.stage(bucket)` on the device.

        Without `plan` it reads nothing but the bucket and the inputs, so that a graph of it serves every batch.
        """
        keys = frozenset((layer, group) for layer in range(len(self._layers)) for group in bucket.groups)
        if self._tiled or plan is None:
            routing: Routing = self._tiles(inputs[-1], bucket.tokens, bucket.ranks, 8, (), keys)
        else:
            routing = Routing(plan.segments)
        return self._run(inputs, self._attention(inputs, bucket.longest), routing)

    @property
    def _layers(self) -> Any:
        return self._model.encoder.layer

    def _attention(self, inputs: Sequence[Tensor], longest: int) -> Attention:
        return choose_attention(self.flash, inputs[3], longest, self._heads, self._dtype)

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

        return TiledRouting(merged, keys, Launch(tiles, rows, ranks, aligned, self._widest))

    def _run(self, inputs: Sequence[Tensor], attention: Attention, routing: Routing) -> Tensor:
        ids, positions, types = inputs[:3]
        hidden = self._model.embeddings(input_ids=ids, position_ids=positions, token_type_ids=types)
        for layer in self._layers:
            hidden = layer(hidden, attention=attention, routing=routing)
        last: Tensor = hidden[0]
        return last
