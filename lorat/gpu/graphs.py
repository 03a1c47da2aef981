"""CUDA graphs of the encoder, one for each bucket that comes up again."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lorat.gpu.answers import Answers
from lorat.gpu.buckets import Bucket
from lorat.gpu.encoder import Encoder
from lorat.gpu.plan import Plan
from lorat.gpu.stage import Stage

_MOST = 64  # graphs kept; the one not used for the longest time gives way
_REMEMBERED = 1024  # buckets seen once
logger = logging.getLogger("lorat")


Key = tuple[Bucket, tuple[str, ...] | None]
"""What a graph is of: a bucket, and the pooling that it goes on to."""


@dataclass(frozen=True)
class Graph:
    """A captured graph of `run`, the buffer that it reads its batch from, what it leaves."""

    captured: torch.cuda.CUDAGraph
    run: Callable[[], Tensor]
    buffer: Tensor
    output: Tensor
    done: torch.cuda.Event

    @contextmanager
    def replay(self, batch: Tensor, stream: torch.cuda.Stream | None) -> Iterator[Tensor]:
        """Its output for a batch, on the current stream; read it before the block ends.

        batch: (bytes,) uint8 in pinned memory, `plan.stage(bucket)` and what of the answers it computes. stream: the
        current one, for PyTorch takes long to say which it is.
        """
        self.done.wait(stream)
        try:
            self.buffer.copy_(batch[: self.buffer.numel()], non_blocking=True)
            self.captured.replay()
            yield self.output
        finally:  # what was queued runs, whatever became of its output
            self.done.record(stream)


class Graphs:
    """Captured lazily: the first batch of a bucket runs eagerly, the second is captured.

    One caller at a time (the owner's lock), each on its own stream: a replay waits for the one before it, since all
    graphs share their memory.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._captured: OrderedDict[Key, Graph] = OrderedDict()
        self._seen: OrderedDict[Key, None] = OrderedDict()
        self._refused: set[Key] = set()
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(encoder.device)  # type: ignore[no-untyped-call]  # of the captures
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # of the last replay, its output read

    def find(self, bucket: Bucket, plan: Plan, answers: Answers) -> Graph | None:
        """What computes a batch of this bucket: as far as its vectors where they are all that is asked (`pooling`),
        otherwise to (bucket.tokens, hidden). None until the like of it is asked for again.
        """
        key = bucket, answers.pooling
        if key not in self._captured and not self._capture_again(key, plan, answers):
            return None
        self._captured.move_to_end(key)
        return self._captured[key]

    def _capture_again(self, key: Key, plan: Plan, answers: Answers) -> bool:
        """Capture what was seen before. What cannot be captured runs eagerly from then on."""
        if key in self._refused:
            return False
        if key not in self._seen:
            self._remember(key)
            return False
        try:
            self._captured[key] = self._capture(key[0], plan, answers)
        except RuntimeError:
            logger.exception("no CUDA graph of %s: its batches run kernel by kernel", key)
            self._refused.add(key)
        return key in self._captured

    def _capture(self, bucket: Bucket, plan: Plan, answers: Answers) -> Graph:
        self._make_room()
        device = self._encoder.device
        stage, more = plan.stage(bucket), answers.stage if answers.pooling else Stage()
        buffer = torch.zeros(stage.bytes + more.bytes, dtype=torch.uint8, device=device)  # no sequence, no tile
        inputs, staged = stage.views(buffer), more.views(buffer[stage.bytes :])

        def run() -> Tensor:
            hidden = self._encoder.filled(bucket, inputs)
            return answers.compute(hidden, staged) if answers.pooling else hidden

        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):  # kernels are compiled and libraries opened before, not in, a capture
            run()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            output = run()
        return Graph(graph, run, buffer, output, self._done)

    def _make_room(self) -> None:
        if len(self._captured) >= _MOST:
            self._done.synchronize()
            self._captured.popitem(last=False)

    def _remember(self, key: Key) -> None:
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
