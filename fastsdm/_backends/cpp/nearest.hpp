// The search with its argument: which voxel is nearest. Part of kernel.cpp, inside its namespace.
//
// Squares are relaxed as for a map. Then the row that an answer came from is looked for: going outwards from the
// voxel's own row, the first one whose square plus cost is the answer, bit for bit. Surfaces are near, so it is
// found after few rows. Of two equally near rows the upper one counts, on every instruction set.

inline std::int32_t packed(std::int32_t middle, std::int32_t none, std::int32_t scanned, std::int32_t phase) {
  const std::uint32_t high = static_cast<std::uint32_t>(middle * 2 + none) << 16;
  return static_cast<std::int32_t>(high | (static_cast<std::uint32_t>(scanned * 2 + phase) & 0xffffu));
}
inline std::int32_t middle_steps(std::int32_t word) { return word >> 17; }
inline std::int32_t scanned_steps(std::int32_t word) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(word) << 16) >> 17;
}
inline std::int32_t none_bit(std::int32_t word) { return word >> 16 & 1; }

void scan_nearest(std::uint8_t* phase, Index width, std::int32_t* words) {
  std::memset(phase + width, phase[width - 1], kPhasePadding);
  Index begin = 0;
  const auto fill = [&](Index end) {
    const std::int32_t own = phase[begin];
    // Up to `half` the nearer end is the left one.
    Index half = (begin + end + 1) / 2;
    if (begin == 0) half = begin;
    if (end == width) half = end;
    if (begin == 0 && end == width) {
      for (Index x = 0; x < width; ++x) words[x] = packed(0, 1, 0, own);
    } else {
      for (Index x = begin; x < half; ++x) words[x] = packed(0, 0, static_cast<std::int32_t>(begin - x - 1), own);
      for (Index x = half; x < end; ++x) words[x] = packed(0, 0, static_cast<std::int32_t>(end - x), own);
    }
    begin = end;
  };
  for (Index x = 0; x < width; x += 8) {
    std::uint64_t edges = load_bytes(phase + x) ^ load_bytes(phase + x + 1);
    for (; edges != 0; edges &= edges - 1) fill(x + lowest_bit(edges) / 8 + 1);
  }
  fill(width);
}

// Signed squares of a row of words. Without a branch: phases alternate, and none could be foretold.
template <int lanes>
inline void squares_of(const std::int32_t* words, const NearestStep& step, float (&squares)[lanes]) {
  float signs[lanes];
  for (int x = 0; x < lanes; ++x) {
    const std::int32_t scanned = scanned_steps(words[x]), middle = middle_steps(words[x]);
    const float square = static_cast<float>(scanned * scanned) + step.weight * static_cast<float>(middle * middle);
    // Infinity where there is none, else 0.
    const float none = static_cast<float>(none_bit(words[x])) * std::numeric_limits<float>::max() * 4.0f;
    squares[x] = square + none;
    signs[x] = static_cast<float>(1 - 2 * (words[x] & 1));
  }
  for (int x = 0; x < lanes; x += static_cast<int>(Floats::lanes)) {
    const Floats capped = min(Floats::load(squares + x), Floats::splat(step.most));
    multiply(capped, Floats::load(signs + x)).store(squares + x);
  }
}

inline Floats largest_finite(Floats) { return Floats::splat(std::numeric_limits<float>::max()); }
inline Shorts largest_finite(Shorts) { return Shorts::splat(kShortMax - 1); }

// Twice the steps to the row that `best` came from, plus 1 where it lies below.
template <class V>
FASTSDM_INLINE V source_code(const Phase<V>& phase, V best, Index row, Index length, const typename V::T* cost) {
  const V unknown = V::splat(V::infinity);
  const V known = largest_finite(unknown);
  V code = min_where_equal(load_row<V>(phase.squares, row), best, unknown, V::splat(0));
  for (Index k = 1; any_less(known, code); ++k) {
    const V far_cost = load_row<V>(cost, k);
    if (k <= row) {
      const V candidate = add(load_row<V>(phase.squares, row - k), far_cost);
      code = min_where_equal(candidate, best, code, V::splat(static_cast<typename V::T>(2 * k)));
    }
    if (row + k < length) {
      const V candidate = add(load_row<V>(phase.squares, row + k), far_cost);
      code = min_where_equal(candidate, best, code, V::splat(static_cast<typename V::T>(2 * k + 1)));
    }
    if (k > row && row + k >= length) break;
  }
  return code;
}

template <class V>
inline void store_floats(V v, float (&to)[V::lanes]) {
  Floats parts[V::lanes / Floats::lanes];
  v.expand(parts);
  for (Index p = 0; p < V::lanes / Floats::lanes; ++p) parts[p].store(to + p * Floats::lanes);
}

// Writes row `row` of the `count` columns from `first` on: as words, or with `last` as indices.
template <bool last, int lanes>
FASTSDM_INLINE void write_nearest(const std::int32_t* tile, const float (&codes)[lanes], const float (&best)[lanes],
                                  Index row, Index first, Index count, Index stride, const NearestStep& step,
                                  const std::int32_t* place_middle, const std::int32_t* place_scanned) {
  std::int32_t steps[lanes], at[lanes], words[lanes], rows[lanes], middle[lanes], scanned[lanes];
  const auto here = static_cast<std::int32_t>(row);
  for (int x = 0; x < lanes; ++x) {
    const auto code = static_cast<std::int32_t>(codes[x]);
    const std::int32_t down = -(code & 1);
    steps[x] = (code >> 1 & down) - (code >> 1 & ~down);
    at[x] = (here + steps[x]) * static_cast<std::int32_t>(kTileColumns) + x;
  }
  for (int x = 0; x < lanes; x += static_cast<int>(Floats::lanes)) gather(tile + first, at + x, words + x);
  const std::int32_t* const own = tile + row * kTileColumns + first;
  const float farthest = step.farthest;
  for (int x = 0; x < lanes; ++x) {
    // A voxel of the other phase is itself the nearest one.
    const std::int32_t same = ((own[x] ^ words[x]) & 1) - 1;
    const float square = best[x] < 0 ? -best[x] : best[x];
    const std::int32_t none = square <= farthest ? 0 : -1;
    const std::int32_t middle_step = middle_steps(words[x]) & same, scanned_step = scanned_steps(words[x]) & same;
    if (last) {
      rows[x] = (here + steps[x]) | none;
      middle[x] = (place_middle[first + x] + middle_step) | none;
      scanned[x] = (place_scanned[first + x] + scanned_step) | none;
    } else {
      rows[x] = packed(steps[x], none & 1, scanned_step, own[x] & 1);
    }
  }
  const Index to = row * stride + first;
  const auto bytes = static_cast<std::size_t>(count) * sizeof(std::int32_t);
  std::memcpy((last ? step.row : step.words) + to, rows, bytes);
  if (!last) return;
  std::memcpy(step.scanned + to, scanned, bytes);
  if (step.middle) std::memcpy(step.middle + to, middle, bytes);
}

template <class V>
bool nearest_tile(const std::int32_t* tile, Index count, const Axis& axis, const typename V::T* cost,
                  const NearestStep& step, void* scratch) {
  using T = typename V::T;
  constexpr Index L = V::lanes;
  const Index length = axis.length, rows = (length + kBlock - 1) / kBlock * kBlock;
  T* const strip = static_cast<T*>(scratch);
  T* const split = strip + rows * L;
  Phase<V> outside{split, split + 2 * rows * L, 0, 0};
  Phase<V> inside{split + rows * L, split + 2 * rows * L + rows / kBlock * L, 0, 0};
  std::int32_t place_middle[kTileColumns], place_scanned[kTileColumns];
  for (Index x = 0; x < kTileColumns; ++x) {
    place_middle[x] = static_cast<std::int32_t>((step.column + x) / step.width);
    place_scanned[x] = static_cast<std::int32_t>((step.column + x) % step.width);
  }
  bool fits = true;
  for (Index first = 0; first < count; first += L) {
    float squares[L], codes[L], best[L];
    for (Index row = 0; row < length; ++row) {
      squares_of(tile + row * kTileColumns + first, step, squares);
      V::from_floats(squares).store(strip + row * L);
    }
    fits &= relax_strip(strip, axis, cost, outside, inside);
    if (V::saturates && !fits) return false;
    for (Index row = 0; row < length; ++row) {
      const V signed_best = load_row<V>(strip, row), zero = V::splat(0);
      const V out = source_code(outside, max(signed_best, zero), row, length, cost);
      const V in = source_code(inside, max(subtract(zero, signed_best), zero), row, length, cost);
      store_floats(max(out, in), codes);  // one of the two is 0
      store_floats(signed_best, best);
      const Index here = least(L, count - first);
      if (step.words) {
        write_nearest<false>(tile, codes, best, row, first, here, axis.stride, step, nullptr, nullptr);
      } else {
        write_nearest<true>(tile, codes, best, row, first, here, axis.stride, step, place_middle, place_scanned);
      }
    }
  }
  return fits;
}

void nearest_columns(const std::int32_t* columns, Index count, const Axis& axis, const NearestStep& step,
                     void* scratch, std::int32_t* tile, bool& far) {
  const auto bytes = static_cast<std::size_t>(count) * sizeof(std::int32_t);
  for (Index row = 0; row < axis.length; ++row) {
    if (row + kRowsAhead < axis.length) {
      const std::int32_t* const ahead = columns + (row + kRowsAhead) * axis.stride;
      for (Index x = 0; x < count; x += 16) FASTSDM_PREFETCH(ahead + x);
    }
    std::memcpy(tile + row * kTileColumns, columns + row * axis.stride, bytes);
    if (count < kTileColumns) {
      std::memset(tile + row * kTileColumns + count, 0, static_cast<std::size_t>(kTileColumns) * sizeof *tile - bytes);
    }
  }
  const bool try_shorts = axis.short_cost && !far;
  if (try_shorts && nearest_tile<Shorts>(tile, count, axis, axis.short_cost, step, scratch)) return;
  far = !nearest_tile<Floats>(tile, count, axis, axis.float_cost, step, scratch);
}
