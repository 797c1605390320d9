"""Dot products and weighted sums of parts of rows, in explicit SIMD.

Left to itself, LLVM unrolls for long loops and runs the 8 to 64 channels of a head through the
scalar tail, ten times slower. These two are 256 bits wide on any machine (LLVM splits or pairs
them as the CPU needs) and add in one fixed order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_VECTOR_BYTES = 32
_UNROLL = 4
_FUSE = ("contract", "nsz")


@intrinsic
def dot(typingctx, a, i, b, j, start, size):  # type: ignore[no-untyped-def]
    """``sum(a[i, start : start + size] * b[j, start : start + size])`` of C-contiguous arrays."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        x, y = (_address(context, builder, signature, args, at) for at in (0, 2))
        stop = context.cast(builder, args[5], signature.args[5], types.intp)
        number, vector, width = _types(context, a)
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, None))

        def multiply_add(c, kind, total):  # type: ignore[no-untyped-def]
            left, right = (_load(builder, z, c, kind, number) for z in (x, y))
            product = builder.fmul(left, right, flags=_FUSE)
            builder.store(builder.fadd(builder.load(total), product, flags=_FUSE), total)

        with _steps(builder, ir.Constant(stop.type, 0), stop, width) as (c, end):
            multiply_add(c, vector, total)
        result = cgutils.alloca_once_value(builder, _horizontal_sum(builder, total, width))
        with _steps(builder, end, stop, 1) as (c, _):
            multiply_add(c, number, result)
        return builder.load(result)

    return a.dtype(a, i, b, j, start, size), generate


@intrinsic
def weighted_sum(typingctx, out, i, x, index, first, weight, degree, head, size):  # type: ignore[no-untyped-def]
    """``out[i, c] = sum over t < degree of weight[t, head] * x[index[first + t], c]``.

    ``c`` runs over the ``size`` channels of the head. Sums stay in registers.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        def integer(at):  # type: ignore[no-untyped-def]
            return context.cast(builder, args[at], signature.args[at], types.intp)

        i, first, degree, head, size = (integer(at) for at in (1, 4, 6, 7, 8))
        into, _ = _pointer(context, builder, signature, args, 0)
        values, columns = _pointer(context, builder, signature, args, 2)
        weights, heads = _pointer(context, builder, signature, args, 5)
        indices = context.make_array(index)(context, builder, args[3]).data
        number, vector, width = _types(context, out)
        begin = builder.mul(head, size)
        into = builder.gep(into, [builder.add(builder.mul(i, columns), begin)])
        values = builder.gep(values, [begin])
        weights = builder.gep(weights, [head])
        zero = ir.Constant(size.type, 0)

        def accumulate(c, lanes):  # type: ignore[no-untyped-def]
            """Channels ``c : c + len(lanes) * width`` for vectors, ``c`` alone for a number."""
            kind = lanes[0][1]
            sums = [cgutils.alloca_once(builder, kind) for _ in lanes]
            for total in sums:
                builder.store(ir.Constant(kind, None if kind is vector else 0.0), total)
            with cgutils.for_range(builder, degree, intp=degree.type) as loop:
                at = builder.load(builder.gep(indices, [builder.add(first, loop.index)]))
                at = context.cast(builder, at, index.dtype, types.intp)
                factor = builder.load(builder.gep(weights, [builder.mul(loop.index, heads)]))
                if kind is vector:
                    factor = _splat(builder, factor, vector, width)
                base = builder.gep(values, [builder.add(builder.mul(at, columns), c)])
                for (offset, _), total in zip(lanes, sums, strict=True):
                    item = _load(builder, base, ir.Constant(c.type, offset), kind, number)
                    scaled = builder.fmul(factor, item, flags=_FUSE)
                    builder.store(builder.fadd(builder.load(total), scaled, flags=_FUSE), total)
            for (offset, _), total in zip(lanes, sums, strict=True):
                place = builder.gep(into, [builder.add(c, ir.Constant(c.type, offset))])
                place = builder.bitcast(place, kind.as_pointer())
                builder.store(builder.load(total), place, align=_item_bytes(number))

        start = zero
        for count in (_UNROLL, 1):
            step = count * width
            lanes = [(n * width, vector) for n in range(count)]
            with _steps(builder, start, size, step) as (c, end):
                accumulate(c, lanes)
            start = end
        with _steps(builder, start, size, 1) as (c, _):
            accumulate(c, [(0, number)])
        return context.get_dummy_value()

    signature = types.void(out, i, x, index, first, weight, degree, head, size)
    return signature, generate


def _pointer(context: Any, builder: Any, signature: Any, args: Any, at: int) -> tuple[Any, Any]:
    """First element and number of columns of a two-dimensional array."""
    array = context.make_array(signature.args[at])(context, builder, args[at])
    return array.data, cgutils.unpack_tuple(builder, array.shape, 2)[1]


def _splat(builder: Any, number: Any, vector: Any, width: int) -> Any:
    """A number in every lane."""
    value = ir.Constant(vector, ir.Undefined)
    for lane in range(width):
        value = builder.insert_element(value, number, ir.Constant(ir.IntType(32), lane))
    return value


@contextmanager
def _steps(builder: Any, start: Any, stop: Any, width: int) -> Iterator[tuple[Any, Any]]:
    """A loop from ``start`` to ``stop`` in whole steps; gives its variable and where it ends."""
    step = ir.Constant(stop.type, width)
    whole = builder.mul(builder.udiv(builder.sub(stop, start), step), step)
    end = builder.add(start, whole)
    with cgutils.for_range_slice(builder, start, end, step, stop.type) as (c, _):
        yield c, end


def _address(context: Any, builder: Any, signature: Any, args: Any, at: int) -> Any:
    """Address of ``array[row, start]``, of the array and row at ``args[at : at + 2]``."""
    data, columns = _pointer(context, builder, signature, args, at)
    row = context.cast(builder, args[at + 1], signature.args[at + 1], types.intp)
    first = context.cast(builder, args[4], signature.args[4], types.intp)
    return builder.gep(data, [builder.add(builder.mul(row, columns), first)])


def _types(context: Any, array: Any) -> tuple[Any, Any, int]:
    number = context.get_value_type(array.dtype)
    width = _VECTOR_BYTES // _item_bytes(number)
    return number, ir.VectorType(number, width), width


def _item_bytes(number: Any) -> int:
    return 8 if isinstance(number, ir.DoubleType) else 4


def _load(builder: Any, address: Any, index: Any, kind: Any, number: Any) -> Any:
    """A vector or a number at ``address + index``."""
    place = builder.bitcast(builder.gep(address, [index]), kind.as_pointer())
    return builder.load(place, align=_item_bytes(number))


def _horizontal_sum(builder: Any, total: Any, width: int) -> Any:
    """Sum of the lanes by halving."""
    value = builder.load(total)
    while width > 1:
        width //= 2
        lanes = ir.VectorType(ir.IntType(32), width)
        low = builder.shuffle_vector(value, value, ir.Constant(lanes, list(range(width))))
        high = builder.shuffle_vector(
            value, value, ir.Constant(lanes, list(range(width, 2 * width)))
        )
        value = builder.fadd(low, high, flags=_FUSE)
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))
