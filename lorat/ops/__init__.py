"""The arithmetic of per-row adapters, several ways to compute it.

`lora_delta(y, x, segments)` adds to each segment of y what its adapter adds. `reference` is the slow fp32 loop that
every other way is held against; `torch` is what runs on a CPU, `stacked` where its adapters are computed together, and
`triton` on a GPU.
"""
