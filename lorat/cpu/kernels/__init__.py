"""The pass of a bfloat16 base as kernels of our own, which Numba compiles for the processor that it runs on.

`vectors` is a register of sixteen numbers, by the instructions in `llvm`; `products` is the matrix product, on which
`linear` (with `adapters`) and `attention` stand; `passes` is what is done row by row, `encode` the whole, called once a
batch. They take addresses, in `records`. On a processor without AVX-512-bf16 they compute the same, slowly.
"""
