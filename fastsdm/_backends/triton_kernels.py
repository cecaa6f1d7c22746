"""The kernels of the `triton` backend; `triton_launcher.py` launches them, `docs/triton.md` explains them.

They work on the *signed field*: one number per voxel and class, positive outside the class and negative
inside. Its magnitude is the distance to the nearest voxel of the other phase, measured along the axes done so
far; it is infinite if there is none. A voxel measures to the other phase only: a source of its own phase
counts with its magnitude, a source of the other phase with 0.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Triton parses a kernel, Python never runs it: its parameters are pointers and scalars of the launch.

import triton
import triton.language as tl

from fastsdm._backends.triton_search import _field, _search


@triton.jit
def _exponent(power):
    """The k of 2**k, from the exponent of a float: it needs no vendor's instruction and works interpreted."""
    return (power.to(tl.float32).to(tl.int32, bitcast=True) >> 23).to(tl.float32) - 127.0


@triton.jit
def _highest(bits):
    """Number of the highest bit set. The second highest is cleared: it could round the float up."""
    return _exponent(bits ^ (bits & (bits >> 1)))


@triton.jit
def _lowest(bits):
    """Number of the lowest bit set."""
    return _exponent(bits ^ (bits & (bits - 1)))


@triton.jit
def _is_inside(label_ptr, value, MASK: tl.constexpr):
    """Whether labels belong to the class: they equal its value, or are above 0 if MASK."""
    label = tl.load(label_ptr)
    return label > 0 if MASK else label.to(value.dtype) == value


@triton.jit(
    do_not_specialize=[
        "labels_ptr", "table_ptr", "field_ptr", "listed", "lowest", "classes", "rows", "width"
    ]
)  # fmt: skip
def _scan_row_kernel(
    labels_ptr,  # [B, rows, width] integer
    table_ptr,  # [classes] int64 where `listed`, else not read
    field_ptr,  # [B, classes, rows, width] float, out: signed count of voxels along the row
    listed,  # 1: the class values are in the table; 0: they are lowest, lowest + 1, ...
    lowest,
    classes,
    rows,
    width,
    MASK: tl.constexpr,  # one class of all labels above 0: no values
    WIDE: tl.constexpr,  # labels are compared with values as 64-bit integers, else as 32-bit ones
    HALF: tl.constexpr,  # the field is float16, else float32
    ROWS: tl.constexpr,  # rows per program
):
    """Signed field along the last axis: distance to the nearest voxel of the other phase in the row.

    One lane per voxel, 32 voxels a step. Their phases become the bits of a word that all lanes have. A bit
    that differs from its neighbour starts (or ends) a run. One sweep measures to the left, one back to the
    right. What lies beyond the word is carried over.
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

        previous = _is_inside(label_ptr, value, MASK).to(tl.uint32)
        start = tl.full(
            [ROWS, 1], float("-inf"), tl.float32
        )  # of the last run, counted from the word's voxel 0
        for word in range(words):
            x = word * 32 + lane
            # Voxels beyond the end repeat the last one, so that no run starts there.
            inside = _is_inside(label_ptr + tl.minimum(x, width - 1), value, MASK)
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


@triton.jit(
    do_not_specialize=[
        "source_ptr", "table_ptr", "target_ptr", "ratio", "limit", "area", "shift_inside", "shift_outside",
        "missing", "cut", "table_start", "classes", "length", "stride", "planes", "first", "rows", "columns",
        "width", "pitch", "offset",
    ]
)  # fmt: skip
def _search_axis_kernel(
    source_ptr,  # [volumes, planes * length * stride] float: signed field of the axes done so far
    table_ptr,  # [B, TABLE_ROW] float32 from table_start on, replaces the next six; not read if that is -1
    target_ptr,  # float, out: like the source with this axis included; if FINAL [volumes, rows, columns]
    ratio,  # squared voxels of this axis per unit of the source
    limit,  # max_distance in voxels of this axis
    area,  # squared size of this axis' voxel
    shift_inside,  # these four finish the map
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
    """Signed field along one more axis: the lowest of `cost(q) + (p - q)^2` over the rows q of a column."""
    _search(
        source_ptr, table_ptr, source_ptr, target_ptr, ratio, limit, area, shift_inside, shift_outside,
        missing, cut, table_start, classes, length, stride, planes, first, rows, columns, width, pitch,
        offset, COUNTS, HALF, FINAL, False, STEP, LANES,
    )  # fmt: skip


@triton.jit(
    do_not_specialize=[
        "source_ptr", "table_ptr", "places_ptr", "target_ptr", "ratio", "limit", "area", "cut", "table_start",
        "classes", "length", "stride", "planes", "columns", "width", "pitch",
    ]
)  # fmt: skip
def _nearest_axis_kernel(
    source_ptr,  # [volumes, planes * length * stride] float: signed field of the axes done so far
    table_ptr,  # [B, TABLE_ROW] float32 from table_start on, replaces the next three; not read if that is -1
    places_ptr,  # int32 like the source: place of the nearest voxel within its plane; out, or in if FINAL
    target_ptr,  # the source with this axis included; if FINAL int32 [volumes, axes, length * columns]
    ratio,  # these three as in the search above
    limit,
    area,
    cut,  # max_distance; a voxel without another one as near reads -1
    table_start,
    classes,
    length,  # rows of a column
    stride,  # from row to row
    planes,  # a volume has planes * length * stride voxels
    columns,  # planes * stride: groups of `width` neighbours, which is the length of the last axis,
    width,
    pitch,  # from group to group
    COUNTS: tl.constexpr,  # the source is the scan's, not yet squared
    HALF: tl.constexpr,  # the source is float16, else float32
    FINAL: tl.constexpr,  # the target is the indices
    STEP: tl.constexpr,  # rows per coarse row
    LANES: tl.constexpr,  # columns per program
):
    """The search above, which also stores where its minima are."""
    origin = tl.full([], 0, tl.int32)
    _search(
        source_ptr, table_ptr, places_ptr, target_ptr, ratio, limit, area, 0.0, 0.0, 0.0, cut, table_start,
        classes, length, stride, planes, origin, length, columns, width, pitch, origin,
        COUNTS, HALF, FINAL, True, STEP, LANES,
    )  # fmt: skip
