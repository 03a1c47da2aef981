"""Blocks, against what each place of them must hold."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lorat.blocks import lay_into_blocks


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 40), st.integers(1, 600)), min_size=1, max_size=40))
def test_a_query_sees_its_own_sequence_and_no_other(lengths):
    sizes = np.array(lengths)
    sequence = np.repeat(np.arange(len(sizes)), sizes)  # of each packed row
    starts = sizes.cumsum() - sizes
    laid_out = []
    for laid in lay_into_blocks(sizes):
        blocks, width = laid.rows.shape
        real = np.zeros(laid.rows.size, dtype=bool)
        for member, first in zip(laid.members, laid.first, strict=True):
            places = slice(first, first + sizes[member])
            assert first // width == (first + sizes[member] - 1) // width
            assert not real[places].any()
            assert (laid.rows.flat[places] == np.arange(starts[member], starts[member] + sizes[member])).all()
            real[places] = True
        hidden = np.broadcast_to(False if laid.hidden is None else laid.hidden, (blocks, width, width))
        real, owner = real.reshape(blocks, width), sequence[laid.rows]
        seen = real[:, :, None] & (owner[:, :, None] == owner[:, None])
        queries = np.broadcast_to(real[:, None], hidden.shape)
        assert (~hidden[queries] == seen[queries]).all()
        laid_out += laid.members.tolist()
    assert sorted(laid_out) == list(range(len(sizes)))


def test_short_sequences_share_blocks_and_long_ones_fill_their_own():
    assert [laid.rows.shape for laid in lay_into_blocks(np.array([8] * 10))] == [(3, 32)]
    assert [laid.rows.shape for laid in lay_into_blocks(np.array([700, 512, 33, 700]))] == [(1, 64), (1, 512), (2, 700)]


def test_where_all_see_all_nothing_is_hidden():
    assert all(laid.hidden is None for laid in lay_into_blocks(np.array([32, 64, 32, 800])))
