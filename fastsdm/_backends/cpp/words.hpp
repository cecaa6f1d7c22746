// Words of the search for nearest voxels. Part of kernel.cpp, inside its namespace.
//
// Between the passes a word stands for each voxel, negative inside. Its magnitude says where the nearest voxel of
// the other phase is, as far as the axes are known, in one of two forms. Far words are those with bit 30 set:
//
//     near  square << 18 + steps along the first axis << 12 + middle << 6 + scanned, steps from -31 to 31
//     far   1 << 30 | steps along the middle and the scanned axis, 15 bits each, in two's complement
//
// Of near words the lesser one is the nearer voxel and, of equally near ones, the one with the lower index along
// the first axis, then the middle, then the scanned one. Adding the square and the steps along one more axis
// gives the word of a voxel seen from there.

constexpr int kStepBits = 6, kFarBits = 15;
static_assert(kSquareShift == 3 * kStepBits, "");
constexpr std::int32_t kHalf = 1 << (kStepBits - 1);
// Makes the steps of a near word positive.
constexpr std::uint32_t kHalves = kHalf << 2 * kStepBits | kHalf << kStepBits | kHalf;
constexpr std::int32_t kFar = 1 << 30;

// `axis` counts from the scanned one.
inline std::int32_t near_steps(std::int32_t word, int axis) {
  const std::uint32_t fields = static_cast<std::uint32_t>(word) + kHalves;  // a far word may wrap around
  return static_cast<std::int32_t>(fields >> axis * kStepBits & (2 * kHalf - 1)) - kHalf;
}
inline std::int32_t far_steps(std::int32_t word, int axis) {
  const auto bits = static_cast<std::uint32_t>(word) << (32 - (axis + 1) * kFarBits);
  return static_cast<std::int32_t>(bits) >> (32 - kFarBits);
}
inline std::int32_t far_word(std::int32_t middle, std::int32_t scanned) {
  constexpr std::int32_t mask = (1 << kFarBits) - 1;
  return kFar | (middle & mask) << kFarBits | (scanned & mask);
}
inline std::int32_t magnitude_of(std::int32_t word) { return word < 0 ? -word : word; }
// Without a branch: none could be foretold.
inline std::int32_t chosen(std::int32_t mask, std::int32_t a, std::int32_t b) { return (a & mask) | (b & ~mask); }
// Of a magnitude of either form.
inline std::int32_t steps_of(std::int32_t word, int axis) {
  return chosen(-(word >> 30), far_steps(word, axis), near_steps(word, axis));
}

void fill_scan_words(Index width, Index near_squares, bool both, std::int32_t* const (&tables)[4]) {
  for (Index k = 1; k <= width; ++k) {
    const auto steps = static_cast<std::int32_t>(k);
    const bool near = k <= kNearSteps && k * k < near_squares;
    const std::int32_t square = near ? steps * steps << kSquareShift : 0;
    const std::int32_t left = near ? square - steps : far_word(0, -steps);
    const std::int32_t right = near ? square + steps : far_word(0, steps);
    tables[0][k - 1] = left;
    tables[1][k - 1] = both ? -left : 0;
    tables[2][width - k] = right;
    tables[3][width - k] = both ? -right : 0;
  }
}

void fill_near_costs(Index rows, Index square, Index near_squares, bool last, std::int32_t* before,
                     std::int32_t* after) {
  constexpr Index L = Ints::lanes;
  const int shift = last ? 2 * kStepBits : kStepBits;
  for (Index k = 0; k < rows; ++k) {
    std::int32_t costs[2] = {kNearInfinity, kNearInfinity};
    if (k <= kNearSteps && k * k * square < near_squares) {
      const std::int32_t squares = static_cast<std::int32_t>(k * k * square) << kSquareShift;
      costs[0] = squares - (static_cast<std::int32_t>(k) << shift);
      costs[1] = squares + (static_cast<std::int32_t>(k) << shift);
    }
    Ints::splat(costs[0]).store(before + k * L);
    Ints::splat(costs[1]).store(after + k * L);
  }
}

inline void copy_words(const std::int32_t* from, Index count, Index room, std::int32_t* to) {
  constexpr Index L = Ints::lanes;
  for (Index x = 0; x < count; x += L) {
    if (x + L <= room) {
      Ints::load(from + x).store(to + x);  // what it writes past `count` is written again
    } else {
      for (Index i = x; i < count; ++i) to[i] = from[i];
    }
  }
}

unsigned scan_nearest(std::uint8_t* phase, Index width, const ScanWords& tables, std::int32_t* words) {
  std::memset(phase + width, phase[width - 1], kPhasePadding);
  Index begin = 0;
  const auto fill = [&](Index end) {
    const int own = phase[begin];
    // Up to `half` the nearer end is the left one.
    Index half = (begin + end + 1) / 2;
    if (begin == 0) half = begin;
    if (end == width) half = end;
    if (begin == 0 && end == width) {
      for (Index x = 0; x < width; ++x) words[x] = tables.none[own];
    } else {
      copy_words(tables.left[own], half - begin, width - begin, words + begin);
      copy_words(tables.right[own] + width - (end - half), end - half, width - half, words + half);
    }
    begin = end;
  };
  for (Index x = 0; x < width; x += 8) {
    std::uint64_t edges = load_bytes(phase + x) ^ load_bytes(phase + x + 1);
    for (; edges != 0; edges &= edges - 1) fill(x + lowest_bit(edges) / 8 + 1);
  }
  const unsigned last = phase[begin] != 0 ? kInside : kOutside, seen = begin > 0 ? kInside | kOutside : last;
  fill(width);
  return seen;
}
