"""Device functions of the search along an axis, used by the kernels in `triton_kernels.py`."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Triton parses these functions, Python never runs them.

import triton
import triton.language as tl

#: Rows of a segment whose nearest source is found first; it bounds the search of the rows between them.
COARSE_ROWS = tl.constexpr(8)
#: A place in a plane is its row, then its column in this many bits.
PLACE_BITS = tl.constexpr(16)
#: A shifted distance this small relative to the shift is rounding, and becomes 0.
RESIDUE = tl.constexpr(2**-21)
#: Numbers per sample and pass in the table: ratio, limit, area, shift inside, shift outside, missing.
TABLE_ROW = tl.constexpr(6)


@triton.jit
def _field(ptr, HALF: tl.constexpr):
    """The pointer with the field's dtype: its memory may have been allocated with another."""
    return ptr.to(tl.pointer_type(tl.float16 if HALF else tl.float32), bitcast=True)


@triton.jit
def _nearest(
    source_ptr, stride, length, first, count, origin, rows, sign, ratio,
    COUNTS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Lowest cost of each query row, and the source row it comes from, among `count` source rows.

    The source rows start at row `first`, which differs between lanes; `count` is the same for all. Lanes with
    fewer candidates scan extra rows; ranges are shifted to stay inside the column. Query rows are counted
    from row `origin`.
    """
    first = tl.minimum(first, length - count)
    source_ptr += first * stride
    source = (first - origin).to(tl.float32)[None, :]
    best = tl.full([ROWS, LANES], float("inf"), tl.float32)
    nearest = tl.full([ROWS, LANES], 0, tl.float32) + source
    for _ in tl.range(0, count, loop_unroll_factor=UNROLL):
        cost = tl.maximum(tl.load(source_ptr).to(tl.float32) * sign, 0.0)[None, :]
        if COUNTS:
            cost *= cost
        cost *= ratio
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


@triton.jit
def _sources_of_ends(
    source_ptr, stride, length, start, end, sign, ratio, limit, COUNTS: tl.constexpr, LANES: tl.constexpr
):
    """The sources nearest to rows `start` and `end`, upper one first: they enclose those of all rows between.

    A row's own value bounds the distance of its source, and `limit` bounds the search. A row with an infinite
    value searches the whole column, so that no class that exists is treated as missing.
    """
    pair = tl.arange(0, 2)[:, None]
    rows = start + pair * (end - start)
    own = tl.max(tl.load(source_ptr + rows * stride).to(tl.float32) * sign, axis=1, keep_dims=True)
    own = tl.maximum(own, 0.0)
    if COUNTS:
        own *= own
    reach = tl.sqrt(own * ratio)
    reach = tl.where(reach < float("inf"), tl.minimum(reach, limit), reach) + 1.0  # one row for the rounding
    first = tl.maximum(tl.min(rows - reach), 0.0).to(tl.int32)
    last = tl.minimum(tl.max(rows + reach), length - 1.0).to(tl.int32)
    best, nearest = _nearest(
        source_ptr, stride, length, tl.full([LANES], 0, tl.int32) + first, last - first + 1, start,
        (rows - start).to(tl.float32), sign, ratio, COUNTS, 2, LANES, UNROLL=4,
    )  # fmt: skip
    of_start = _row_of(nearest, 0, pair)
    of_end = _row_of(nearest, 1, pair)
    above = tl.minimum(of_start, of_end)  # equal costs may come in either order
    # From one row to the next a distance changes by at most one. If none of the segment's can be within the
    # limit (with half a row for rounding), any source will do.
    both = tl.sqrt(_row_of(best, 0, pair)) + tl.sqrt(_row_of(best, 1, pair))
    beyond = both - (end - start) > 2.0 * limit + 1.0
    return above, tl.where(beyond, above, tl.maximum(of_start, of_end))


@triton.jit
def _finished(distance, taken, missing, cut):
    """The shifted, filled and clamped distance. A missing one is infinite before and after the shift."""
    shifted = distance - taken
    shifted = tl.where(tl.abs(shifted) <= taken * RESIDUE, 0.0, shifted)
    shifted = tl.where(shifted == float("inf"), missing, shifted)
    return tl.minimum(tl.maximum(shifted, -cut), cut)


@triton.jit
def _store_places(
    source_ptr, places_ptr, rows_ptr, target_ptr, place, axis_stride, stride, width, column, own, mask,
    COUNTS: tl.constexpr, FINAL: tl.constexpr,
):  # fmt: skip
    """Replace the winning rows at `rows_ptr`, -1 for none, by the places of the nearest voxels.

    `own` holds the voxels' values. A winner of the other phase is itself the place. Otherwise the place lies
    in the winner's row, to the left or right by the winner's value (COUNTS), or the previous pass stored it.
    """
    row = tl.load(rows_ptr + place, mask=mask, other=0)
    winner = tl.maximum(row, 0) * stride
    # An inside voxel's place is stored as its complement, so that one read gives place and phase.
    flipped = tl.where(own < 0.0, -1, 0)
    if COUNTS:
        value = tl.load(source_ptr + winner).to(tl.float32)
        value = tl.where(own < 0.0, -value, value)
        count = tl.where(value < float("inf"), tl.maximum(value, 0.0), 0.0).to(tl.int32)
        x = column % stride.to(tl.int32)
        # Of two equally near voxels the left one. Beyond the border the row's first voxel is read instead.
        left = tl.load(source_ptr + winner - tl.minimum(count, x)).to(tl.float32)
        x += tl.where((left < 0.0) ^ (own < 0.0), -count, count)
        if FINAL:
            tl.store(target_ptr + axis_stride + place, tl.where(row < 0, -1, x), mask=mask)
        else:
            tl.store(places_ptr + place, ((row << PLACE_BITS) | x) ^ flipped, mask=mask)
    else:
        noted = tl.load(places_ptr + winner) ^ flipped
        noted = tl.where(noted < 0, ((column // width) << PLACE_BITS) | (column % width), noted)
        noted = tl.where(row < 0, -1, noted)
        tl.store(target_ptr + axis_stride + place, noted >> PLACE_BITS, mask=mask)
        x = (noted << (32 - PLACE_BITS)) >> (32 - PLACE_BITS)  # keeps the sign of -1
        tl.store(target_ptr + 2 * axis_stride + place, x, mask=mask)


@triton.jit
def _search(  # noqa: PLR0912, PLR0915  # a kernel is one function
    source_ptr, table_ptr, places_ptr, target_ptr, ratio, limit, area, shift_inside, shift_outside,
    missing, cut, table_start, classes, length, stride, planes, first, rows, columns, width, pitch, offset,
    COUNTS: tl.constexpr, HALF: tl.constexpr, FINAL: tl.constexpr, NEAREST: tl.constexpr, STEP: tl.constexpr,
    LANES: tl.constexpr,
):  # fmt: skip
    """Body of the search kernels. With NEAREST it also stores which source wins; otherwise it has no places.

    A program computes a segment of `COARSE_ROWS * STEP` rows of `LANES` columns, one phase after the other.
    The costs form a totally monotone matrix (Aggarwal et al., Algorithmica 2, 1987, doi:10.1007/BF01840359):
    as row p moves down a column, its nearest source never moves up. So the sources of two rows enclose those
    of all rows between them, and the work is bounded wherever the sources are.
    """
    SEGMENT: tl.constexpr = COARSE_ROWS * STEP
    segments = tl.cdiv(rows, SEGMENT)
    tiles = tl.cdiv(columns, LANES)
    segment = tl.program_id(0) % segments  # programs of one column are neighbours in launch order
    tile = tl.program_id(0) // segments % tiles
    volume = tl.program_id(0) // segments // tiles

    in_table = table_start >= 0
    numbers_ptr = table_ptr + table_start + volume // classes * TABLE_ROW
    ratio = tl.load(numbers_ptr, mask=in_table, other=ratio)
    limit = tl.load(numbers_ptr + 1, mask=in_table, other=limit)
    if NEAREST:
        area = tl.load(numbers_ptr + 2, mask=in_table, other=area)

    # A surplus lane computes the last column again.
    column = tl.minimum(tile * LANES + tl.arange(0, LANES), columns - 1)
    base = volume.to(tl.int64) * planes * length * stride
    base += (column // width).to(tl.int64) * pitch + column % width + offset
    source_ptr = _field(source_ptr, HALF) + base
    if FINAL:
        indices: tl.constexpr = (2 if COUNTS else 3) if NEAREST else 1
        target_ptr += volume.to(tl.int64) * rows * columns * indices + column
        # Nearest voxels are computed for whole volumes: equal strides save registers.
        target_stride = (stride if NEAREST else columns).to(tl.int64)
    else:
        target_ptr += base + first.to(tl.int64) * stride
        target_stride = stride.to(tl.int64)
    stride = stride.to(tl.int64)
    if NEAREST:
        is_own = (tile * LANES + tl.arange(0, LANES))[None, :] < columns
        places_ptr = places_ptr.to(tl.pointer_type(tl.int32), bitcast=True) + base
        rows_ptr = target_ptr if FINAL else places_ptr
        axis_stride = length.to(tl.int64) * columns

    start = first + segment * SEGMENT
    end = tl.minimum(start + SEGMENT, first + rows) - 1
    step = tl.arange(0, STEP)[:, None]
    coarse = tl.arange(0, COARSE_ROWS)[:, None]
    most = tl.full([STEP, LANES], 0, tl.float32)
    least = tl.full([STEP, LANES], 0, tl.float32)
    for row in range(start, end + 1, STEP):
        own = tl.load(source_ptr + (row + step) * stride, mask=row + step <= end, other=0.0).to(tl.float32)
        most = tl.maximum(most, own)
        least = tl.minimum(least, own)
    has_outside = tl.max(most) > 0
    has_inside = tl.min(least) < 0

    for phase in range(2):
        sign = 1.0 - 2.0 * phase
        if (has_outside & (phase == 0)) | (has_inside & (phase == 1)):
            above, below = _sources_of_ends(
                source_ptr, stride, length, start, end, sign, ratio, limit, COUNTS, LANES
            )
            _costs, nearest = _nearest(
                source_ptr, stride, length, above, tl.max(below - above) + 1, start,
                (coarse * STEP).to(tl.float32), sign, ratio, COUNTS, COARSE_ROWS, LANES, UNROLL=2,
            )  # fmt: skip
            for i in range(0, tl.cdiv(end - start + 1, STEP)):
                next_above = tl.where(i + 1 < COARSE_ROWS, _row_of(nearest, i + 1, coarse), below)
                row = start + i * STEP
                own = tl.load(source_ptr + (row + step) * stride, mask=row + step <= end, other=0.0)
                mine = own.to(tl.float32) * sign > 0
                if tl.max(mine.to(tl.int32)) > 0:
                    nearest_row = tl.minimum(above, next_above)
                    count = tl.max(tl.maximum(above, next_above) - nearest_row) + 1
                    best, sources = _nearest(
                        source_ptr, stride, length, nearest_row, count, row,
                        step.to(tl.float32), sign, ratio, COUNTS, STEP, LANES, UNROLL=1,
                    )  # fmt: skip
                    if FINAL and not NEAREST:
                        side = tl.where(phase == 0, shift_outside, shift_inside)
                        best = _finished(
                            tl.sqrt_rn(best * tl.load(numbers_ptr + 2, mask=in_table, other=area)),
                            tl.load(numbers_ptr + 3 + (1 - phase), mask=in_table, other=side),
                            tl.load(numbers_ptr + 5, mask=in_table, other=missing),
                            cut,
                        )
                    place = (row - first + step) * target_stride
                    if not NEAREST or not FINAL:
                        # The 0 makes a negative zero a positive one.
                        tl.store(
                            target_ptr + place, (best * sign + 0.0).to(target_ptr.dtype.element_ty), mask=mine
                        )
                    if NEAREST:
                        if FINAL:
                            is_near = (best < float("inf")) & (tl.sqrt_rn(best * area) <= cut)
                            sources = tl.where(is_near, sources, -1)
                        tl.store(rows_ptr + place, sources, mask=mine)
                above = next_above

    if NEAREST:  # a separate loop: the search leaves no registers for it
        tl.debug_barrier()  # a surplus lane's rows must not follow the places
        for row in range(start, end + 1, STEP):
            mask = row + step <= end
            own = tl.load(source_ptr + (row + step) * stride, mask=mask, other=0.0).to(tl.float32)
            _store_places(
                source_ptr, places_ptr, rows_ptr, target_ptr, (row - first + step) * target_stride,
                axis_stride, stride, width, column, own, mask & is_own, COUNTS, FINAL,
            )  # fmt: skip
