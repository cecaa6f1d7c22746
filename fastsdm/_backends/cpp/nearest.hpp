// The search with its argument: which voxel is nearest. Part of kernel.cpp, inside its namespace.
//
// Squares are relaxed as for a map. Then the row that an answer came from is looked for: going outwards from the
// voxel's own row, the first one whose square plus cost is the answer, bit for bit. Surfaces are near, so it is
// found after few rows. Of two equally near rows the upper one counts, on every instruction set.

// Signed squares of a row of words. Without a branch: phases alternate, and none could be foretold.
template <int lanes>
inline void squares_of(const std::int32_t* words, const NearestStep& step, float (&squares)[lanes]) {
  float signs[lanes];
  for (int x = 0; x < lanes; ++x) {
    const std::int32_t word = magnitude_of(words[x]);
    const std::int32_t scanned = scanned_steps(word), middle = middle_steps(word);
    const float square = static_cast<float>(scanned * scanned) + step.weight * static_cast<float>(middle * middle);
    // Infinity where there is none, else 0.
    const auto none = static_cast<float>(word == kNoneWord);
    squares[x] = square + none * std::numeric_limits<float>::max() * 4.0f;
    signs[x] = words[x] < 0 ? -1.0f : 1.0f;
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
FASTSDM_INLINE void write_nearest(const Tile& tile, const float (&codes)[lanes], const float (&best)[lanes],
                                  Index row, Index first, Index count, Index stride, const NearestStep& step,
                                  const std::int32_t* place_middle, const std::int32_t* place_scanned) {
  std::int32_t steps[lanes], at[lanes], words[lanes], rows[lanes], middle[lanes], scanned[lanes];
  const auto here = static_cast<std::int32_t>(row);
  for (int x = 0; x < lanes; ++x) {
    const auto code = static_cast<std::int32_t>(codes[x]);
    const std::int32_t down = -(code & 1);
    steps[x] = (code >> 1 & down) - (code >> 1 & ~down);
    at[x] = (here + steps[x]) * static_cast<std::int32_t>(tile.stride) + x;
  }
  for (int x = 0; x < lanes; x += static_cast<int>(Floats::lanes)) gather(tile.words + first, at + x, words + x);
  const std::int32_t* const own = tile.words + row * tile.stride + first;
  const float farthest = step.farthest;
  const auto near_squares = static_cast<float>(step.near_end >> kSquareShift);
  for (int x = 0; x < lanes; ++x) {
    // A voxel of the other phase is itself the nearest one.
    const std::int32_t same = ((own[x] ^ words[x]) >> 31 & 1) - 1, word = magnitude_of(words[x]);
    const float square = best[x] < 0 ? -best[x] : best[x];
    const std::int32_t none = square <= farthest ? 0 : -1;
    const std::int32_t middle_step = middle_steps(word) & same, scanned_step = scanned_steps(word) & same;
    if (last) {
      rows[x] = (here + steps[x]) | none;
      middle[x] = (place_middle[first + x] + middle_step) | none;
      scanned[x] = (place_scanned[first + x] + scanned_step) | none;
    } else {
      const std::int32_t is_near = square < near_squares ? -1 : 0;
      const auto whole = static_cast<std::int32_t>(square < near_squares ? square : 0.0f);
      const std::int32_t near = whole << kSquareShift | step_code(steps[x]) << kStepBits | step_code(scanned_step);
      const std::int32_t far = chosen(none, kNoneWord, far_word(steps[x], scanned_step));
      const std::int32_t found = chosen(is_near, near, far);
      rows[x] = own[x] < 0 ? -found : found;
    }
  }
  const Index to = row * stride + first;
  const auto bytes = static_cast<std::size_t>(count) * sizeof(std::int32_t);
  std::memcpy((last ? step.row : step.words) + to, rows, bytes);
  if (!last) return;
  std::memcpy(step.scanned + to, scanned, bytes);
  if (step.middle) std::memcpy(step.middle + to, middle, bytes);
}

struct Places {
  std::int32_t middle[kTileColumns], scanned[kTileColumns];
};

// Searches the blocks that are flagged in the columns of a tile from `first` to `end`. False where an answer
// does not fit the lanes.
template <class V>
bool search_blocks(const Tile& tile, Index first, Index end, const Axis& axis, const typename V::T* cost,
                   const NearestStep& step, const Places& places, const std::uint8_t* flags, void* scratch,
                   void* strip_of_squares) {
  using T = typename V::T;
  constexpr Index L = V::lanes;
  const Index length = axis.length, rows = (length + kBlock - 1) / kBlock * kBlock;
  T* const strip = static_cast<T*>(strip_of_squares);
  T* const split = static_cast<T*>(scratch);
  Phase<V> outside{split, split + 2 * rows * L, 0, 0};
  Phase<V> inside{split + rows * L, split + 2 * rows * L + rows / kBlock * L, 0, 0};
  const V zero = V::splat(0);
  for (; first < end; first += L) {
    float squares[L], codes[L], best[L];
    for (Index row = 0; row < length; ++row) {
      squares_of(tile.words + row * tile.stride + first, step, squares);
      V::from_floats(squares).store(strip + row * L);
    }
    split_phases([strip](Index row) { return load_row<V>(strip, row); }, length, outside, inside);
    for (Index block = 0; block * kBlock < length; ++block) {
      if (!flags[block]) continue;
      const Index here = least(kBlock, length - block * kBlock), count = least(L, end - first);
      V out[kBlock], in[kBlock], largest = zero;
      relax_block<V>(outside, block, here, {cost, cost}, out);
      relax_block<V>(inside, block, here, {cost, cost}, in);
      for (Index i = 0; i < here; ++i) largest = max(largest, max(out[i], in[i]));
      if (V::saturates && any_less(V::splat(kShortMax - 1), largest)) return false;
      for (Index i = 0; i < here; ++i) {
        const Index row = block * kBlock + i;
        const V out_code = source_code(outside, out[i], row, length, cost);
        const V in_code = source_code(inside, in[i], row, length, cost);
        store_floats(max(out_code, in_code), codes);  // one of the two is 0
        store_floats(max(out[i], in[i]), best);
        if (step.words) {
          write_nearest<false>(tile, codes, best, row, first, count, axis.stride, step, nullptr, nullptr);
        } else {
          write_nearest<true>(tile, codes, best, row, first, count, axis.stride, step, places.middle,
                              places.scanned);
        }
      }
    }
  }
  return true;
}

void copy_columns(const std::int32_t* columns, Index count, const Axis& axis, std::int32_t* tile) {
  const auto bytes = static_cast<std::size_t>(count) * sizeof(std::int32_t);
  for (Index row = 0; row < axis.length; ++row) {
    const std::int32_t* const from = columns + row * axis.stride;
    std::int32_t* const to = tile + row * kTileColumns;
    if (row + kRowsAhead < axis.length) {
      for (Index x = 0; x < count; x += 16) FASTSDM_PREFETCH(from + kRowsAhead * axis.stride + x);
    }
    if (count == kTileColumns) {
      std::memcpy(to, from, kTileColumns * sizeof *to);
    } else {
      std::memcpy(to, from, bytes);
      std::memset(to + count, 0, kTileColumns * sizeof *to - bytes);
    }
  }
}

void nearest_columns(const Tile& tile, Index count, const Axis& axis, const NearestStep& step, void* scratch,
                     bool& far) {
  // Several strips of words are together as wide as one of 16-bit lanes.
  constexpr Index L = Ints::lanes, G = Shorts::lanes;
  const Index length = axis.length, blocks = (length + kBlock - 1) / kBlock, rows = blocks * kBlock;
  Places places;
  if (!step.words) {
    auto middle = static_cast<std::int32_t>(step.column / step.width);
    auto scanned = static_cast<std::int32_t>(step.column % step.width);
    for (Index x = 0; x < kTileColumns; ++x) {
      places.middle[x] = middle;
      places.scanned[x] = scanned;
      if (++scanned == step.width) ++middle, scanned = 0;
    }
  }
  std::int32_t* const strips = static_cast<std::int32_t*>(scratch);
  std::int32_t* const split = strips + rows * kTileColumns;
  std::int32_t* const squares = split + 2 * (rows + blocks) * L;
  auto* const flags = reinterpret_cast<std::uint8_t*>(squares + rows * L);
  std::memset(flags, step.before ? 0 : 1, static_cast<std::size_t>(blocks * (kTileColumns / G)));
  for (Index first = 0; first < count; first += G) {
    const Index end = least(first + G, count);
    std::uint8_t* const of_group = flags + first / G * blocks;
    bool any_far = step.before == nullptr;
    for (Index x = first; step.before && x < end; x += L) {
      any_far |= relax_words(tile.words + x, tile.stride, axis, step, strips + x * rows, split, of_group);
    }
    if (!any_far) continue;
    if (axis.short_cost && !far) {
      far =
          !search_blocks<Shorts>(tile, first, end, axis, axis.short_cost, step, places, of_group, split, squares);
      if (!far) continue;
    }
    search_blocks<Floats>(tile, first, end, axis, axis.float_cost, step, places, of_group, split, squares);
  }
  if (!step.before) return;
  for (Index row = 0; row < length; ++row) {
    for (Index x = 0; x < count; x += L) {
      if (flags[x / G * blocks + row / kBlock]) continue;
      const std::int32_t* const words = strips + x * rows + row * L;
      const Index to = row * axis.stride + x;
      if (step.words) {
        write_words(words, count - x, to, step);
      } else {
        write_near(words, row, count - x, to, step, places.middle + x, places.scanned + x);
      }
    }
  }
  if (step.stream) Ints::end_stream();
}
