// The signed pass, written once for every instruction set.
//
// In a signed map a voxel of the other phase is at distance 0, so inside and outside share one field g of
// signed squares (> 0 outside, < 0 inside). The first axis is filled by a scan of the labels; each further
// axis then takes, for the voxel at row i of a column,
//
//     min over rows j of  max(s * g[j], 0) + cost[|i - j|],      s the voxel's own sign.
//
// A minimum over all j would be quadratic. It is cut short by bounds: rows are answered in blocks of eight
// that stay in registers, source rows are opened in blocks of eight going outwards, and a source block is
// opened only if the least value in it plus the cost of the gap can still beat the worst answer so far;
// the search ends when the gap alone cannot. Surfaces are near, so few blocks are opened, and each costs one
// addition and one minimum per candidate. Far from any surface the minima reject blocks for a comparison.
//
// Columns lie `stride` floats apart in memory, so they are copied 64 at a time (whole cache lines) to a tile
// and worked on in strips one vector wide. Where squared costs are integers the strips hold 16-bit lanes:
// twice as many, exact below 32767 (a distance of 181 steps) and saturating there, and a tile that reaches
// the bound is done again with floats from the untouched input, and its neighbours are not tried with shorts.
//
// This file is compiled once for each instruction set: CMakeLists.txt defines FASTSDM_ISA, the namespace that
// holds it all, and FASTSDM_SIMD, the header of the types Floats and Shorts. Nothing here may call a function
// template of the standard library: the linker could keep the copy compiled for the wrong instruction set.
#include "kernel.hpp"

#include <cstring>
#include <limits>

#include FASTSDM_SIMD
#include "scan.hpp"

#define FASTSDM_TEXT_OF(name) #name
#define FASTSDM_TEXT(macro) FASTSDM_TEXT_OF(macro)

#if defined(_MSC_VER) && !defined(__clang__)
#define FASTSDM_INLINE __forceinline
#else
#define FASTSDM_INLINE inline __attribute__((always_inline))
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#define FASTSDM_PREFETCH(address) static_cast<void>(address)
#else
#define FASTSDM_PREFETCH(address) __builtin_prefetch(address)
#endif
#if defined(__clang__)
#define FASTSDM_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define FASTSDM_UNROLL _Pragma("GCC unroll 8")
#else
#define FASTSDM_UNROLL
#endif

namespace fastsdm::FASTSDM_ISA {
namespace {

// As a share of the shift: shifted distances up to it are 0. The same number stands in _conventions.py.
constexpr float kResidue = 1.0f / (1 << 21);

// One phase of a strip: its squares (0 where the other phase is), the least of them in each block, and the
// blocks between which finite ones lie.
template <class V>
struct Phase {
  typename V::T* squares;
  typename V::T* floor;
  Index first;
  Index last;
};

template <class V>
inline V load_row(const typename V::T* rows, Index row) {
  return V::load(rows + row * V::lanes);
}

template <class V>
inline V greatest_of(const V (&v)[kBlock]) {
  return max(max(max(v[0], v[1]), max(v[2], v[3])), max(max(v[4], v[5]), max(v[6], v[7])));
}

// `load(row)` gives a row of signed squares.
template <class V, class Load>
FASTSDM_INLINE void split_phases(const Load& load, Index length, Phase<V>& outside, Phase<V>& inside) {
  const V zero = V::splat(0), never = V::splat(V::infinity);
  Phase<V>* const phases[2] = {&outside, &inside};
  outside.first = inside.first = length;
  outside.last = inside.last = -1;
  for (Index block = 0; block * kBlock < length; ++block) {
    V floor[2] = {never, never};
    for (Index row = block * kBlock; row < (block + 1) * kBlock; ++row) {
      V squares[2] = {never, never};  // rows past the end are no source
      if (row < length) {
        const V g = load(row);
        squares[0] = max(g, zero);
        squares[1] = max(subtract(zero, g), zero);
      }
      for (int p = 0; p < 2; ++p) {
        squares[p].store(phases[p]->squares + row * V::lanes);
        floor[p] = min(floor[p], squares[p]);
      }
    }
    for (int p = 0; p < 2; ++p) {
      floor[p].store(phases[p]->floor + block * V::lanes);
      if (any_less(floor[p], never)) {
        phases[p]->first = least(phases[p]->first, block);
        phases[p]->last = block;
      }
    }
  }
}

// Costs of the steps to a row of lower index, and to one of higher index: in words they also say which.
template <class V>
struct Costs {
  const typename V::T* before;
  const typename V::T* after;
};

// Offers the eight rows of a source block to the eight rows of `best`: `gap` is the distance between the first
// rows of the two, `direction` is +1 where the source lies above, -1 below, 0 for the block itself.
template <int direction, class V>
FASTSDM_INLINE void open_block(const typename V::T* source, const Costs<V>& costs, Index gap, V (&best)[kBlock]) {
  FASTSDM_UNROLL
  for (int j = 0; j < kBlock; ++j) {
    const V squares = load_row<V>(source, j);
    FASTSDM_UNROLL
    for (int i = 0; i < kBlock; ++i) {
      const int steps = direction > 0 ? j - i : direction < 0 ? i - j : i < j ? j - i : i - j;
      if (direction == 0 && i == j) continue;
      const typename V::T* const cost = direction < 0 || (direction == 0 && j < i) ? costs.before : costs.after;
      best[i] = min(best[i], add(squares, load_row<V>(cost, gap + steps)));
    }
  }
}

template <class V>
FASTSDM_INLINE void relax_block(const Phase<V>& phase, Index block, Index rows, const Costs<V>& costs,
                                V (&best)[kBlock]) {
  FASTSDM_UNROLL
  for (int i = 0; i < kBlock; ++i) {
    best[i] = i < rows ? load_row<V>(phase.squares, block * kBlock + i) : V::splat(0);
  }
  V worst = greatest_of(best);
  if (!any_less(load_row<V>(costs.before, 1), worst)) return;
  open_block<0>(phase.squares + block * kBlock * V::lanes, costs, 0, best);
  worst = greatest_of(best);
  for (Index k = greatest(1, greatest(phase.first - block, block - phase.last));; ++k) {
    const Index below = block - k, above = block + k;
    if (below < phase.first && above > phase.last) return;
    const V gap = load_row<V>(costs.before, k * kBlock - (kBlock - 1));
    if (!any_less(gap, worst)) return;
    if (below >= phase.first && any_less(add(load_row<V>(phase.floor, below), gap), worst)) {
      open_block<-1>(phase.squares + below * kBlock * V::lanes, costs, k * kBlock, best);
      worst = greatest_of(best);
    }
    if (above <= phase.last && any_less(add(load_row<V>(phase.floor, above), gap), worst)) {
      open_block<1>(phase.squares + above * kBlock * V::lanes, costs, k * kBlock, best);
      worst = greatest_of(best);
    }
  }
}

// Answers in place the blocks of one strip that hold rows to be answered. False where an answer does not fit
// 16-bit lanes.
template <class V>
bool relax_strip(typename V::T* strip, const Axis& axis, const typename V::T* cost, Phase<V>& outside,
                 Phase<V>& inside) {
  const Index length = axis.length;
  split_phases([strip](Index row) { return load_row<V>(strip, row); }, length, outside, inside);
  V largest = V::splat(0);
  for (Index block = axis.first / kBlock; block * kBlock < axis.first + axis.answers; ++block) {
    const Index rows = least(kBlock, length - block * kBlock);
    V out[kBlock], in[kBlock];
    relax_block<V>(outside, block, rows, {cost, cost}, out);
    relax_block<V>(inside, block, rows, {cost, cost}, in);
    for (Index i = 0; i < rows; ++i) {
      largest = max(largest, max(out[i], in[i]));
      // One of the two is 0.
      subtract(out[i], in[i]).store(strip + (block * kBlock + i) * V::lanes);
    }
  }
  return !any_less(V::splat(kShortMax - 1), largest);
}

inline Floats finished(Floats squares, const Finish& finish) {
  const Floats distance = multiply(root(magnitude(squares)), Floats::splat(finish.unit));
  const Floats map = with_sign_of(min(distance, Floats::splat(finish.reach)), squares);
  // Halves are exact, so these are the two numbers, bit for bit.
  const Floats middle = Floats::splat((finish.inside + finish.outside) / 2);
  const Floats half = Floats::splat((finish.inside - finish.outside) / 2);
  const Floats shift = subtract(middle, with_sign_of(half, squares));
  // A distance within rounding of the shift is the shift: no residue that could have the wrong sign.
  const Floats residue = multiply(magnitude(shift), Floats::splat(kResidue));
  const Floats shifted = zero_up_to(residue, add(map, shift));
  return min(max(shifted, Floats::splat(-finish.limit)), Floats::splat(finish.limit));
}

// The stride defeats the hardware's prefetching: about 5 % of the time at 256^3.
constexpr Index kRowsAhead = 16;
inline void prefetch_row(const float* row, Index count) {
  for (Index x = 0; x < count; x += 16) FASTSDM_PREFETCH(row + x);
}

// Works on one tile of columns. False where an answer does not fit 16-bit lanes; then Shorts have written
// nothing.
template <class V>
bool relax_tile(const float* columns, float* answers, Index count, const Axis& axis, const typename V::T* cost,
                const Finish* finish, void* scratch) {
  using T = typename V::T;
  constexpr Index L = V::lanes;
  const Index length = axis.length, rows = (length + kBlock - 1) / kBlock * kBlock;
  const Index strip_size = rows * L, floor_size = rows / kBlock * L, strips = (count + L - 1) / L;
  T* const tile = static_cast<T*>(scratch);
  T* const split = tile + strips * strip_size;
  Phase<V> outside{split, split + 2 * strip_size, 0, 0};
  Phase<V> inside{split + strip_size, split + 2 * strip_size + floor_size, 0, 0};

  for (Index row = 0; row < length; ++row) {
    const float* const from = columns + row * axis.stride;
    if (row + kRowsAhead < length) prefetch_row(from + kRowsAhead * axis.stride, count);
    for (Index s = 0; s < strips; ++s) {
      float padded[L];
      const Index here = least(L, count - s * L);
      if (here < L) {
        std::memset(padded, 0, sizeof padded);
        std::memcpy(padded, from + s * L, static_cast<std::size_t>(here) * sizeof(float));
      }
      V::from_floats(here < L ? padded : from + s * L).store(tile + s * strip_size + row * L);
    }
  }
  bool fits = true;
  for (Index s = 0; s < strips; ++s) {
    fits &= relax_strip(tile + s * strip_size, axis, cost, outside, inside);
    if (V::saturates && !fits) return false;
  }
  for (Index row = 0; row < axis.answers; ++row) {
    float* const to = answers + row * axis.stride;
    for (Index s = 0; s < strips; ++s) {
      Floats parts[L / Floats::lanes];
      V::load(tile + s * strip_size + (axis.first + row) * L).expand(parts);
      float padded[L];
      const Index here = least(L, count - s * L);
      for (Index p = 0; p < L / Floats::lanes; ++p) {
        const Floats value = finish ? finished(parts[p], *finish) : parts[p];
        value.store((here < L ? padded : to + s * L) + p * Floats::lanes);
      }
      if (here < L) std::memcpy(to + s * L, padded, static_cast<std::size_t>(here) * sizeof(float));
    }
  }
  return fits;
}

void relax_columns(const float* columns, float* answers, Index count, const Axis& axis, const Finish* finish,
                   void* scratch, bool& far) {
  const bool try_shorts = axis.short_cost && !far;
  if (try_shorts && relax_tile<Shorts>(columns, answers, count, axis, axis.short_cost, finish, scratch)) return;
  far = !relax_tile<Floats>(columns, answers, count, axis, axis.float_cost, finish, scratch);
}

#include "words.hpp"
#include "near.hpp"
#include "nearest.hpp"

}  // namespace

extern const Kernel kernel;
const Kernel kernel = {
    FASTSDM_TEXT(FASTSDM_ISA),
    Floats::lanes,
    Shorts::lanes,
    {match_row<std::uint8_t>, match_row<std::uint16_t>, match_row<std::uint32_t>, match_row<std::uint64_t>},
    scan_row,
    {scan_instances<std::uint8_t>, scan_instances<std::uint16_t>, scan_instances<std::uint32_t>,
     scan_instances<std::uint64_t>},
    {lower_to_changes<std::uint8_t>, lower_to_changes<std::uint16_t>, lower_to_changes<std::uint32_t>,
     lower_to_changes<std::uint64_t>},
    relax_columns,
    fill_scan_words,
    fill_near_costs,
    scan_nearest,
    copy_columns,
    nearest_columns,
};

}  // namespace fastsdm::FASTSDM_ISA
