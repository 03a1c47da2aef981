"""The arithmetic of per-row adapters, several ways to compute it.

`lora_delta(y, x, segments)` adds to each segment of y what its adapter adds. `reference` is the slow fp32 loop that
every other way is held against; `torch` is what runs wherever torch runs, and `triton` on a GPU. A CPU that multiplies
bfloat16 adds them within its own kernels (`lorat.cpu.kernels.linear`).
"""
