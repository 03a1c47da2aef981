"""The arithmetic of per-row adapters: one function, several ways to compute it.

`lora_delta(y, x, segments)` adds to each segment of y what its adapter adds. `reference` is the slow fp32
loop that every other way is held against; `torch` is what runs on a CPU.
"""

from lorat.ops.torch import lora_delta

__all__ = ["lora_delta"]
