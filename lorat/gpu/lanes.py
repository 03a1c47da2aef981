"""Lanes: a stream for each thread, so that one batch is prepared and copied while another computes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Lanes:
    """Streams of a device by thread. On a CPU there is nothing to arrange."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._threads = threading.local()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Queue what follows on this thread's stream.

        After an error it waits for what was queued: its tensors may be given up only then.
        """
        if self._device.type != "cuda":
            yield
            return
        if not hasattr(self._threads, "stream"):
            self._threads.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._threads.stream):
            try:
                yield
            except BaseException:
                settle(self._device)
                raise


def settle(device: torch.device) -> None:
    """Wait until what this thread queued is done: other streams may then read what it wrote."""
    if device.type == "cuda":
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(device))
        done.synchronize()


def start_fetch(values: Tensor) -> Tensor:
    """Queue a copy to the host, into pinned memory. It holds the values once this thread has settled."""
    if not values.is_cuda:
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
