"""The inner loops of neighbour attention in explicit SIMD, as numba intrinsics.

Left to itself, LLVM unrolls for long loops and runs the 8 to 64 channels of a head, and the dozen
neighbours of a cell, through the scalar tail, ten times slower. These are 256 bits wide on any
machine (LLVM splits or pairs them as the CPU needs) and add in one fixed order. Arrays are flat;
scratch arrays of one number per edge are padded to whole multiples of ``PAD``.
"""

import math
from collections.abc import Callable
from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from spatiagraph.kernels._llvm import FUSE, Code

PAD = 8  # edges: one vector of float32, two of float64

_UNROLL = (8, 4, 1)  # vectors of channels that one pass over the edges keeps in registers


def _intrinsic(function: Callable[..., Any]) -> Any:
    """As numba's, which hides from the caller that it passes the first argument."""
    return intrinsic(function)


@_intrinsic
def dot(typingctx, x, x_at, y, y_at, size):
    """``sum(x[x_at : x_at + size] * y[y_at : y_at + size])``."""

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
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
def dots(typingctx, out, x, x_at, y, y_stride, y_at, index, first, count, size):
    """``out[t] = x[x_at:] · y[index[first + t] * y_stride + y_at:]`` over ``size`` channels.

    ``t`` runs over ``count`` rounded up to whole vectors: as many rows as a vector has lanes are
    multiplied side by side, and their sums end in the lanes of one vector. Lanes past the last edge
    repeat it.
    """

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
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
def scale_and_peak(typingctx, s, count, scale):
    """Scale ``s[:count]`` in place, put minus infinity behind it, and return the largest.

    The largest of scores with a NaN is infinite, so that the softmax of the row becomes NaN.
    """

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
        at, count = code.address(0), code.integer(1)
        scale, least = code.splat(code.scalar(2)), code.splat_of(-math.inf)
        peak = code.variable(code.vector, least)
        with code.steps(code.zero, code.round_up(count), code.width) as (t, _):
            scaled = builder.fmul(code.load(at, t), scale, flags=FUSE)
            scaled = builder.select(code.lanes_below(t, count), scaled, least)
            code.store(scaled, at, t)
            is_nan = builder.fcmp_unordered("uno", scaled, scaled)
            seen = builder.select(is_nan, code.splat_of(math.inf), scaled)
            builder.store(code.larger(builder.load(peak), seen), peak)
        return code.reduce(builder.load(peak), code.larger)

    return s.dtype(s, count, scale), generate


@_intrinsic
def exp_and_sum(typingctx, s, count, peak):
    """``s[t] = exp(s[t] - peak)`` in place over whole vectors, and return their sum."""

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
        at, peak = code.address(0), code.splat(code.scalar(2))
        total = code.variable(code.vector)
        with code.steps(code.zero, code.round_up(code.integer(1)), code.width) as (t, _):
            p = code.exp(builder.fsub(code.load(at, t), peak))
            code.store(p, at, t)
            builder.store(code.add(builder.load(total), p), total)
        return code.reduce(builder.load(total), code.add)

    return s.dtype(s, count, peak), generate


@_intrinsic
def edge_gradients(typingctx, s, grad, lse, delta, count, scale):
    """Scores become weights, ``s = exp(s · scale - lse)``, and ``grad = s · (grad - delta)``."""

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
        s, grad, lse, delta = (code.address(at) for at in range(4))
        scale = code.splat(code.scalar(5))
        with code.steps(code.zero, code.round_up(code.integer(4)), code.width) as (t, _):
            scaled = builder.fmul(code.load(s, t), scale, flags=FUSE)
            p = code.exp(builder.fsub(scaled, code.load(lse, t), flags=FUSE))
            code.store(p, s, t)
            rest = builder.fsub(code.load(grad, t), code.load(delta, t), flags=FUSE)
            code.store(builder.fmul(p, rest, flags=FUSE), grad, t)
        return context.get_dummy_value()

    return types.void(s, grad, lse, delta, count, scale), generate


@_intrinsic
def weighted_sum(
    typingctx, out, out_at, x, x_stride, x_at, index, first, weight, count, size, factor
):
    """``out[out_at:] = factor · sum of weight[t] · x[index[first + t] * x_stride + x_at:]``.

    Over ``size`` channels and ``count`` edges. Sums stay in registers.
    """

    def generate(context, builder, signature, args):
        code = Code(context, builder, signature, args)
        into, values, weights = code.address(0, 1), code.address(2, 4), code.address(7)
        stride, first, count, size = (code.integer(at) for at in (3, 6, 8, 9))

        def accumulate(c, vectors, kind):
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
                code.store(builder.fmul(builder.load(total), factor, flags=FUSE), into, place)

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
