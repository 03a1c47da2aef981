"""The whole forward pass of a batch on a GPU."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec

from torch import Tensor

from lorat.errors import BaseError
from lorat.gpu.answers import Answers, Pool
from lorat.gpu.buckets import Bucket
from lorat.gpu.encoder import Encoder
from lorat.gpu.graphs import Graphs
from lorat.gpu.lanes import Lane, Lanes
from lorat.gpu.plan import Plan
from lorat.heads import LoadedHead
from lorat.ops import reference
from lorat.packed import PackedBert
from lorat.recipe import Dense, Recipe
from lorat.rows import Row
from lorat.slots import Slot

_DENSE_LAYERS = 256  # kept on the device


class GpuForward:
    """Plans a batch, sends it, runs it, brings its answers back.

    Threads that call it share the device: each has a stream of its own and plans while others compute, and they
    queue their work one after the other. Whatever a batch reads is held until its answers are on the host.
    """

    def __init__(
        self, model: PackedBert, recipe_of: Callable[[Slot | None], Recipe], *, tiled: bool = True, filled: bool = False
    ) -> None:
        """model: the base, on the GPU. recipe_of: the embedding recipe of a slot.

        For tests on a CPU: `tiled=False` takes plain products and pooling in place of the kernels, `filled` fills
        batches up to their bucket though no graph runs. Raises BaseError where Triton is missing.
        """
        if tiled and find_spec("triton") is None:
            raise BaseError("a GPU needs Triton for its adapters: pip install triton, or choose device cpu")
        self._encoder = Encoder(model, tiled=tiled)
        self._pool = _kernel() if tiled else reference.pool
        self._device = self._encoder.device
        self._recipe_of, self._filled = recipe_of, filled
        self._graphs = Graphs(self._encoder) if self._encoder.flash else None
        self._lanes = Lanes(self._device)
        self._lock = threading.Lock()
        self._dense: OrderedDict[int, tuple[Dense, Dense]] = OrderedDict()

    def __call__(self, rows: Sequence[Row], heads: Sequence[LoadedHead | None]) -> Sequence[Tensor]:
        """Answers of rows, those of one slot side by side, as `MultiLoRAT.forward` gives them; on the host."""
        if not rows:
            return []
        with self._lanes.enter() as lane:
            tokens = [row.tokens for row in rows]
            slots = [row.slot for row in rows]
            plan = Plan.of([t.ids for t in tokens], [t.types for t in tokens], slots)
            recipes = [self._recipe_of(slot) for slot in slots]
            bucket = plan.bucket() if self._graphs or self._filled else None
            answers = Answers(plan, rows, heads, recipes, self._pool, self._loaded, bucket)
            with self._lock:
                fetched = self._queue(lane, plan, answers, bucket)
            lane.settle()  # others may queue meanwhile; what this batch reads is held until here
            return answers.split(fetched.clone())

    def _queue(self, lane: Lane, plan: Plan, answers: Answers, bucket: Bucket | None) -> Tensor:
        """The batch's whole way on the device, queued; its answers are on the host once that is done."""
        graph = self._graphs.find(bucket, plan, answers) if self._graphs and bucket else None
        stage = plan.stage(bucket if graph or self._filled else None)
        batch = lane.write(stage, answers.stage)
        if graph and answers.pooling:
            with graph.replay(batch, lane.stream) as vectors:
                return lane.fetch(answers.asked(vectors))
        sent = batch.to(self._device, non_blocking=True)
        hidden_states = (
            graph.replay(batch, lane.stream) if graph else nullcontext(self._run(plan, bucket, stage.views(sent)))
        )
        with hidden_states as hidden:
            return lane.fetch(answers.asked(answers.compute(hidden, answers.stage.views(sent[stage.bytes :]))))

    def _run(self, plan: Plan, bucket: Bucket | None, inputs: Sequence[Tensor]) -> Tensor:
        """(tokens, hidden), kernel by kernel."""
        if bucket and self._filled:
            return self._encoder.filled(bucket, inputs, plan)
        return self._encoder.exact(plan, inputs)

    def _loaded(self, dense: Dense) -> Dense:
        """A dense layer of a recipe on the device, float32; copied when it is first needed."""
        with self._lock:
            if id(dense) not in self._dense:
                bias = None if dense.bias is None else dense.bias.float().to(self._device)
                moved = Dense(dense.weight.float().to(self._device), bias, dense.activation)
                self._dense[id(dense)] = dense, moved  # with the original, so that its id stays its own
                if len(self._dense) > _DENSE_LAYERS:
                    self._dense.popitem(last=False)
            self._dense.move_to_end(id(dense))
            return self._dense[id(dense)][1]


def _kernel() -> Pool:
    from lorat.ops import triton  # a CPU has no Triton

    return triton.pool
