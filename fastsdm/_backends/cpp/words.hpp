// Words of the search for nearest voxels. Part of kernel.cpp, inside its namespace.
//
// Between the passes a word stands for each voxel, negative inside. Its magnitude holds where the nearest voxel
// of the other phase is, as far as the axes are known, in one of two forms. The near form begins with the
// square, so that the lesser word is the nearer voxel, and adding the cost of steps along one more axis, with the
// steps themselves in bits still 0, gives the word of a voxel seen from there:
//
//     0 | square, 12 bits | steps along the first, middle and scanned axis, 6 bits each
//     1 | steps along the middle and the scanned axis, 15 bits each, in two's complement
//
// The 6 bits are 2 k for k steps towards higher indices, 2 k - 1 for k towards lower ones: of two equally near
// voxels the fewer steps win, then the lower index.

constexpr int kStepBits = 6, kFarBits = 15;
static_assert(kSquareShift == 3 * kStepBits, "");
constexpr std::int32_t kStepMask = (1 << kStepBits) - 1;
constexpr std::int32_t kFar = 1 << 30, kNoSteps = 1 << (kFarBits - 1);
constexpr std::int32_t kNoneWord = kFar | kNoSteps << kFarBits;

inline std::int32_t step_code(std::int32_t steps) { return steps < 0 ? -2 * steps - 1 : 2 * steps; }
inline std::int32_t steps_of(std::int32_t code) { return (code >> 1 & kStepMask >> 1) ^ -(code & 1); }
inline std::int32_t far_word(std::int32_t middle, std::int32_t scanned) {
  constexpr std::int32_t mask = (1 << kFarBits) - 1;
  return kFar | (middle & mask) << kFarBits | (scanned & mask);
}
inline std::int32_t magnitude_of(std::int32_t word) { return word < 0 ? -word : word; }
// Of magnitudes. Without a branch: none could be foretold.
inline std::int32_t far_mask(std::int32_t word) { return -(word >> 30); }
inline std::int32_t chosen(std::int32_t mask, std::int32_t a, std::int32_t b) { return (a & mask) | (b & ~mask); }
inline std::int32_t middle_steps(std::int32_t word) {
  const auto shifted = static_cast<std::int32_t>(static_cast<std::uint32_t>(word) << (32 - 2 * kFarBits));
  return chosen(far_mask(word), shifted >> (32 - kFarBits), steps_of(word >> kStepBits));
}
inline std::int32_t scanned_steps(std::int32_t word) {
  const auto shifted = static_cast<std::int32_t>(static_cast<std::uint32_t>(word) << (32 - kFarBits));
  return chosen(far_mask(word), shifted >> (32 - kFarBits), steps_of(word));
}

void fill_scan_words(Index width, Index near_squares, std::int32_t* const (&tables)[4]) {
  for (Index k = 1; k <= width; ++k) {
    const auto steps = static_cast<std::int32_t>(k);
    const bool near = k <= kNearSteps && k * k < near_squares;
    const std::int32_t square = near ? steps * steps << kSquareShift : 0;
    const std::int32_t left = near ? square | step_code(-steps) : far_word(0, -steps);
    const std::int32_t right = near ? square | step_code(steps) : far_word(0, steps);
    tables[0][k - 1] = left;
    tables[1][k - 1] = -left;
    tables[2][width - k] = right;
    tables[3][width - k] = -right;
  }
}

void fill_near_costs(Index rows, Index square, Index near_squares, bool last, std::int32_t* before,
                     std::int32_t* after) {
  constexpr Index L = Ints::lanes;
  const int shift = last ? 2 * kStepBits : kStepBits;
  for (Index k = 0; k < rows; ++k) {
    const auto steps = static_cast<std::int32_t>(k);
    std::int32_t costs[2] = {kNearInfinity, kNearInfinity};
    if (k <= kNearSteps && k * k * square < near_squares) {
      const std::int32_t squares = static_cast<std::int32_t>(k * k * square) << kSquareShift;
      costs[0] = squares | step_code(-steps) << shift;
      costs[1] = squares | step_code(steps) << shift;
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
      for (Index x = 0; x < width; ++x) words[x] = own ? -kNoneWord : kNoneWord;
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
