"""When graphs are captured, kept and replayed; and that what is captured reads nothing but its buffer.

On a CPU a replay is the captured call over again, on the buffer as it is then, with the kernels interpreted and
flash attention emulated. Real graphs are in `test_forward.py`, for a GPU.
"""

from contextlib import nullcontext

import pytest
import torch
from transformers import BertConfig

from benchmarks.made import random_adapter, random_base
from lorat import MultiLoRAT, Row, Tokens
from lorat.gpu import attention, graphs
from lorat.gpu.forward import GpuForward
from lorat.targets import MODULES
from tests.kernels import use_kernels, varlen_here

CONFIG = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)


class Silent:
    """A stream, an event, a graph: of a device that is never behind."""

    def __init__(self, *_):
        pass

    def __getattr__(self, name):
        return lambda *_: None


class Repeated(graphs.Graphs):
    """A replay calls again what was captured."""

    captures = 0

    def _capture(self, bucket, plan, answers):
        graph = super()._capture(bucket, plan, answers)
        graph.captured.replay = lambda: graph.output.copy_(graph.run())
        self.captures += 1
        return graph


@pytest.fixture
def model():
    return MultiLoRAT(random_base(CONFIG, "cpu", torch.float32))


@pytest.fixture
def forward(model, monkeypatch):
    use_kernels("cpu", monkeypatch)
    monkeypatch.setattr(attention, "varlen_attn", varlen_here)
    for name in ("Stream", "Event", "CUDAGraph", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Silent)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    for name in ("graph", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: nullcontext())
    made = GpuForward(model._model, model.recipe)
    made._encoder.flash = True
    made._graphs = Repeated(made._encoder)
    return made


def answers(forward, rows):
    with torch.inference_mode():
        return forward(rows, [None] * len(rows))


def rows_of(slot, lengths):
    return [Row(Tokens([place + 5] * length), slot) for place, length in enumerate(lengths)]


def test_a_graph_serves_every_batch_of_its_bucket(model, forward):
    slots = [model.load(random_adapter(CONFIG, seed, rank, list(MODULES))) for seed, rank in enumerate((4, 9, 16))]
    batches = [(slot, lengths) for slot in slots for lengths in ([20, 7], [31], [9, 9, 9])]
    for slot, lengths in batches + batches:
        rows = rows_of(slot, lengths)
        for got, expected in zip(answers(forward, rows), model.forward(rows), strict=True):
            assert (got - expected).abs().max() <= 1e-4
    assert 0 < forward._graphs.captures < len(batches)


def test_a_replay_waits_for_one_whose_batch_failed(model, forward, monkeypatch):
    events = []
    monkeypatch.setattr(forward._graphs._done, "wait", lambda stream: events.append("wait"), raising=False)
    monkeypatch.setattr(forward._graphs._done, "record", lambda stream: events.append("record"), raising=False)
    rows = rows_of(None, [10])
    for _ in range(2):
        answers(forward, rows)
    [graph] = forward._graphs._captured.values()
    events.clear()
    batch = torch.zeros_like(graph.buffer)
    with torch.inference_mode(), pytest.raises(torch.OutOfMemoryError), graph.replay(batch, None):
        raise torch.OutOfMemoryError("for the answers")
    answers(forward, rows)
    assert events == ["wait", "record"] * 2


def test_captured_the_second_time_and_the_oldest_gives_way(model, forward, monkeypatch):
    monkeypatch.setattr(graphs, "_MOST", 2)
    seen = forward._graphs._captured
    for length, captured in ((10, 0), (12, 1), (40, 1), (40, 2), (100, 2), (12, 2), (100, 2)):
        answers(forward, rows_of(None, [length]))
        assert len(seen) == captured
    assert [bucket.tokens for bucket, _ in seen] == [16, 128]


def test_a_bucket_that_cannot_be_captured_runs_eagerly(model, forward, monkeypatch, caplog):
    def refuse(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    for _ in range(3):
        rows = rows_of(None, [10])
        assert torch.allclose(answers(forward, rows)[0], model.forward(rows)[0], atol=1e-5)
    assert caplog.text.count("kernel by kernel") == 1
