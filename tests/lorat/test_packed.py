"""The packed forward, with transformers' padded forward as the oracle; packing and routing by property."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertModel

from lorat import Row, Tokens
from lorat.layout import round_rows
from lorat.packed import Norm
from lorat.packing import pack
from lorat.routing import Routing

sequences = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=12), min_size=1, max_size=10)


@given(sequences)
def test_sequences_are_laid_end_to_end(ids):
    batch = pack(ids, [None] * len(ids))
    tokens = sum(map(len, ids))
    assert batch.ids[:tokens].tolist() == [token for sequence in ids for token in sequence]
    assert batch.positions[:tokens].tolist() == [p for s in ids for p in range(len(s))]
    assert batch.types.sum() == batch.ids[tokens:].sum() == batch.positions[tokens:].sum() == 0
    assert batch.ids.shape == batch.positions.shape == batch.types.shape
    assert batch.ids.shape == (round_rows(tokens),)
    assert [batch.offsets[i + 1] - batch.offsets[i] for i in range(len(ids))] == list(batch.lengths)


class FakeSlot:
    deltas = ()
    merged = ()
    shape = None


@given(st.lists(st.tuples(st.sampled_from([None, 0, 1, 2]), st.integers(1, 9)), min_size=1, max_size=12))
def test_segments_cover_exactly_the_rows_with_an_adapter(rows):
    slots = [FakeSlot() for _ in range(3)]
    chosen = [None if which is None else slots[which] for which, _ in rows]
    offsets = [0]
    for _, length in rows:
        offsets.append(offsets[-1] + length)
    segments = Routing.of(chosen, offsets).segments
    covered = {row for segment in segments for row in range(segment.start, segment.stop)}
    expected = {row for i, slot in enumerate(chosen) if slot for row in range(offsets[i], offsets[i + 1])}
    assert covered == expected
    assert all(before.stop <= after.start for before, after in pairwise(segments))


def test_a_packed_batch_equals_the_padded_forward(tiny, tiny_path):
    oracle = BertModel.from_pretrained(tiny_path).eval()

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.lists(st.integers(0, 30521), min_size=1, max_size=80), min_size=1, max_size=12), st.booleans())
    def check(ids, pairs):
        types = [[0] * (len(s) // 2) + [1] * (len(s) - len(s) // 2) if pairs else [0] * len(s) for s in ids]
        longest = max(map(len, ids))
        pad = lambda rows, fill: torch.tensor([row + [fill] * (longest - len(row)) for row in rows])  # noqa: E731
        mask = pad([[1] * len(s) for s in ids], 0)
        with torch.no_grad():
            hidden = oracle(input_ids=pad(ids, 0), token_type_ids=pad(types, 0), attention_mask=mask).last_hidden_state
        expected = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        got = torch.stack(tiny.forward([Row(Tokens(s, t if pairs else None)) for s, t in zip(ids, types, strict=True)]))
        assert (got - expected).abs().max() <= 1e-5

    check()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("with_residual", [False, True])
def test_on_a_cpu_sums_and_norms_are_not_rounded(kind, with_residual):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(48).to(kind), torch.randn(48).to(kind), torch.randn(7, 48).to(kind)
    residual = torch.randn(7, 48) if with_residual else None
    total = x.float() if residual is None else x.float() + residual
    expected = torch.layer_norm(total, (48,), weight.float(), bias.float(), 1e-12)
    got = Norm({"n.weight": weight, "n.bias": bias}, "n", 1e-12)(x, residual)
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() <= 1e-6 * expected.abs().max()
