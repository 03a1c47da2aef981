"""What must hold before a number of `benchmarks.gpu` means anything. Each check gives its largest error."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import groupby
from multiprocessing import get_context

import numpy as np
import torch
from transformers import BertConfig

from benchmarks.made import random_adapter, random_base
from lorat import MultiLoRAT, Row, Tokens
from lorat.deltas import Delta, Part
from lorat.ops import reference, triton
from lorat.targets import MODULES

Check = Callable[[str, str, float], dict[str, float]]
SMALL = BertConfig(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
HALF = {"bfloat16": 5e-2, "float16": 1e-2}
BOUNDS = {"float32": 1e-4} | HALF  # of the largest value
_WIDE, _TALL, _RANKS = 768, 768, ((8, 0, 8), (1, 1, 1), (128, 3, 0), (0, 0, 33), (16, 64, 4))
_MIXES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {  # whose each row is; 0: the base's
    "identical": lambda rows, rng: np.ones(rows, int),
    "distinct": lambda rows, rng: np.arange(rows) + 1,
    "uniform": lambda rows, rng: np.sort(rng.integers(0, 9, rows)),
    "zipf": lambda rows, rng: np.sort(rng.zipf(1.5, rows) - 1),
    "skewed": lambda rows, rng: np.maximum(1, np.arange(rows) - rows * 9 // 10),
}


def checks(device: str) -> dict[str, float]:
    """The largest relative error of each kind of check. Raises AssertionError for one that is out of its bound.

    Each in a process of its own, for most of their time goes into compiling kernels; what they compiled is kept.
    """
    asked = [(kind, device, dtype, bound) for kind in (_kernels, _model) for dtype, bound in BOUNDS.items()]
    asked.append((threads, device, "bfloat16", BOUNDS["bfloat16"]))
    with ProcessPoolExecutor(len(asked), mp_context=get_context("spawn")) as pool:
        return {
            f"{name}, {one[2]}": error
            for one, found in zip(asked, pool.map(_run, asked), strict=True)
            for name, error in found.items()
        }


def _run(asked: tuple[Check, str, str, float]) -> dict[str, float]:
    check, *arguments = asked
    return check(*arguments)


def _kernels(device: str, dtype: str, bound: float) -> dict[str, float]:
    return {"kernels": kernels(device, dtype, bound)}


def kernels(device: str, dtype: str, bound: float) -> float:
    """The kernels against the loop in float32, on every mix; rows of the base alone to the bit."""
    rng = np.random.default_rng(0)
    made = [_delta(ranks, getattr(torch, dtype), seed) for seed, ranks in enumerate(_RANKS)]
    there = [_moved(delta, device) for delta in made]
    errors = []
    for rows in (1, 2, 7, 32, 133):
        for mix in _MIXES.values():
            owners = mix(rows, rng)
            runs = [(owner, list(run)) for owner, run in groupby(range(rows), key=owners.__getitem__)]
            places = [(run[0], run[-1] + 1, int(owner) % len(made)) for owner, run in runs if owner]
            x, y = (torch.randn(rows, size).to(made[0].a.dtype) for size in (_WIDE, 3 * _TALL))
            got, expected = y.to(device, copy=True), y.float()
            triton.lora_delta(got, x.to(device), [(start, stop, there[owner]) for start, stop, owner in places])
            reference.lora_delta(expected, x, [(start, stop, made[owner]) for start, stop, owner in places])
            errors.append(_error(got, expected, bound))
            base = torch.from_numpy(owners == 0)
            assert torch.equal(got.cpu()[base], y[base])
    return max(errors)


def _delta(ranks: Sequence[int], dtype: torch.dtype, seed: int) -> Delta:
    generator = torch.Generator().manual_seed(seed)
    parts, start = [], 0
    for position, rank in enumerate(ranks):
        if rank:
            b = torch.randn(rank, _TALL, generator=generator).to(dtype)
            parts.append(Part((start, start + rank), (position * _TALL, (position + 1) * _TALL), b))
            start += rank
    a = (torch.randn(_WIDE, start, generator=generator) / _WIDE**0.5).to(dtype)
    return Delta(a, parts, torch.randn(3 * _TALL, generator=generator).to(dtype) if seed % 2 else None)


def _moved(delta: Delta, device: str) -> Delta:
    parts = [Part(part.ranks, part.columns, part.b.to(device)) for part in delta.parts]
    return Delta(delta.a.to(device), parts, None if delta.bias is None else delta.bias.to(device))


def _model(device: str, dtype: str, bound: float) -> dict[str, float]:
    """A device against a CPU in float32; together against alone; the graph's replay against the eager pass."""
    plain, model = (MultiLoRAT(random_base(SMALL, where, kind)) for where, kind in _both(device, dtype))
    errors: dict[str, list[float]] = {"against a CPU": [], "together, alone": [], "graph, eager": []}
    slots, others = ([None, *map(one.load, _adapters())] for one in (model, plain))
    for merged in (False, True):
        for lengths in ([1], [5, 17, 130, 2, 64, 33, 9], [3] * 40, [128] * 40):
            rows, same = _rows(slots, lengths), _rows(others, lengths)
            eager, *replayed = (_flat(model, rows) for _ in range(3))
            errors["against a CPU"].append(_error(eager, _flat(plain, same), bound))
            errors["graph, eager"] += [_error(one, eager, bound) for one in replayed]
            alone = torch.cat([_flat(model, [row]) for row in rows])
            errors["together, alone"].append(_error(eager, alone, bound))
        if not merged:
            model.merge(slots[1])
    return {name: max(values) for name, values in errors.items()}


def threads(device: str, dtype: str, bound: float) -> dict[str, float]:
    """Four threads load, merge, ask and unload adapters of their own; each answer is its own adapter's."""
    model = MultiLoRAT(random_base(SMALL, device, getattr(torch, dtype)))
    made = _adapters()[:4]

    def ask(index: int) -> list[torch.Tensor]:
        answers = []
        for turn in range(25):
            slot = model.load(made[index])
            if turn % 5 == 4:
                model.merge(slot)
            answers.append(_flat(model, _rows([slot], [4, 40, 90])))
            model.unload(slot)
        return answers

    alone = [ask(index)[0] for index in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    pairs = [(one, expected) for expected, many in zip(alone, answers, strict=True) for one in many]
    return {"threads": max(_error(one, expected, bound) for one, expected in pairs)}


def _both(device: str, dtype: str) -> tuple[tuple[str, torch.dtype], ...]:
    return ("cpu", torch.float32), (device, getattr(torch, dtype))


def _adapters() -> list:
    everything = list(MODULES)
    return [
        random_adapter(SMALL, 0, 8, ["query", "value"]),
        random_adapter(SMALL, 1, 3, everything),
        random_adapter(SMALL, 2, 128, ["output", "intermediate"]),
        random_adapter(SMALL, 3, 16, everything),
        random_adapter(SMALL, 4, 20, ["query", "ffn_output"], labels=3),
        random_adapter(SMALL, 5, 1, everything, labels=5),
    ]


def _rows(slots: Sequence, lengths: Sequence[int]) -> list[Row]:
    rng = np.random.default_rng(sum(lengths))
    chosen = [slots[place % len(slots)] for place in range(len(lengths))]
    ids = [rng.integers(0, SMALL.vocab_size, length).tolist() for length in lengths]
    return [
        Row(Tokens(one), slot, slot.adapter.task if slot else "embedding")
        for one, slot in zip(ids, chosen, strict=True)
    ]


def _flat(model: MultiLoRAT, rows: Sequence[Row]) -> torch.Tensor:
    return torch.cat([answer.reshape(-1) for answer in model.forward(rows)])


def _error(got: torch.Tensor, expected: torch.Tensor, bound: float) -> float:
    error = ((got.cpu().float() - expected.float()).abs().max() / expected.float().abs().max()).item()
    assert error <= bound, f"an error of {error:.2g}, more than {bound:.2g}"
    return error
