"""Sixteen float32 in a register, as a type that Numba compiles: `Vector`, and what is done with it.

Numba has numbers and arrays. Its own vectoriser needs loops of a simple shape, and knows no bfloat16. An `@intrinsic`
gives two things: the signature, `result(arguments)`, and a function that writes the instructions when Numba compiles
the call (`args` are the values). No Python runs in a kernel.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from lorat.cpu.kernels import llvm
from lorat.cpu.kernels.llvm import ADDRESS, FLOAT, FLOATS, HALVES, INT, INTS, all_lanes, at, repeated
from lorat.layout import LANES

OPTIONS = {"nogil": True, "error_model": "numpy"}
"""For Numba: what is compiled runs without Python's lock, and divides as a processor does."""
_ADDRESS, _NUMBER, _NOTHING = types.int64, types.float32, types.void


class _Vector(types.Type):
    def __init__(self):
        super().__init__(name="float32x16")


Vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, FLOATS)


@intrinsic
def load(typing, address):
    """Sixteen float32 in memory."""
    return Vector(_ADDRESS), lambda context, builder, signature, args: builder.load(
        at(builder, args[0], FLOATS), align=4
    )


@intrinsic
def store(typing, address, vector):
    """Write sixteen float32."""

    def generate(context, builder, signature, args):
        builder.store(args[1], at(builder, args[0], FLOATS), align=4)
        return context.get_dummy_value()

    return _NOTHING(_ADDRESS, Vector), generate


@intrinsic
def load_bfloat16(typing, address):
    """Sixteen bfloat16 in memory."""
    return Vector(_ADDRESS), lambda context, builder, signature, args: llvm.widen(
        builder, builder.load(at(builder, args[0], HALVES), align=2)
    )


@intrinsic
def store_bfloat16(typing, address, vector):
    """Write sixteen bfloat16, rounded to nearest."""

    def generate(context, builder, signature, args):
        builder.store(llvm.narrow(builder, args[1]), at(builder, args[0], HALVES), align=2)
        return context.get_dummy_value()

    return _NOTHING(_ADDRESS, Vector), generate


@intrinsic
def load_int(typing, address):
    """A 64-bit number in memory."""
    return types.int64(_ADDRESS), lambda context, builder, signature, args: builder.load(
        at(builder, args[0], ADDRESS), align=8
    )


@intrinsic
def prefetch(typing, address):
    """Ask for a line of memory that will be read."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), INT, INT, INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        flags = [ir.Constant(INT, number) for number in (0, 2, 1)]  # to read, into the second cache, data
        builder.call(function, [at(builder, args[0], ir.IntType(8)), *flags])
        return context.get_dummy_value()

    return _NOTHING(_ADDRESS), generate


@intrinsic
def interleave(typing, out, left, right):
    """Write pairs of sixteen 16-bit numbers of one row and sixteen of another."""

    def generate(context, builder, signature, args):
        low, high = (builder.zext(builder.load(at(builder, place, HALVES), align=2), INTS) for place in args[1:])
        pairs = builder.or_(low, builder.shl(high, all_lanes(16)))
        builder.store(pairs, at(builder, args[0], INTS), align=4)
        return context.get_dummy_value()

    return _NOTHING(_ADDRESS, _ADDRESS, _ADDRESS), generate


@intrinsic
def transpose(typing, out, out_stride, source, stride):
    """Write sixteen rows of sixteen 32-bit numbers as columns. Strides in bytes."""

    def generate(context, builder, signature, args):
        out, out_stride, source, stride = args
        outs, sources = llvm.strided(builder, out, out_stride, LANES), llvm.strided(builder, source, stride, LANES)
        rows = [builder.load(at(builder, place, INTS), align=4) for place in sources]
        for row, place in zip(llvm.transposed(builder, rows), outs, strict=True):
            builder.store(row, at(builder, place, INTS), align=4)
        return context.get_dummy_value()

    return _NOTHING(_ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS), generate


@intrinsic
def splat(typing, value):
    """A number in each lane."""
    return Vector(_NUMBER), lambda context, builder, signature, args: repeated(builder, *args)


@intrinsic
def fma(typing, a, b, c):
    """A * b + c, rounded once."""
    return Vector(Vector, Vector, Vector), lambda context, builder, signature, args: llvm.multiply_add(builder, *args)


@intrinsic
def larger(typing, a, b):
    """The larger one of each lane; b where one of them is NaN."""
    return Vector(Vector, Vector), lambda context, builder, signature, args: llvm.larger(builder, *args)


@intrinsic
def keep_first(typing, vector, count, other):
    """The first `count` lanes, and `other` in the rest."""

    def generate(context, builder, signature, args):
        vector, count, other = args
        places = ir.Constant(INTS, list(range(LANES)))
        inside = builder.icmp_signed("<", places, repeated(builder, builder.trunc(count, INT)))
        return builder.select(inside, vector, repeated(builder, other))

    return Vector(Vector, types.int64, _NUMBER), generate


@intrinsic
def power_of_two(typing, vector):
    """2**n of lanes that hold n + 1.5 * 2**23.

    Such a sum has n in its lowest bits, and n + 127 where a float32 has its exponent, from bit 23 on, is 2**n.
    """

    def generate(context, builder, signature, args):
        bits = builder.shl(builder.bitcast(args[0], INTS), all_lanes(23))
        return builder.bitcast(builder.add(bits, all_lanes(127 << 23)), FLOATS)

    return Vector(Vector), generate


@intrinsic
def total(typing, vector):
    """The sum of the lanes."""
    return _NUMBER(Vector), lambda context, builder, signature, args: llvm.fold(builder, args[0], builder.fadd)


@intrinsic
def largest(typing, vector):
    """The largest lane; with NaN in one of them that, or NaN."""
    return _NUMBER(Vector), lambda context, builder, signature, args: llvm.fold(
        builder, args[0], lambda a, b: llvm.larger(builder, a, b)
    )


@intrinsic
def root(typing, value):
    """Square root of a number."""
    return _NUMBER(_NUMBER), lambda context, builder, signature, args: builder.call(
        builder.module.declare_intrinsic("llvm.sqrt", [FLOAT]), args
    )


def _operator(symbol, emit):
    @intrinsic
    def combined(typing, a, b):
        return Vector(Vector, Vector), lambda context, builder, signature, args: emit(builder)(*args)

    @overload(symbol)
    def typed(a, b):
        if a is Vector and b is Vector:
            return lambda a, b: combined(a, b)
        return None


_operator(operator.add, lambda builder: builder.fadd)
_operator(operator.sub, lambda builder: builder.fsub)
_operator(operator.mul, lambda builder: builder.fmul)
_operator(operator.truediv, lambda builder: builder.fdiv)
