"""What a model answers to a few token ids, by itself and served."""

import torch

from lorat import MultiLoRAT, Row, Tokens

IDS = [[101, 7, 2054, 999, 102], [101, 102], [101, *range(2000, 2020), 102]]


@torch.no_grad()
def expected(model):
    """Per text: logits, or the mean of the last hidden states."""
    outputs = [model(torch.tensor([ids])) for ids in IDS]
    return [
        output.logits[0] if hasattr(output, "logits") else output.last_hidden_state[0].mean(0) for output in outputs
    ]


def served(out, base):
    server = MultiLoRAT.from_pretrained(base, device="cpu", slots=1)
    slot = server.load(out)
    return server.forward([Row(Tokens(ids), slot, slot.adapter.task) for ids in IDS])


def assert_same(got, wanted, atol):
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=0)
