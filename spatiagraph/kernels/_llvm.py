"""LLVM code of the SIMD intrinsics: vectors of 256 bits, loops, sums over lanes, exp."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

FUSE = ("contract", "nsz")  # multiply and add in one instruction, but never in another order

_VECTOR_BYTES = 32


class Code:
    """Writer of LLVM code for the arguments of one intrinsic; the first one is a floating array."""

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
        """Address of element ``start`` of an array, both given by position in the arguments."""
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
        return self.builder.fadd(a, b, flags=FUSE)

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", b, a), b, a)

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        """``total += a * b``, fused."""
        product = self.builder.fmul(a, b, flags=FUSE)
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
        """Reduction of all lanes to one number, by halving."""
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
            pairs = []
            half = len(vectors) // 2
            for a, b in zip(vectors[:half], vectors[half:], strict=True):
                # lanes come in groups of `width // size`: their first and second halves are added,
                # those of `a` before those of `b`
                group = width // size // 2
                low = [lane for lane in range(width) if lane // group % 2 == 0]
                high = [lane for lane in range(width) if lane // group % 2 == 1]
                order = _interleave(low, [width + lane for lane in low], group)
                other = _interleave(high, [width + lane for lane in high], group)
                pairs.append(self.add(self.shuffle(a, b, order), self.shuffle(a, b, other)))
            vectors = pairs
            size *= 2
        return vectors[0]

    def lanes_below(self, t: Any, count: Any) -> Any:
        """Mask of the lanes from ``t`` on that are below ``count``."""
        integers = ir.VectorType(self.intp, self.width)
        rest = ir.Constant(integers, ir.Undefined)
        left = self.builder.sub(count, t)
        for lane in range(self.width):
            rest = self.builder.insert_element(rest, left, ir.Constant(ir.IntType(32), lane))
        return self.builder.icmp_signed("<", ir.Constant(integers, list(range(self.width))), rest)

    def exp(self, x: Any) -> Any:
        """``exp(x)`` to about one unit in the last digit; 0 where it would be subnormal.

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
            builder.fmul(inside, self.splat_of(math.log2(math.e)), flags=FUSE), magic, flags=FUSE
        )
        n = builder.fsub(shifted, magic)
        r = inside
        for part in (log2_high, log2_low):
            r = builder.fsub(r, builder.fmul(n, self.splat_of(part), flags=FUSE), flags=FUSE)
        result = self.splat_of(1.0 / math.factorial(degree))
        for power in reversed(range(degree)):
            term = self.splat_of(1.0 / math.factorial(power))
            result = self.add(builder.fmul(result, r, flags=FUSE), term)
        whole = builder.add(builder.bitcast(shifted, bits), of_bits(exponent))
        whole = builder.bitcast(builder.shl(whole, of_bits(mantissa)), self.vector)
        result = builder.fmul(result, whole)
        result = builder.select(is_small, self.splat_of(0.0), result)
        return builder.select(is_nan, x, result)


def _interleave(a: list[int], b: list[int], group: int) -> list[int]:
    """Groups of lanes, in turn of ``a`` and of ``b``."""
    chunks = range(0, len(a), group)
    return [lane for at in chunks for lane in (*a[at : at + group], *b[at : at + group])]
