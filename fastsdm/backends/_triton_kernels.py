"""The two Triton kernels of the `triton` backend; `_triton.py` launches them, `docs/triton.md` explains them.

Both work on the *signed field*: one number per voxel and class, positive outside the class and negative inside, whose
magnitude is the distance to the nearest voxel of the other phase as far as the axes done so far can tell. Only
sources of the other phase matter to a voxel, so a source of its own phase counts with its magnitude, one of the other
phase with 0. An infinite magnitude means that no such voxel has been seen.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
# A kernel is parsed by Triton and never runs as Python: its parameters are pointers and scalars of the launch.

import triton
import triton.language as tl

#: Rows of a segment whose nearest source is found before the rows between them are looked at.
COARSE_ROWS = tl.constexpr(8)


@triton.jit
def _exponent(power):
    """The k of 2**k, through the float's exponent: no instruction of one vendor, and the interpreter has it."""
    return (power.to(tl.float32).to(tl.int32, bitcast=True) >> 23).to(tl.float32) - 127.0


@triton.jit(do_not_specialize=["classes", "rows", "width"])
def _scan_row_kernel(
    labels_ptr,  # [B, rows, width] integer
    classes_ptr,  # [classes] integer
    field_ptr,  # [B, classes, rows, width] float, out: signed count of voxels along the row
    classes,
    rows,
    width,
    ROWS: tl.constexpr,  # rows per program
):
    """Signed field along the last axis: distance to the nearest voxel of the other phase in the row, in voxels.

    A word is 32 voxels. One bit per voxel marks where a run of equal phase starts (or ends); the last start at or before
    a voxel is the highest bit up to its own, or was carried over from the words before.
    """
    blocks = tl.cdiv(rows, ROWS)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS))[:, None]
    lane = tl.arange(0, 32)[None, :]
    bit = tl.full([1, 32], 1, tl.uint32) << lane.to(tl.uint32)
    row_start = row.to(tl.int64) * width
    labels_ptr += sample * rows * width + row_start
    place = lane.to(tl.float32)
    words = tl.cdiv(width, 32)

    for k in range(classes):
        value = tl.load(classes_ptr + k)
        class_ptr = field_ptr + (sample * classes + k) * rows * width + row_start

        start = tl.full(
            [ROWS, 1], float("-inf"), tl.float32
        )  # last start of a run, from the word's first voxel on
        for word in range(words):
            x = word * 32 + lane
            valid = (row < rows) & (x < width)
            inside = tl.load(labels_ptr + x, mask=valid, other=0).to(value.dtype) == value
            inside_left = tl.load(labels_ptr + x - 1, mask=valid & (x > 0), other=0).to(value.dtype) == value
            starts = valid & (x > 0) & (inside != inside_left)
            bits = tl.sum(tl.where(starts, bit, 0), axis=1, keep_dims=True)
            passed = bits & (bit | (bit - 1))
            # Without its second highest bit a number cannot round up to the next power of two.
            last = tl.where(passed != 0, _exponent(passed & ~(passed >> 1)), start)
            tl.store(class_ptr + x, (place - last + 1.0).to(field_ptr.dtype.element_ty), mask=valid)
            start = tl.where(bits != 0, _exponent(bits & ~(bits >> 1)), start) - 32.0

        tl.debug_barrier()  # below, a thread may read what another one wrote
        end = tl.full(
            [ROWS, 1], float("inf"), tl.float32
        )  # next end of a run, from the following word's first voxel on
        for back in range(words):
            x = (words - 1 - back) * 32 + lane
            valid = (row < rows) & (x < width)
            inside = tl.load(labels_ptr + x, mask=valid, other=0).to(value.dtype) == value
            inside_right = (
                tl.load(labels_ptr + x + 1, mask=valid & (x + 1 < width), other=0).to(value.dtype) == value
            )
            ends = valid & (x + 1 < width) & (inside != inside_right)
            bits = tl.sum(tl.where(ends, bit, 0), axis=1, keep_dims=True)
            ahead = bits & ~(bit - 1)
            end += 32.0
            next_end = tl.where(ahead != 0, _exponent(ahead & (~ahead + 1)), end)
            end = tl.where(bits != 0, _exponent(bits & (~bits + 1)), end)
            to_left = tl.load(class_ptr + x, mask=valid, other=0.0).to(tl.float32)
            distance = tl.minimum(to_left, next_end - place + 1.0)
            signed = tl.where(inside, -distance, distance).to(field_ptr.dtype.element_ty)
            tl.store(class_ptr + x, signed, mask=valid)


@triton.jit
def _cost(field, sign, ratio, COUNTS: tl.constexpr):
    """Squared distance that a source voxel adds for the phase `sign`, in squared voxels of the axis at work."""
    cost = tl.maximum(field.to(tl.float32) * sign, 0.0)
    if COUNTS:  # the scan counts voxels, the search squares them
        cost = cost * cost
    return cost * ratio


@triton.jit
def _nearest(
    source_ptr, stride, length, first, count, origin, rows, sign, ratio,
    COUNTS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Lowest cost of each query row, and the source row it comes from, over `count` source rows from `first` on.

    `first` differs between columns (lanes), `count` does not: a lane whose range is shorter looks at more rows than it
    must, and a range that would leave the column is moved back. `rows` and the result count from `origin`.
    """
    first = tl.minimum(first, length - count)
    source_ptr += first * stride
    source = (first - origin).to(tl.float32)[None, :]
    best = tl.full([ROWS, LANES], float("inf"), tl.float32)
    nearest = tl.full([ROWS, LANES], 0, tl.float32) + source
    for _ in tl.range(0, count, loop_unroll_factor=UNROLL):
        cost = _cost(tl.load(source_ptr), sign, ratio, COUNTS)[None, :]
        steps = rows - source
        candidate = steps * steps + cost
        nearest = tl.where(candidate < best, source, nearest)
        best = tl.minimum(best, candidate)
        source_ptr += stride
        source += 1.0
    return best, nearest.to(tl.int32) + origin


@triton.jit
def _row_of(tile, index, rows):
    """Row `index` of a register tile whose row numbers are `rows`."""
    return tl.sum(tl.where(rows == index, tile, 0), axis=0)


@triton.jit(do_not_specialize=["classes", "length", "stride", "columns"])
def _search_axis_kernel(
    source_ptr,  # [volumes, columns * length] float: signed field of the axes done so far
    table_ptr,  # [B, 4] float32: ratio, limit, area, unused
    target_ptr,  # same shape, float32, out: the field with this axis included
    classes,
    length,
    stride,
    columns,
    COUNTS: tl.constexpr,  # the source is the scan's count of voxels, not yet squared
    FINAL: tl.constexpr,  # the target is the distance, not its square
    STEP: tl.constexpr,  # rows per coarse row
    LANES: tl.constexpr,  # columns per program
):
    """Signed field along one more axis: minimum over the sources q of a column of `cost(q) + (p - q)^2`.

    A program owns a segment of `COARSE_ROWS * STEP` rows of `LANES` columns. The source that is nearest to row p
    moves down the column as p does (the costs form a totally monotone matrix: Aggarwal et al., Algorithmica 2, 1987,
    doi:10.1007/BF01840359), so the nearest sources of two rows enclose those of all rows between them.
    """
    SEGMENT: tl.constexpr = COARSE_ROWS * STEP
    segments = tl.cdiv(length, SEGMENT)
    tiles = tl.cdiv(columns, LANES)
    segment = tl.program_id(0) % segments  # neighbours in launch order share their sources' cache lines
    tile = tl.program_id(0) // segments % tiles
    volume = tl.program_id(0) // segments // tiles

    table_ptr += volume // classes * 4
    ratio = tl.load(table_ptr)  # squared voxels of this axis per unit of the source
    limit = tl.load(table_ptr + 1)  # max_distance in voxels of this axis
    area = tl.load(table_ptr + 2)  # squared size of this axis' voxel

    column = tile * LANES + tl.arange(0, LANES)
    valid = column < columns
    column = tl.minimum(column, columns - 1)  # surplus lanes read the last column and store nothing
    base = (volume.to(tl.int64) * columns + column // stride * stride) * length + column % stride
    stride = stride.to(tl.int64)
    source_ptr += base
    target_ptr += base

    start = segment * SEGMENT
    end = tl.minimum(start + SEGMENT, length) - 1
    step = tl.arange(0, STEP)[:, None]
    most = tl.full([STEP, LANES], 0, tl.float32)
    least = tl.full([STEP, LANES], 0, tl.float32)
    for row in range(start, end + 1, STEP):
        own = tl.load(source_ptr + (row * stride + step * stride), mask=row + step <= end, other=0.0).to(
            tl.float32
        )
        most = tl.maximum(most, own)
        least = tl.minimum(least, own)
    has_outside = tl.max(most) > 0
    has_inside = tl.min(least) < 0

    pair = tl.arange(0, 2)[:, None]
    coarse = tl.arange(0, COARSE_ROWS)[:, None]
    for phase in range(2):
        sign = 1.0 - 2.0 * phase
        if (has_outside & (phase == 0)) | (has_inside & (phase == 1)):
            # 1. The segment's two end rows, among every source that can be nearer than their own.
            end_rows = start + pair * (end - start)
            end_costs = _cost(tl.load(source_ptr + end_rows * stride), sign, ratio, COUNTS)
            reach = tl.sqrt(tl.max(end_costs, axis=1, keep_dims=True))
            reach = (
                tl.where(reach < float("inf"), tl.minimum(reach, limit), reach) + 1.0
            )  # a row for the rounding
            low = tl.maximum(tl.min(end_rows - reach), 0.0).to(tl.int32)
            high = tl.minimum(tl.max(end_rows + reach), length - 1.0).to(tl.int32)
            best_ends, nearest_ends = _nearest(
                source_ptr, stride, length, tl.full([LANES], 0, tl.int32) + low, high - low + 1, start,
                (end_rows - start).to(tl.float32), sign, ratio, COUNTS, 2, LANES, 4,
            )  # fmt: skip
            one = _row_of(nearest_ends, 0, pair)
            other = _row_of(nearest_ends, 1, pair)
            above = tl.minimum(one, other)  # ties may come in either order
            below = tl.maximum(one, other)
            # A whole segment beyond the limit needs only some finite value beyond it.
            beyond = tl.sqrt(_row_of(best_ends, 0, pair)) - SEGMENT > limit
            below = tl.where(beyond, above, below)

            # 2. Every STEP-th row, between the sources of the end rows.
            _coarse_best, nearest_coarse = _nearest(
                source_ptr, stride, length, above, tl.max(below - above) + 1, start,
                (coarse * STEP).to(tl.float32), sign, ratio, COUNTS, COARSE_ROWS, LANES, 2,
            )  # fmt: skip

            # 3. The rows between two coarse rows, between the sources of these.
            for i in range(0, tl.cdiv(end - start + 1, STEP)):
                following = tl.where(i + 1 < COARSE_ROWS, _row_of(nearest_coarse, i + 1, coarse), below)
                row = start + i * STEP
                offset = row * stride + step * stride
                own = tl.load(source_ptr + offset, mask=(row + step <= end) & valid[None, :], other=0.0)
                mine = own.to(tl.float32) * sign > 0
                if tl.max(mine.to(tl.int32)) > 0:
                    low_lane = tl.minimum(above, following)
                    best, _nearest_row = _nearest(
                        source_ptr, stride, length, low_lane, tl.max(tl.maximum(above, following) - low_lane) + 1, row,
                        step.to(tl.float32), sign, ratio, COUNTS, STEP, LANES, 1,
                    )  # fmt: skip
                    if FINAL:
                        best = tl.sqrt_rn(best * area)
                    tl.store(target_ptr + offset, best * sign, mask=mine)
                above = following
