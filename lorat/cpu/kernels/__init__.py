"""The pass of a bfloat16 base as kernels of our own, which Numba compiles for the processor that it runs on.

`vectors` is a register of sixteen numbers, by the instructions in `llvm`; `products` is the matrix product, on which
`linear` (with `adapters`) and `attention` stand; `passes` is what is done row by row, `encode` the whole, called once a
batch. On a processor without AVX-512-bf16 they compute the same, slowly.

Everything is an address, with strides in bytes: 2 is a bfloat16, 4 a float32 or a pair of bfloat16, 8 an address; so
6 * hidden is a row of query, value and key. `x + 2 * (row * width + column)` is numpy's `x[row, column:column + 16]`.
What a pass is given is in `records`.
"""
