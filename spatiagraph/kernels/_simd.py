"""The inner loops of neighbour attention in explicit SIMD, as numba intrinsics.

Left to itself, LLVM unrolls for long loops and runs the 8 to 64 channels of a head, and the dozen
neighbours of a cell, through the scalar tail, ten times slower. These are 256 bits wide on any
machine (LLVM splits or pairs them as the CPU needs) and add in one fixed order. Arrays are flat;
scratch arrays of one number per edge are padded to whole multiples of ``PAD``.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

PAD = 8  # edges: one vector of float32, two of float64

_VECTOR_BYTES = 32
_UNROLL = (8, 4, 1)  # vectors of channels that one pass over the edges keeps in registers
_FUSE = ("contract", "nsz")


def _intrinsic(function: Callable[..., Any]) -> Any:
    """As numba's, which hides from the caller that it passes the first argument."""
    return intrinsic(function)


@_intrinsic
def dot(typingctx, x, x_at, y, y_at, size):  # type: ignore[no-untyped-def]
    """``sum(x[x_at : x_at + size] * y[y_at : y_at + size])``."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        code = _Code(context, builder, signature, args)
        left, right, size = code.address(0, 1), code.address(2, 3), code.integer(4)
        total = code.variable(code.vector)
        with code.steps(code.zero, size, code.width) as (c, end):
            code.add_product(total, code.load(left, c), code.load(right, c))
        result = code.variable(code.number, code.reduce(builder.load(total), code.add))
        with code.steps(end, size, 1) as (c, _):
            code.add_product(
                result, code.load(left, c, code.number), code.load(right, c, code.number)
            )
        return builder.load(result)

    return x.dtype(x, x_at, y, y_at, size), generate


@_intrinsic
def dots(typingctx, out, x, x_at, y, y_stride, y_at, index, first, count, size):  # type: ignore[no-untyped-def]
    """``out[t] = x[x_at:] · y[index[first + t] * y_stride + y_at:]`` over ``size`` channels.

    ``t`` runs over ``count`` rounded up to whole vectors: as many rows as a vector has lanes are
    multiplied side by side, and their sums end in the lanes of one vector. Lanes past the last edge
    repeat it.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        code = _Code(context, builder, signature, args)
        left, right, into = code.address(1, 2), code.address(3, 5), code.address(0)
        stride, count, size = (code.integer(at) for at in (4, 8, 9))
        last = builder.sub(count, code.constant(1))
        end = code.round_up(count)
        with cgutils.for_range_slice(builder, code.zero, end, code.constant(code.width)) as (t, _):
            rows = []
            for lane in range(code.width):
                edge = builder.add(t, code.constant(lane))
                edge = builder.select(builder.icmp_signed("<", edge, last), edge, last)
                row = code.index(6, builder.add(code.integer(7), edge))
                rows.append(builder.gep(right, [builder.mul(row, stride)]))
            sums = [code.variable(code.vector) for _ in rows]
            with code.steps(code.zero, size, code.width) as (c, whole):
                part = code.load(left, c)
                for row, total in zip(rows, sums, strict=True):
                    code.add_product(total, part, code.load(row, c))
            result = code.variable(code.vector, code.sum_lanes([builder.load(x) for x in sums]))
            with code.steps(whole, size, 1) as (c, _):
                part = code.splat(code.load(left, c, code.number))
                code.add_product(
                    result, part, code.pack([code.load(row, c, code.number) for row in rows])
                )
            code.store(builder.load(result), into, t)
        return context.get_dummy_value()

    signature = types.void(out, x, x_at, y, y_stride, y_at, index, first, count, size)
    return signature, generate


@_intrinsic
def scale_and_peak(typingctx, s, count, scale):  # type: ignore[no-untyped-def]
    """Scale ``s[:count]`` in place, put minus infinity behind it, and return the largest.

    The largest of scores with a NaN is infinite, so that the softmax of the row becomes NaN.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        code = _Code(context, builder, signature, args)
        at, count = code.address(0), code.integer(1)
        scale, least = code.splat(code.scalar(2)), code.splat_of(-math.inf)
        peak = code.variable(code.vector, least)
        with code.steps(code.zero, code.round_up(count), code.width) as (t, _):
            scaled = builder.fmul(code.load(at, t), scale, flags=_FUSE)
            scaled = builder.select(code.lanes_below(t, count), scaled, least)
            code.store(scaled, at, t)
            is_nan = builder.fcmp_unordered("uno", scaled, scaled)
            seen = builder.select(is_nan, code.splat_of(math.inf), scaled)
            builder.store(code.larger(builder.load(peak), seen), peak)
        return code.reduce(builder.load(peak), code.larger)

    return s.dtype(s, count, scale), generate


@_intrinsic
def exp_and_sum(typingctx, s, count, peak):  # type: ignore[no-untyped-def]
    """``s[t] = exp(s[t] - peak)`` in place over whole vectors, and return their sum."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        code = _Code(context, builder, signature, args)
        at, peak = code.address(0), code.splat(code.scalar(2))
        total = code.variable(code.vector)
        with code.steps(code.zero, code.round_up(code.integer(1)), code.width) as (t, _):
            p = code.exp(builder.fsub(code.load(at, t), peak))
            code.store(p, at, t)
            builder.store(code.add(builder.load(total), p), total)
        return code.reduce(builder.load(total), code.add)

    return s.dtype(s, count, peak), generate


@_intrinsic
def edge_gradients(typingctx, s, grad, lse, delta, count, scale):  # type: ignore[no-untyped-def]
    """Scores become weights, ``s = exp(s · scale - lse)``, and ``grad = s · (grad - delta)``."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        code = _Code(context, builder, signature, args)
        s, grad, lse, delta = (code.address(at) for at in range(4))
        scale = code.splat(code.scalar(5))
        with code.steps(code.zero, code.round_up(code.integer(4)), code.width) as (t, _):
            scaled = builder.fmul(code.load(s, t), scale, flags=_FUSE)
            p = code.exp(builder.fsub(scaled, code.load(lse, t), flags=_FUSE))
            code.store(p, s, t)
            rest = builder.fsub(code.load(grad, t), code.load(delta, t), flags=_FUSE)
            code.store(builder.fmul(p, rest, flags=_FUSE), grad, t)
        return context.get_dummy_value()

    return types.void(s, grad, lse, delta, count, scale), generate


@_intrinsic
def weighted_sum(  # type: ignore[no-untyped-def]
    typingctx, out, out_at, x, x_stride, x_at, index, first, weight, count, size, factor
):
    """``out[out_at:] = factor · sum of weight[t] · x[index[first + t] * x_stride + x_at:]``.

    Over ``size`` channels and ``count`` edges. Sums stay in registers.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        code = _Code(context, builder, signature, args)
        into, values, weights = code.address(0, 1), code.address(2, 4), code.address(7)
        stride, first, count, size = (code.integer(at) for at in (3, 6, 8, 9))

        def accumulate(c, vectors, kind):  # type: ignore[no-untyped-def]
            places = [builder.add(c, code.constant(n * code.width)) for n in range(vectors)]
            sums = [code.variable(kind) for _ in places]
            with cgutils.for_range(builder, count, intp=count.type) as loop:
                row = code.index(5, builder.add(first, loop.index))
                base = builder.gep(values, [builder.mul(row, stride)])
                factor = code.splat(code.load(weights, loop.index, code.number), kind)
                for place, total in zip(places, sums, strict=True):
                    code.add_product(total, factor, code.load(base, place, kind))
            factor = code.splat(code.scalar(10), kind)
            for place, total in zip(places, sums, strict=True):
                code.store(builder.fmul(builder.load(total), factor, flags=_FUSE), into, place)

        start = code.zero
        for vectors in _UNROLL:
            with code.steps(start, size, vectors * code.width) as (c, end):
                accumulate(c, vectors, code.vector)
            start = end
        with code.steps(start, size, 1) as (c, _):
            accumulate(c, 1, code.number)
        return context.get_dummy_value()

    signature = types.void(
        out, out_at, x, x_stride, x_at, index, first, weight, count, size, factor
    )
    return signature, generate


class _Code:
    """Writes LLVM code for the arguments of one intrinsic; the first one is a floating array."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any):
        self.context = context
        self.builder = builder
        self.types = signature.args
        self.args = args
        self.number = context.get_value_type(signature.args[0].dtype)
        self.bytes = 8 if isinstance(self.number, ir.DoubleType) else 4
        self.width = _VECTOR_BYTES // self.bytes
        self.vector = ir.VectorType(self.number, self.width)
        self.intp = context.get_value_type(types.intp)
        self.zero = self.constant(0)

    def constant(self, value: int) -> Any:
        return ir.Constant(self.intp, value)

    def integer(self, at: int) -> Any:
        """Argument ``at`` as an index."""
        return self.context.cast(self.builder, self.args[at], self.types[at], types.intp)

    def scalar(self, at: int) -> Any:
        """Argument ``at`` in the number type of the arrays."""
        return self.context.cast(self.builder, self.args[at], self.types[at], self.types[0].dtype)

    def address(self, array: int, start: int | None = None) -> Any:
        """Where element ``start`` of an array lies, both given by place in the arguments."""
        data = self.context.make_array(self.types[array])(
            self.context, self.builder, self.args[array]
        ).data
        return data if start is None else self.builder.gep(data, [self.integer(start)])

    def index(self, array: int, place: Any) -> Any:
        """Element of an integer array, as an index."""
        value = self.builder.load(self.builder.gep(self.address(array), [place]))
        return self.context.cast(self.builder, value, self.types[array].dtype, types.intp)

    def variable(self, kind: Any, value: Any = None) -> Any:
        """A register to add to; zero at first."""
        place = cgutils.alloca_once(self.builder, kind)
        if value is None:
            value = ir.Constant(kind, 0.0 if kind is self.number else [0.0] * self.width)
        self.builder.store(value, place)
        return place

    @contextmanager
    def steps(self, start: Any, stop: Any, width: int) -> Iterator[tuple[Any, Any]]:
        """A loop from ``start`` to ``stop`` in whole steps; gives its variable and where it ends.

        ``width`` is a power of two.
        """
        whole = self.builder.and_(self.builder.sub(stop, start), self.constant(-width))
        end = self.builder.add(start, whole)
        with cgutils.for_range_slice(self.builder, start, end, self.constant(width), self.intp) as (
            c,
            _,
        ):
            yield c, end

    def round_up(self, count: Any) -> Any:
        """The next whole number of vectors."""
        more = self.builder.add(count, self.constant(self.width - 1))
        return self.builder.and_(more, self.constant(-self.width))

    def load(self, address: Any, place: Any, kind: Any = None) -> Any:
        """A vector, or a number if ``kind`` says so."""
        kind = kind or self.vector
        at = self.builder.bitcast(self.builder.gep(address, [place]), kind.as_pointer())
        return self.builder.load(at, align=self.bytes)

    def store(self, value: Any, address: Any, place: Any) -> None:
        at = self.builder.bitcast(self.builder.gep(address, [place]), value.type.as_pointer())
        self.builder.store(value, at, align=self.bytes)

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b, flags=_FUSE)

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", b, a), b, a)

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        """``total += a * b``, fused."""
        product = self.builder.fmul(a, b, flags=_FUSE)
        self.builder.store(self.add(self.builder.load(total), product), total)

    def splat(self, number: Any, kind: Any = None) -> Any:
        """A number in every lane; the number itself if ``kind`` says so."""
        return number if kind is self.number else self.pack([number] * self.width)

    def splat_of(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * self.width)

    def pack(self, numbers: list[Any]) -> Any:
        """One number per lane."""
        value = ir.Constant(self.vector, ir.Undefined)
        for lane, number in enumerate(numbers):
            value = self.builder.insert_element(value, number, ir.Constant(ir.IntType(32), lane))
        return value

    def shuffle(self, a: Any, b: Any, lanes: list[int]) -> Any:
        kind = ir.VectorType(ir.IntType(32), len(lanes))
        return self.builder.shuffle_vector(a, b, ir.Constant(kind, lanes))

    def reduce(self, value: Any, join: Callable[[Any, Any], Any]) -> Any:
        """All lanes joined to one number, by halving."""
        width = self.width
        while width > 1:
            width //= 2
            low = self.shuffle(value, value, list(range(width)))
            high = self.shuffle(value, value, list(range(width, 2 * width)))
            value = join(low, high)
        return self.builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    def sum_lanes(self, vectors: list[Any]) -> Any:
        """Lane ``n`` is the sum over the lanes of vector ``n``: halve and interleave in turn."""
        width = len(vectors)
        size = 1  # lanes that already belong to different vectors
        while len(vectors) > 1:
            joined = []
            half = len(vectors) // 2
            for a, b in zip(vectors[:half], vectors[half:], strict=True):
                # lanes come in groups of `width // size`: their first and second halves are added,
                # those of `a` before those of `b`
                group = width // size // 2
                low = [lane for lane in range(width) if lane // group % 2 == 0]
                high = [lane for lane in range(width) if lane // group % 2 == 1]
                order = _interleave(low, [width + lane for lane in low], group)
                other = _interleave(high, [width + lane for lane in high], group)
                joined.append(self.add(self.shuffle(a, b, order), self.shuffle(a, b, other)))
            vectors = joined
            size *= 2
        return vectors[0]

    def lanes_below(self, t: Any, count: Any) -> Any:
        """Which of the lanes that start at ``t`` are below ``count``."""
        integers = ir.VectorType(self.intp, self.width)
        rest = ir.Constant(integers, ir.Undefined)
        left = self.builder.sub(count, t)
        for lane in range(self.width):
            rest = self.builder.insert_element(rest, left, ir.Constant(ir.IntType(32), lane))
        return self.builder.icmp_signed("<", ir.Constant(integers, list(range(self.width))), rest)

    def exp(self, x: Any) -> Any:
        """``exp(x)`` to about one unit in the last place; 0 where it would be subnormal.

        ``x = n log 2 + r``, a Taylor polynomial in ``r`` and ``2^n`` by its bits (as in Cephes).
        """
        builder = self.builder
        if self.bytes == 4:
            low, high, mantissa, exponent, degree = -87.0, 88.0, 23, 127, 7
            log2_high, log2_low = 0.693359375, -2.12194440054690583e-4
        else:
            low, high, mantissa, exponent, degree = -708.0, 709.0, 52, 1023, 13
            log2_high, log2_low = 6.93145751953125e-1, 1.42860682030941723212e-6
        bits = ir.VectorType(ir.IntType(8 * self.bytes), self.width)

        def of_bits(value: int) -> Any:
            return ir.Constant(bits, [value] * self.width)

        is_small = builder.fcmp_ordered("<", x, self.splat_of(low))
        is_nan = builder.fcmp_unordered("uno", x, x)
        inside = builder.select(
            builder.fcmp_ordered(">", x, self.splat_of(low)), x, self.splat_of(low)
        )
        top = builder.fcmp_ordered("<", inside, self.splat_of(high))
        inside = builder.select(top, inside, self.splat_of(high))
        # adding 1.5 · 2^mantissa rounds to whole numbers, which then are the lowest bits
        magic = self.splat_of(1.5 * 2.0**mantissa)
        shifted = builder.fadd(
            builder.fmul(inside, self.splat_of(math.log2(math.e)), flags=_FUSE), magic, flags=_FUSE
        )
        n = builder.fsub(shifted, magic)
        r = inside
        for part in (log2_high, log2_low):
            r = builder.fsub(r, builder.fmul(n, self.splat_of(part), flags=_FUSE), flags=_FUSE)
        result = self.splat_of(1.0 / math.factorial(degree))
        for power in reversed(range(degree)):
            term = self.splat_of(1.0 / math.factorial(power))
            result = self.add(builder.fmul(result, r, flags=_FUSE), term)
        whole = builder.add(builder.bitcast(shifted, bits), of_bits(exponent))
        whole = builder.bitcast(builder.shl(whole, of_bits(mantissa)), self.vector)
        result = builder.fmul(result, whole)
        result = builder.select(is_small, self.splat_of(0.0), result)
        return builder.select(is_nan, x, result)


def _interleave(a: list[int], b: list[int], group: int) -> list[int]:
    """Groups of lanes, in turn of ``a`` and of ``b``."""
    chunks = range(0, len(a), group)
    return [lane for at in chunks for lane in (*a[at : at + group], *b[at : at + group])]
