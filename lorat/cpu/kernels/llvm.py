"""Instructions for vectors of sixteen, as a compiler writes them: the `builder` is llvmlite's."""

from llvmlite import ir
from numba import config
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features

from lorat.layout import LANES

FLOAT, INT, ADDRESS = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FLOATS, INTS, HALVES = (ir.VectorType(kind, LANES) for kind in (FLOAT, INT, ir.IntType(16)))


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has not."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash(_BFloat)


_BFLOATS, _PAIRS = ir.VectorType(_BFloat(), LANES), ir.VectorType(_BFloat(), 2 * LANES)


def at(builder, address, kind):
    """A pointer to a type at an address."""
    return builder.inttoptr(address, kind.as_pointer())


def all_lanes(number):
    """A whole number in each lane."""
    return ir.Constant(INTS, [number] * LANES)


def repeated(builder, value):
    """A vector that has a value in each lane."""
    one = ir.VectorType(value.type, LANES)
    first = builder.insert_element(ir.Constant(one, ir.Undefined), value, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, ir.Constant(one, ir.Undefined), all_lanes(0))


def multiply_add(builder, a, b, c):
    """A * b + c, rounded once."""
    return builder.call(_function(builder, "llvm.fma.v16f32", FLOATS, FLOATS, FLOATS), [a, b, c])


def larger(builder, a, b):
    """The larger one of each lane (or number); b where one of them is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def dot(builder, total, left, right):
    """total + left right by lanes: each lane of left and right (INTS) has two bfloat16, total (FLOATS) is float32."""
    if multiplies_bfloat16():
        function = _function(builder, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, _PAIRS, _PAIRS)
        return builder.call(function, [total, builder.bitcast(left, _PAIRS), builder.bitcast(right, _PAIRS)])
    for half in (lambda pair: builder.shl(pair, all_lanes(16)), lambda pair: builder.and_(pair, all_lanes(0xFFFF0000))):
        a, b = (builder.bitcast(half(pair), FLOATS) for pair in (left, right))
        total = multiply_add(builder, a, b, total)
    return total


def widen(builder, halves):
    """float32 of bfloat16 (HALVES)."""
    return builder.bitcast(builder.shl(builder.zext(halves, INTS), all_lanes(16)), FLOATS)


def narrow(builder, vector):
    """The bfloat16 (HALVES) nearest to float32, of two the even one."""
    if multiplies_bfloat16():
        return builder.bitcast(builder.fptrunc(vector, _BFLOATS), HALVES)
    bits = builder.bitcast(vector, INTS)
    odd = builder.and_(builder.lshr(bits, all_lanes(16)), all_lanes(1))
    rounded = builder.add(bits, builder.add(odd, all_lanes(0x7FFF)))
    quiet = builder.or_(bits, all_lanes(0x400000))
    kept = builder.select(builder.fcmp_unordered("uno", vector, vector), quiet, rounded)
    return builder.trunc(builder.lshr(kept, all_lanes(16)), HALVES)


def fold(builder, vector, combine):
    """One number of sixteen, in a fixed order."""
    lanes = LANES
    while lanes > 1:
        lanes //= 2
        order = ir.Constant(INTS, [(lane + lanes) % LANES for lane in range(LANES)])
        vector = combine(vector, builder.shuffle_vector(vector, vector, order))
    return builder.extract_element(vector, ir.Constant(INT, 0))


def transposed(builder, rows):
    """Sixteen rows (INTS) as sixteen columns: squares of 8, 4, 2 and 1 change their quarters off the diagonal."""
    rows, size = list(rows), LANES
    while size > 1:
        size //= 2
        upper = [lane if not lane & size else lane - size + LANES for lane in range(LANES)]
        lower = [lane + size if not lane & size else lane + LANES for lane in range(LANES)]
        for row in (row for row in range(LANES) if not row & size):
            two = rows[row], rows[row + size]
            rows[row] = builder.shuffle_vector(*two, ir.Constant(INTS, upper))
            rows[row + size] = builder.shuffle_vector(*two, ir.Constant(INTS, lower))
    return rows


def strided(builder, start, stride, count):
    """Addresses, `stride` bytes apart."""
    found = [start]
    for _ in range(1, count):
        found.append(builder.add(found[-1], stride))
    return found


def multiplies_bfloat16() -> bool:
    """Whether Numba compiles, and for this processor (its settings may ask for another), which does so by AVX-512."""
    if config.DISABLE_JIT or config.CPU_NAME or config.CPU_FEATURES is not None:
        return False
    return "+avx512bf16" in get_host_cpu_features()


def _function(builder, name, *kinds):
    """A function that LLVM knows, of vectors, whose value is of the first one's kind."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kinds[0], kinds), name)
