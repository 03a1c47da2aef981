"""A batch cut into blocks and pieces: every row once, every adapter's rows with its table."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lorat.adapter import Linear
from lorat.cpu.kernels.records import ROWS
from lorat.cpu.plan import Plan
from lorat.deltas import Delta
from lorat.linear import FrozenLinear
from lorat.routing import Segment
from lorat.slots import Slot, Slots

KEY = (0, "output")
SLOTS = Slots({KEY: FrozenLinear(KEY, [Linear(torch.zeros(1, 8), torch.zeros(1))])}, 1)


def segment(start, stop, merged):
    slot = Slot(SLOTS, 1, None, {KEY: Delta(torch.zeros(8, 16, 2), [], None)})
    return Segment(start, stop, slot, {KEY: torch.zeros(1)} if merged else {})


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(1, 300), st.booleans()), max_size=12), st.integers(0, 99))
def test_each_row_is_in_one_block_and_in_the_piece_of_its_adapter(given_, after):
    segments, start = [], 0
    for gap, length, merged in given_:
        segments.append(segment(start + gap, start + gap + length, merged))
        start += gap + length
    rows = max(start + after - 50, 1)  # the last segments may reach beyond the batch
    segments = [one for one in segments if one.start < rows]
    plan = Plan.of(segments, rows, 1)
    owner = {row: one for one in segments for row in range(one.start, min(one.stop, rows))}
    done, covered = 0, {}
    for block in plan.blocks:
        assert block["start"] == done and 0 < block["stop"] - done <= ROWS
        done = block["stop"]
        for piece in plan.pieces[block["first_piece"] : block["stop_piece"]]:
            assert block["start"] <= piece["start"] < piece["stop"] <= block["stop"]
            covered |= dict.fromkeys(range(piece["start"], piece["stop"]), piece["table"])
        weights = {owner[row].merged[KEY].data_ptr() if row in owner and owner[row].merged else 0
                   for row in range(block["start"], block["stop"])}  # fmt: skip
        assert weights == {plan.merged[block["merged"], 1]}
    assert done == rows
    assert covered == {row: one.slot.table.fields.data_ptr() for row, one in owner.items()}
    assert sum(piece["stop"] - piece["start"] for piece in plan.pieces) == len(covered)
    assert plan.ranks == (16 if segments else 0)
