// The search with its argument: which voxel is nearest. Part of kernel.cpp, inside its namespace.
//
// Where words do not tell, squares are relaxed as for a map, and beside each one the row that it came from is
// kept. Of equally near rows the upper one counts: a row above the answer's own replaces an equal one, a row below
// it does not. A block is left out only if it is farther, so the answer does not depend on the instruction set.

static_assert(Ints::lanes == Floats::lanes, "");

// Signed squares of a row of words. Without a branch: phases alternate, and none could be foretold.
inline Floats squares_of(const std::int32_t* words, const NearestStep& step) {
  constexpr int L = static_cast<int>(Floats::lanes);
  float squares[L], signs[L];
  for (int x = 0; x < L; ++x) {
    const std::int32_t word = magnitude_of(words[x]);
    const std::int32_t scanned = steps_of(word, 0), middle = steps_of(word, 1);
    const float square = static_cast<float>(scanned * scanned) + step.weight * static_cast<float>(middle * middle);
    // Infinity where there is none, else 0.
    squares[x] = square + static_cast<float>(word == kNoneWord) * std::numeric_limits<float>::max() * 4.0f;
    signs[x] = words[x] < 0 ? -1.0f : 1.0f;
  }
  return multiply(min(Floats::load(squares), Floats::splat(step.most)), Floats::load(signs));
}

// Offers the eight rows of a source block to the eight rows of `best`; `direction` as for open_block.
template <int direction>
FASTSDM_INLINE void offer_block(const Phase<Floats>& phase, Index block, const float* cost, Index gap,
                                Floats (&best)[kBlock], Ints (&from)[kBlock]) {
  FASTSDM_UNROLL
  for (int n = 0; n < kBlock; ++n) {
    const int j = direction > 0 ? n : static_cast<int>(kBlock) - 1 - n;  // outwards
    const Floats squares = load_row<Floats>(phase.squares, block * kBlock + j);
    const Ints row = Ints::splat(static_cast<std::int32_t>(block * kBlock + j));
    FASTSDM_UNROLL
    for (int i = 0; i < kBlock; ++i) {
      const int steps = direction > 0 ? j - i : i - j;
      if (gap == 0 && steps <= 0) continue;
      const Floats candidate = add(squares, load_row<Floats>(cost, gap + steps));
      from[i] = direction > 0 ? where_less(candidate, best[i], row, from[i])
                              : where_less(best[i], candidate, from[i], row);
      best[i] = min(best[i], candidate);
    }
  }
}

// A little more than the largest: what is not below it is farther than all of them.
inline Floats above_all(const Floats (&best)[kBlock]) {
  return multiply(greatest_of(best), Floats::splat(1.0f + 4 * std::numeric_limits<float>::epsilon()));
}

// As relax_block, with the rows that the squares came from.
FASTSDM_INLINE void search_block(const Phase<Floats>& phase, Index block, Index rows, const float* cost,
                                 Floats (&best)[kBlock], Ints (&from)[kBlock]) {
  FASTSDM_UNROLL
  for (int i = 0; i < kBlock; ++i) {
    best[i] = i < rows ? load_row<Floats>(phase.squares, block * kBlock + i) : Floats::splat(0);
    from[i] = Ints::splat(static_cast<std::int32_t>(block * kBlock + i));
  }
  Floats worst = above_all(best);
  if (!any_less(load_row<Floats>(cost, 1), worst)) return;
  offer_block<-1>(phase, block, cost, 0, best, from);
  offer_block<1>(phase, block, cost, 0, best, from);
  worst = above_all(best);
  for (Index k = greatest(1, greatest(phase.first - block, block - phase.last));; ++k) {
    const Index below = block - k, above = block + k;
    if (below < phase.first && above > phase.last) return;
    const Floats gap = load_row<Floats>(cost, k * kBlock - (kBlock - 1));
    if (!any_less(gap, worst)) return;
    if (below >= phase.first && any_less(add(load_row<Floats>(phase.floor, below), gap), worst)) {
      offer_block<-1>(phase, below, cost, k * kBlock, best, from);
      worst = above_all(best);
    }
    if (above <= phase.last && any_less(add(load_row<Floats>(phase.floor, above), gap), worst)) {
      offer_block<1>(phase, above, cost, k * kBlock, best, from);
      worst = above_all(best);
    }
  }
}

// Writes to `strip` the rows that the flagged blocks' answers came from, -1 for none.
void search_strip(const Tile& tile, Index first, const Axis& axis, const NearestStep& step,
                  const std::uint8_t* flags, float* split, std::int32_t* strip) {
  constexpr Index L = Floats::lanes;
  const Index length = axis.length, rows = (length + kBlock - 1) / kBlock * kBlock;
  Phase<Floats> outside{split, split + 2 * rows * L, 0, 0};
  Phase<Floats> inside{split + rows * L, split + 2 * rows * L + rows / kBlock * L, 0, 0};
  const auto load = [&](Index row) { return squares_of(tile.words + row * tile.stride + first, step); };
  split_phases(load, length, outside, inside);
  const Floats farthest = Floats::splat(step.farthest);
  const Ints none = Ints::splat(-1);
  for (Index block = 0; block * kBlock < length; ++block) {
    if (!flags[block]) continue;
    const Index here = least(kBlock, length - block * kBlock);
    Floats out[kBlock], in[kBlock];
    Ints out_from[kBlock], in_from[kBlock];
    search_block(outside, block, here, axis.float_cost, out, out_from);
    search_block(inside, block, here, axis.float_cost, in, in_from);
    for (Index i = 0; i < here; ++i) {
      const Index row = block * kBlock + i;
      // In the other phase a voxel comes from itself.
      const Ints from = subtract(add(out_from[i], in_from[i]), Ints::splat(static_cast<std::int32_t>(row)));
      where_less(farthest, max(out[i], in[i]), none, from).store(strip + row * L);
    }
  }
}

struct Places {
  std::int32_t middle[kTileColumns], scanned[kTileColumns];
};

FASTSDM_INLINE void write_row(const std::int32_t* from, Index count, bool stream, std::int32_t* into) {
  if (count < Ints::lanes) {
    std::memcpy(into, from, static_cast<std::size_t>(count) * sizeof *from);
  } else if (stream) {
    Ints::load(from).stream(into);
  } else {
    Ints::load(from).store(into);
  }
}

FASTSDM_INLINE void write_indices(const std::int32_t* row, const std::int32_t* middle, const std::int32_t* scanned,
                                  Index count, Index to, const NearestStep& step) {
  write_row(row, count, step.stream, step.row + to);
  if (step.middle) write_row(middle, count, step.stream, step.middle + to);
  write_row(scanned, count, step.stream, step.scanned + to);
}

// Writes a row of relaxed words: as they are, or as indices.
FASTSDM_INLINE void write_near(const std::int32_t* strip, Index row, Index column, Index count, Index to,
                               const NearestStep& step, const Places& places) {
  if (step.words) return write_row(strip, count, false, step.words + to);
  std::int32_t rows[Ints::lanes], middle[Ints::lanes], scanned[Ints::lanes];
  const auto here = static_cast<std::int32_t>(row);
  const std::int32_t none_above = step.none_above;
  for (Index x = 0; x < Ints::lanes; ++x) {
    const std::int32_t word = magnitude_of(strip[x]), none = word > none_above ? -1 : 0;
    rows[x] = (here + near_steps(word, 2)) | none;
    middle[x] = (places.middle[column + x] + near_steps(word, 1)) | none;
    scanned[x] = (places.scanned[column + x] + near_steps(word, 0)) | none;
  }
  write_indices(rows, middle, scanned, count, to, step);
}

// Writes a row whose answers came from the rows in `strip`: as words, or with `last` as indices. Loops without a
// branch become vectors.
template <bool last>
FASTSDM_INLINE void write_far(const std::int32_t* strip, const Tile& tile, Index row, Index column, Index count,
                              Index to, const NearestStep& step, const Places& places) {
  constexpr int L = static_cast<int>(Ints::lanes);
  std::int32_t at[L], words[L], middle[L], scanned[L];
  const auto here = static_cast<std::int32_t>(row), stride = static_cast<std::int32_t>(tile.stride);
  for (int x = 0; x < L; ++x) at[x] = (strip[x] & ~(strip[x] >> 31)) * stride + x;
  gather(tile.words + column, at, words);
  const std::int32_t* const own = tile.words + row * tile.stride + column;
  for (int x = 0; x < L; ++x) {
    // A voxel of the other phase is itself the nearest one.
    const std::int32_t same = ((own[x] ^ words[x]) >> 31 & 1) - 1, word = magnitude_of(words[x]);
    middle[x] = steps_of(word, 1) & same;
    scanned[x] = steps_of(word, 0) & same;
  }
  if (last) {
    for (int x = 0; x < L; ++x) {
      const std::int32_t none = strip[x] >> 31;
      middle[x] = (places.middle[column + x] + middle[x]) | none;
      scanned[x] = (places.scanned[column + x] + scanned[x]) | none;
    }
    return write_indices(strip, middle, scanned, count, to, step);
  }
  const float near_squares = step.near_squares, weight = step.weight;
  for (int x = 0; x < L; ++x) {
    const std::int32_t none = strip[x] >> 31, steps = strip[x] - here;
    const float square = static_cast<float>(scanned[x] * scanned[x]) + weight * static_cast<float>(steps * steps);
    const float whole = square < near_squares ? square : 0.0f;
    const std::int32_t near =
        static_cast<std::int32_t>(whole) * (1 << kSquareShift) + steps * (1 << kStepBits) + scanned[x];
    const std::int32_t known = square < near_squares ? near : far_word(steps, scanned[x]);
    const std::int32_t magnitude = chosen(none, kNoneWord, known);
    words[x] = own[x] < 0 ? -magnitude : magnitude;
  }
  write_row(words, count, false, step.words + to);
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

void nearest_columns(const Tile& tile, Index count, const Axis& axis, const NearestStep& step, void* scratch) {
  constexpr Index L = Ints::lanes;
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
  auto* const flags = reinterpret_cast<std::uint8_t*>(split + 2 * (rows + blocks) * L);
  std::memset(flags, 1, static_cast<std::size_t>(blocks * (kTileColumns / L)));
  for (Index x = 0; x < count; x += L) {
    std::int32_t* const strip = strips + x * rows;
    std::uint8_t* const of_strip = flags + x / L * blocks;
    if (step.before && !relax_words(tile.words + x, tile.stride, axis, step, strip, split, of_strip)) continue;
    search_strip(tile, x, axis, step, of_strip, reinterpret_cast<float*>(split), strip);
  }
  for (Index row = 0; row < length; ++row) {
    for (Index x = 0; x < count; x += L) {
      const std::int32_t* const strip = strips + x * rows + row * L;
      const Index to = row * axis.stride + x;
      if (flags[x / L * blocks + row / kBlock]) {
        if (step.words) {
          write_far<false>(strip, tile, row, x, count - x, to, step, places);
        } else {
          write_far<true>(strip, tile, row, x, count - x, to, step, places);
        }
      } else {
        write_near(strip, row, x, count - x, to, step, places);
      }
    }
  }
  if (step.stream) Ints::end_stream();
}
