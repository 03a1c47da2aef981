"""Lanes: a stream and pinned memory for each thread: one batch is prepared and copied while another computes."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from lorat.gpu.stage import Stage


class Lane:
    """What a thread's batches need of the host, one batch at a time. On a CPU it is memory, and nothing to wait for."""

    def __init__(self, device: torch.device) -> None:
        self._pinned = device.type == "cuda"
        self._there, self._back = (torch.empty(0, dtype=kind) for kind in (torch.uint8, torch.float32))
        self.stream: torch.cuda.Stream | None = None
        self.current: AbstractContextManager[None] = nullcontext()
        if self._pinned:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self.current = torch.cuda.stream(self.stream)  # kept: making it asks for the device each time
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def write(self, *stages: Stage) -> Tensor:
        """What several stages hold, one after another, to be copied to the device: (bytes,) uint8.

        It is written over when the lane's next batch is.
        """
        self._there = self._at_least(self._there, sum(stage.bytes for stage in stages))
        target, first = self._there.numpy(), 0
        for stage in stages:
            stage.write(target, first)
            first += stage.bytes
        return self._there[:first]

    def fetch(self, values: Tensor) -> Tensor:
        """Queue a copy of float32 values to the host. It holds them once the lane has settled, until its next batch."""
        self._back = self._at_least(self._back, values.numel())
        return self._back[: values.numel()].view(values.shape).copy_(values, non_blocking=True)

    def settle(self) -> None:
        """Wait until what was queued here is done."""
        if self._pinned:
            self._done.record(self.stream)
            self._done.synchronize()

    def _at_least(self, memory: Tensor, size: int) -> Tensor:
        if memory.numel() >= size:
            return memory
        return torch.empty(1 << (size - 1).bit_length(), dtype=memory.dtype, pin_memory=self._pinned)


class Lanes:
    """The lanes of a device, by thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._threads = threading.local()

    @contextmanager
    def enter(self) -> Iterator[Lane]:
        """Queue what follows on this thread's stream.

        After an error it waits for what was queued: its tensors may be given up only then.
        """
        lane: Lane | None = getattr(self._threads, "lane", None)
        if lane is None:
            lane = self._threads.lane = Lane(self._device)
        with lane.current:
            try:
                yield lane
            except BaseException:
                lane.settle()
                raise


def settle(device: torch.device) -> None:
    """Wait until what this thread queued is done: other streams may then read what it wrote."""
    if device.type == "cuda":
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(device))
        done.synchronize()
