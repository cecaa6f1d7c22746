"""The kernels of the `triton` backend; `triton_launcher.py` launches them, `docs/triton.md` explains them.

Both work on the *signed field*: one number per voxel and class, positive outside the class and negative
inside, whose magnitude is the distance to the nearest voxel of the other phase as far as the axes done so
far can tell; infinite where they have seen none. A voxel looks for the other phase only: a source of its own
phase counts with its magnitude, one of the other phase with 0.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Triton parses a kernel, Python never runs it: its parameters are pointers and scalars of the launch.

import triton
import triton.language as tl

#: Rows of a segment whose nearest source is found before the rows between them are looked at.
COARSE_ROWS = tl.constexpr(8)
#: A shifted distance this small beside the shift is rounding, and reads 0.
RESIDUE = tl.constexpr(2**-21)
#: Numbers per sample and pass in the table: ratio, limit, area, shift inside, shift outside, missing.
TABLE_ROW = tl.constexpr(6)


@triton.jit
def _field(ptr, HALF: tl.constexpr):
    """The field's own type: it may lie in memory that was allocated as another one."""
    return ptr.to(tl.pointer_type(tl.float16 if HALF else tl.float32), bitcast=True)


@triton.jit
def _exponent(power):
    """The k of 2**k, through the exponent of a float: no vendor's instruction, and the interpreter has it."""
    return (power.to(tl.float32).to(tl.int32, bitcast=True) >> 23).to(tl.float32) - 127.0


@triton.jit
def _highest(bits):
    """Number of the highest bit set; the second highest goes, or a float might round up to the next power."""
    return _exponent(bits ^ (bits & (bits >> 1)))


@triton.jit
def _lowest(bits):
    """Number of the lowest bit set."""
    return _exponent(bits ^ (bits & (bits - 1)))


@triton.jit
def _is_inside(label_ptr, value, negated):
    """Whether labels belong to the class: they have its value, or where `negated` any other."""
    return (tl.load(label_ptr).to(value.dtype) == value) ^ (negated != 0)


@triton.jit(
    do_not_specialize=[
        "labels_ptr", "table_ptr", "field_ptr", "listed", "lowest", "negated", "classes", "rows", "width"
    ]
)  # fmt: skip
def _scan_row_kernel(
    labels_ptr,  # [B, rows, width] integer
    table_ptr,  # [classes] int64 where `listed`, else not read
    field_ptr,  # [B, classes, rows, width] float, out: signed count of voxels along the row
    listed,  # 1: the class values are in the table; 0: they are lowest, lowest + 1, ...
    lowest,
    negated,  # 1: inside are all labels but that value
    classes,
    rows,
    width,
    WIDE: tl.constexpr,  # labels are compared as 64-bit integers, else as 32-bit ones
    HALF: tl.constexpr,  # the field is float16, else float32
    ROWS: tl.constexpr,  # rows per program
):
    """Signed field along the last axis: distance to the nearest voxel of the other phase in the row.

    One lane per voxel, 32 voxels a step; their phases become the bits of a word, equal in all lanes, and a
    bit that differs from its neighbour starts (or ends) a run. One sweep measures to the left, one back to
    the right; what lies beyond the word is carried over.
    """
    values_ptr = table_ptr.to(tl.pointer_type(tl.int64), bitcast=True)
    field_ptr = _field(field_ptr, HALF)
    blocks = tl.cdiv(rows, ROWS)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS))[:, None]
    row_start = tl.minimum(row, rows - 1).to(tl.int64) * width  # a surplus row does the last one again
    words = tl.cdiv(width, 32)
    lane = tl.arange(0, 32)[None, :]
    place = lane.to(tl.float32)
    bit = tl.full([1, 32], 1, tl.uint32) << lane.to(tl.uint32)
    before = bit - 1

    for k in range(classes):
        value = (lowest + k).to(tl.int64)
        value = tl.load(values_ptr + k, mask=listed != 0, other=value)
        if not WIDE:
            value = value.to(tl.int32)
        label_ptr = labels_ptr + sample * rows * width + row_start
        class_ptr = field_ptr + (sample * classes + k) * rows * width + row_start

        previous = _is_inside(label_ptr, value, negated).to(tl.uint32)
        start = tl.full(
            [ROWS, 1], float("-inf"), tl.float32
        )  # of the last run, counted from the word's voxel 0
        for word in range(words):
            x = word * 32 + lane
            # Voxels beyond the end repeat the last one, so that no run starts there.
            inside = _is_inside(label_ptr + tl.minimum(x, width - 1), value, negated)
            phases = tl.sum(tl.where(inside, bit, 0), axis=1, keep_dims=True)
            starts = phases ^ ((phases << 1) | previous)
            passed = starts & (before | bit)
            count = place + 1.0 - tl.where(passed != 0, _highest(passed), start)
            signed = tl.where(inside, -count, count).to(field_ptr.dtype.element_ty)
            tl.store(class_ptr + x, signed, mask=x < width)
            start = tl.where(starts != 0, _highest(starts), start) - 32.0
            previous = phases >> 31

        tl.debug_barrier()  # from here on a thread may read what another one wrote
        following = (tl.load(class_ptr + width - 1) < 0).to(tl.uint32)
        end = tl.full(
            [ROWS, 1], float("inf"), tl.float32
        )  # of the next run, counted from the next word's voxel 0
        for back in range(words):
            x = (words - 1 - back) * 32 + lane
            to_left = tl.load(class_ptr + tl.minimum(x, width - 1)).to(tl.float32)
            inside = to_left < 0
            phases = tl.sum(tl.where(inside, bit, 0), axis=1, keep_dims=True)
            ends = phases ^ ((phases >> 1) | (following << 31))
            ahead = ends ^ (ends & before)
            end += 32.0
            to_right = tl.where(ahead != 0, _lowest(ahead), end) + 1.0 - place
            count = tl.minimum(tl.abs(to_left), to_right)
            signed = tl.where(inside, -count, count).to(field_ptr.dtype.element_ty)
            tl.store(class_ptr + x, signed, mask=x < width)
            end = tl.where(ends != 0, _lowest(ends), end)
            following = phases & 1


@triton.jit
def _nearest(
    source_ptr, stride, length, first, count, origin, rows, sign, ratio,
    COUNTS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Lowest cost of each query row, and the source row it comes from, among `count` source rows.

    They start at row `first`, which differs between lanes; `count` does not. A lane with fewer sources to
    look at looks at more than it must, and where that would leave the column its range moves back.
    Query rows are counted from row `origin`.
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

    A row's own value bounds how far away its source can be, `limit` how far it need be looked for. Without
    any value nothing bounds it, so that a class that exists never reads as missing.
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
    # From one row to the next a distance changes by at most one: where none of the segment's can be within
    # the limit (by half a row, for the rounding) any source will do.
    both = tl.sqrt(_row_of(best, 0, pair)) + tl.sqrt(_row_of(best, 1, pair))
    beyond = both - (end - start) > 2.0 * limit + 1.0
    return above, tl.where(beyond, above, tl.maximum(of_start, of_end))


@triton.jit
def _finished(distance, taken, missing, cut):
    """The shifted, filled and clamped distance; a missing one is infinite, with the shift and without."""
    shifted = distance - taken
    shifted = tl.where(tl.abs(shifted) <= taken * RESIDUE, 0.0, shifted)
    shifted = tl.where(shifted == float("inf"), missing, shifted)
    return tl.minimum(tl.maximum(shifted, -cut), cut)


@triton.jit(
    do_not_specialize=[
        "source_ptr", "table_ptr", "target_ptr", "ratio", "limit", "area", "shift_inside", "shift_outside",
        "missing", "cut", "table_start", "classes", "length", "stride", "planes", "first", "rows", "columns",
        "width", "pitch", "offset",
    ]
)  # fmt: skip
def _search_axis_kernel(  # noqa: PLR0915  # a kernel is one function
    source_ptr,  # [volumes, planes * length * stride] float: signed field of the axes done so far
    table_ptr,  # [B, TABLE_ROW] float32 from table_start on, in place of the next six; not read if that is -1
    target_ptr,  # float, out: like the source with this axis included; if FINAL [volumes, rows, columns]
    ratio,  # squared voxels of this axis per unit of the source
    limit,  # max_distance in voxels of this axis
    area,  # squared size of this axis' voxel
    shift_inside,  # these three finish the map, and so does the next
    shift_outside,
    missing,
    cut,
    table_start,
    classes,
    length,  # rows of a column, all of which are sources
    stride,  # from row to row
    planes,  # a volume has planes * length * stride voxels
    first,  # the first row that is computed
    rows,  # number of rows that are computed
    columns,  # number of columns that are computed: groups of `width` neighbours,
    width,
    pitch,  # from group to group
    offset,  # the first column
    COUNTS: tl.constexpr,  # the source is the scan's, not yet squared
    HALF: tl.constexpr,  # the source is float16, else float32
    FINAL: tl.constexpr,  # the target is the finished map, not the squared field
    STEP: tl.constexpr,  # rows per coarse row
    LANES: tl.constexpr,  # columns per program
):
    """Signed field along one more axis: the lowest of `cost(q) + (p - q)^2` over the rows q of a column.

    A program owns a segment of `COARSE_ROWS * STEP` rows of `LANES` columns, and treats one phase after the
    other. As row p goes down the column its nearest source never goes up: the costs form a totally monotone
    matrix (Aggarwal et al., Algorithmica 2, 1987, doi:10.1007/BF01840359). So the sources of two rows
    enclose those of all rows between them, and the work is bounded wherever the sources are.
    """
    SEGMENT: tl.constexpr = COARSE_ROWS * STEP
    segments = tl.cdiv(rows, SEGMENT)
    tiles = tl.cdiv(columns, LANES)
    segment = tl.program_id(0) % segments  # programs that share a column are neighbours in launch order
    tile = tl.program_id(0) // segments % tiles
    volume = tl.program_id(0) // segments // tiles

    in_table = table_start >= 0
    numbers_ptr = table_ptr + table_start + volume // classes * TABLE_ROW
    ratio = tl.load(numbers_ptr, mask=in_table, other=ratio)
    limit = tl.load(numbers_ptr + 1, mask=in_table, other=limit)

    # A surplus lane does the last column again.
    column = tl.minimum(tile * LANES + tl.arange(0, LANES), columns - 1)
    base = volume.to(tl.int64) * planes * length * stride
    base += (column // width).to(tl.int64) * pitch + column % width + offset
    source_ptr = _field(source_ptr, HALF) + base
    if FINAL:
        target_ptr += volume.to(tl.int64) * rows * columns + column
        target_stride = columns.to(tl.int64)
    else:
        target_ptr += base + first.to(tl.int64) * stride
        target_stride = stride.to(tl.int64)
    stride = stride.to(tl.int64)

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
                    best, _sources = _nearest(
                        source_ptr, stride, length, nearest_row, count, row,
                        step.to(tl.float32), sign, ratio, COUNTS, STEP, LANES, UNROLL=1,
                    )  # fmt: skip
                    if FINAL:
                        side = tl.where(phase == 0, shift_outside, shift_inside)
                        best = _finished(
                            tl.sqrt_rn(best * tl.load(numbers_ptr + 2, mask=in_table, other=area)),
                            tl.load(numbers_ptr + 3 + (1 - phase), mask=in_table, other=side),
                            tl.load(numbers_ptr + 5, mask=in_table, other=missing),
                            cut,
                        )
                    place = (row - first + step) * target_stride
                    # The 0 makes a negative zero a positive one.
                    tl.store(
                        target_ptr + place, (best * sign + 0.0).to(target_ptr.dtype.element_ty), mask=mine
                    )
                above = next_above
