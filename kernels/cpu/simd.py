"""What Numba cannot say: a register tile of fused multiply-adds, raw pointers, the bits of a float.

Everything else in this folder is plain Numba, which its auto-vectoriser turns into vector code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .machine import UNIT

LLVM = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
I64 = ir.IntType(64)
I32 = ir.IntType(32)
INT = {types.float32: I32, types.float64: I64}


@intrinsic
def pointer(typingctx: Any, array: Any, offset: Any) -> Any:
    """Address of element `offset` of a contiguous array's memory."""
    signature = types.CPointer(array.dtype)(array, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return signature, codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c with one rounding."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, a, a), codegen


@intrinsic
def choose(typingctx: Any, condition: Any, a: Any, b: Any) -> Any:
    """a if condition else b, without a branch, so that a loop stays a vector loop."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(types.boolean, a, a), codegen


@intrinsic
def copy_sign(typingctx: Any, magnitude: Any, sign: Any) -> Any:
    """|magnitude| with the sign of `sign`, of -0 too."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        real = LLVM[signature.return_type]
        name = f"llvm.copysign.f{signature.return_type.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(real, [real, real]), name)
        return builder.call(function, args)

    return magnitude(magnitude, magnitude), codegen


@intrinsic
def low_bits_to_exponent(typingctx: Any, x: Any) -> Any:
    """The float whose sign and exponent are the lowest bits of x, and whose fraction is zero."""
    places = {32: 23, 64: 52}[x.bitwidth]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = INT[signature.return_type]
        bits = builder.shl(builder.bitcast(args[0], integer), ir.Constant(integer, places))
        return builder.bitcast(bits, LLVM[signature.return_type])

    return x(x), codegen


def polynomial(coefficients: tuple[float, ...]) -> Any:
    """Make (x, x²) -> c0 + c1 x + c2 x² + ...: pairs c0 + c1 x and Horner's rule in x², a chain half as long."""

    @intrinsic
    def value(typingctx: Any, x: Any, square: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            c = [ir.Constant(LLVM[signature.return_type], number) for number in coefficients]
            pairs = [builder.fma(c[k + 1], args[0], c[k]) if k + 1 < len(c) else c[k] for k in range(0, len(c), 2)]
            total = pairs.pop()
            while pairs:
                total = builder.fma(total, args[1], pairs.pop())
            return total

        return x(x, x), codegen

    return value


@intrinsic(prefer_literal=True)
def copy(typingctx: Any, count: Any, to: Any, source: Any) -> Any:
    """Copy `count` numbers, literal, from one pointer to another, as one vector."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, to, source = args
        vector = ir.VectorType(LLVM[signature.args[1].dtype], count.literal_value).as_pointer()
        value = builder.load(builder.bitcast(source, vector))
        store = builder.store(value, builder.bitcast(to, vector))
        value.align = store.align = signature.args[1].dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(count, to, source), codegen


@intrinsic
def transpose(typingctx: Any, to: Any, to_row: Any, source: Any, source_row: Any) -> Any:
    """to[j, i] = source[i, j] for a square of as many numbers as a register has lanes, in registers.

    Swap the two off-diagonal halves of the square, then those of its four quarters, and so on down to single numbers.
    """
    real = to.dtype
    lanes = UNIT.lanes(real.bitwidth // 8)
    vector = ir.VectorType(LLVM[real], lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, to_row, source, source_row = args

        def address(base: Any, row: Any, i: int) -> Any:
            return builder.bitcast(builder.gep(base, [builder.mul(ir.Constant(I64, i), row)]), vector.as_pointer())

        def mixed(a: Any, b: Any, places: list[int]) -> Any:
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, lanes), places))

        rows = [builder.load(address(source, source_row, i)) for i in range(lanes)]
        for row in rows:
            row.align = real.bitwidth // 8
        half = lanes // 2
        while half:
            for i in range(lanes):
                if not i & half:
                    a, b = rows[i], rows[i + half]
                    rows[i] = mixed(a, b, [lanes + j - half if j & half else j for j in range(lanes)])
                    rows[i + half] = mixed(a, b, [lanes + j if j & half else j + half for j in range(lanes)])
            half //= 2
        for i, row in enumerate(rows):
            builder.store(row, address(to, to_row, i)).align = real.bitwidth // 8
        return context.get_dummy_value()

    n = types.int64
    return types.void(to, n, source, n), codegen


@intrinsic(prefer_literal=True)
def register_tile(
    typingctx: Any, rows: Any, vectors: Any, c: Any, c_row: Any, a: Any, a_row: Any, a_column: Any, b: Any, count: Any
) -> Any:
    """c[r, :] += Σ_k a[r, k] · b[k, :] for `rows` rows and `vectors` vector registers of columns; both literal.

    The sum is formed in registers from zero, k ascending, and added to c at the end: the result of an element does not
    depend on the size of the tile that it was computed in.

    c, a, b are pointers; c_row, a_row, a_column strides; b is packed as [k, columns]; count is the number of k.
    """
    real = c.dtype
    item = real.bitwidth // 8
    lanes = UNIT.lanes(item)
    height, width = rows.literal_value, vectors.literal_value
    vector = ir.VectorType(LLVM[real], lanes)
    splat = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    tile = [(r, v) for r in range(height) for v in range(width)]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, c, c_row, a, a_row, a_column, b, count = args
        builder.function.attributes.add("noinline")

        def constant(n: int) -> Any:
            return ir.Constant(I64, n)

        def address(base: Any, offset: Any) -> Any:
            return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

        def load(base: Any, offset: Any) -> Any:
            value = builder.load(address(base, offset))
            value.align = item
            return value

        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f{8 * item}"
        )
        byte = ir.IntType(8).as_pointer()
        flag = ir.IntType(32)
        prefetch = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0i8"
        )
        for r, v in tile:  # c is needed at the end: on its way now
            place = builder.gep(c, [builder.add(builder.mul(constant(r), c_row), constant(v * lanes))])
            builder.call(prefetch, [builder.bitcast(place, byte), *(ir.Constant(flag, n) for n in (1, 3, 1))])
        a_offset = [builder.mul(constant(r), a_row) for r in range(height)]
        before, loop, after = builder.block, builder.append_basic_block("k"), builder.append_basic_block("k.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(I64)
        k.add_incoming(constant(0), before)
        sums = {}
        for place in tile:
            sums[place] = builder.phi(vector)
            sums[place].add_incoming(ir.Constant(vector, None), before)
        b_k = builder.mul(k, constant(width * lanes))
        columns = [load(b, builder.add(b_k, constant(v * lanes))) for v in range(width)]
        a_k = builder.mul(k, a_column)
        new = {}
        for r in range(height):
            number = builder.load(builder.gep(a, [builder.add(a_k, a_offset[r])]))
            first = builder.insert_element(undefined, number, ir.Constant(I32, 0))
            row = builder.shuffle_vector(first, undefined, splat)
            for v in range(width):
                new[r, v] = builder.call(fused, [row, columns[v], sums[r, v]])
        following = builder.add(k, constant(1))
        k.add_incoming(following, loop)
        for place in tile:
            sums[place].add_incoming(new[place], loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        for r, v in tile:
            offset = builder.add(builder.mul(constant(r), c_row), constant(v * lanes))
            store = builder.store(builder.fadd(load(c, offset), new[r, v]), address(c, offset))
            store.align = item
        return context.get_dummy_value()

    n = types.int64
    return types.void(rows, vectors, c, n, a, n, n, b, n), codegen
