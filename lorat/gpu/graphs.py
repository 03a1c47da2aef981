"""CUDA graphs of the encoder, one for each bucket that comes up again."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorat.gpu.buckets import Bucket
from lorat.gpu.encoder import Encoder
from lorat.gpu.stage import Stage

_MOST = 64  # graphs kept; the one not used for the longest time gives way
_REMEMBERED = 1024  # buckets seen once
logger = logging.getLogger("lorat")


@dataclass(frozen=True)
class _Captured:
    """A graph, the buffer that it reads its batch from, the hidden states that it leaves."""

    graph: torch.cuda.CUDAGraph
    buffer: Tensor
    inputs: Sequence[Tensor]
    hidden: Tensor


class Graphs:
    """Captured lazily: the first batch of a bucket runs eagerly, the second is captured.

    One caller at a time (the owner's lock), each on its own stream: a replay waits for the one before it, since all
    graphs share their memory.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._captured: OrderedDict[Bucket, _Captured] = OrderedDict()
        self._seen: OrderedDict[Bucket, None] = OrderedDict()
        self._refused: set[Bucket] = set()
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(encoder.device)  # type: ignore[no-untyped-call]  # of the captures
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # of the last replay, its hidden states copied out

    def run(self, bucket: Bucket, stage: Stage) -> Tensor | None:
        """(bucket.tokens, hidden) in memory of its own; None where the bucket has no graph yet."""
        if bucket not in self._captured and not self._capture_again(bucket, stage):
            return None
        self._captured.move_to_end(bucket)
        return self._replay(self._captured[bucket], stage)

    def _capture_again(self, bucket: Bucket, stage: Stage) -> bool:
        """Capture a bucket that was seen before. What cannot be captured runs eagerly from then on."""
        if bucket in self._refused:
            return False
        if bucket not in self._seen:
            self._remember(bucket)
            return False
        try:
            self._captured[bucket] = self._capture(bucket, stage)
        except RuntimeError:
            logger.exception("no CUDA graph of %s: its batches run kernel by kernel", bucket)
            self._refused.add(bucket)
        return bucket in self._captured

    def _replay(self, captured: _Captured, stage: Stage) -> Tensor:
        stream = torch.cuda.current_stream(self._encoder.device)
        batch = stage.copy(self._encoder.device)  # while the replay before this one may still run
        stream.wait_event(self._done)
        captured.buffer.copy_(batch)
        captured.graph.replay()
        hidden = captured.hidden.clone()
        self._done.record(stream)
        return hidden

    def _capture(self, bucket: Bucket, stage: Stage) -> _Captured:
        self._make_room()
        device = self._encoder.device
        buffer = torch.zeros(stage.bytes, dtype=torch.uint8, device=device)  # no sequence, no tile: nothing to read
        inputs = stage.views(buffer)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):  # kernels are compiled and libraries opened before, not in, a capture
            self._encoder.filled(bucket, inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            hidden = self._encoder.filled(bucket, inputs)
        return _Captured(graph, buffer, inputs, hidden)

    def _make_room(self) -> None:
        if len(self._captured) >= _MOST:
            self._done.synchronize()
            self._captured.popitem(last=False)

    def _remember(self, bucket: Bucket) -> None:
        self._seen[bucket] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
