// The first axis: scans of a row's labels. Part of kernel.cpp, which includes it after its vectors.
#pragma once

#include <cstring>
#include <limits>

#include "kernel.hpp"

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

namespace fastsdm::FASTSDM_ISA {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline Index least(Index a, Index b) { return a < b ? a : b; }
inline Index greatest(Index a, Index b) { return a > b ? a : b; }

template <class T>
void match_row(const void* labels, std::uint64_t low, std::uint64_t span, Index width, std::uint8_t* phase) {
  const T* row = static_cast<const T*>(labels);
  const T first = static_cast<T>(low), last = static_cast<T>(span);
  for (Index x = 0; x < width; ++x) phase[x] = static_cast<T>(row[x] - first) <= last;
}

// Eight bytes, the first of them lowest.
inline std::uint64_t load_bytes(const std::uint8_t* bytes) {
  std::uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return word;
}

inline int lowest_bit(std::uint64_t word) {
#if defined(_MSC_VER) && !defined(__clang__)
  unsigned long bit;
  _BitScanForward64(&bit, word);
  return static_cast<int>(bit);
#else
  return __builtin_ctzll(word);
#endif
}

// Fills the part of the run [begin, end) of one phase that lies within [from, to): squares of the distance to
// the run's nearer end, where an end that is open counts as infinitely far. `row` begins at `from`.
inline void fill_run(float* row, Index begin, Index end, bool open_begin, bool open_end, bool inside, float cap,
                     Index from, Index to) {
  constexpr Index L = Floats::lanes;
  const Index first = greatest(begin, from), last = least(end, to);
  const float past_begin = open_begin ? kInfinity : static_cast<float>(first - begin + 1);
  const float before_end = open_end ? kInfinity : static_cast<float>(end - first);
  Floats from_begin = add(Floats::iota(), Floats::splat(past_begin));
  Floats to_end = subtract(Floats::splat(before_end), Floats::iota());
  const Floats step = Floats::splat(static_cast<float>(L));
  const Floats sign = Floats::splat(inside ? -1.0f : 1.0f);
  const Floats most = Floats::splat(cap);
  for (Index x = first; x < last; x += L) {
    const Floats distance = min(from_begin, to_end);
    const Floats squares = multiply(min(multiply(distance, distance), most), sign);
    if (x + L <= to) {
      squares.store(row + x - from);
    } else {
      float tail[L];
      squares.store(tail);
      std::memcpy(row + x - from, tail, static_cast<std::size_t>(to - x) * sizeof(float));
    }
    from_begin = add(from_begin, step);
    to_end = subtract(to_end, step);
  }
}

unsigned scan_row(std::uint8_t* phase, Index width, float cap, Index from, Index to, float* row) {
  std::memset(phase + width, phase[width - 1], kPhasePadding);
  Index begin = 0;
  for (Index x = 0; x < width; x += 8) {
    // Bytes are 0 or 1: each bit left by the comparison is an edge.
    std::uint64_t edges = load_bytes(phase + x) ^ load_bytes(phase + x + 1);
    for (; edges != 0; edges &= edges - 1) {
      const Index end = x + lowest_bit(edges) / 8 + 1;
      fill_run(row, begin, end, begin == 0, false, phase[begin] != 0, cap, from, to);
      begin = end;
    }
  }
  fill_run(row, begin, width, begin == 0, true, phase[begin] != 0, cap, from, to);
  return begin > 0 ? kInside | kOutside : phase[0] != 0 ? kInside : kOutside;
}

// ---- instances ------------------------------------------------------------------------------------------
//
// Among instances every label is a phase of its own. A row is scanned run by run, as above. Along a further axis
// all labels are relaxed as one phase: the candidate of a voxel of another label should be cost[|i - j|] alone,
// so with that voxel's own squares it is only farther than it could be. What this misses is the voxel of
// another label that comes first up or down the column; beyond it none is nearer. So the answers are lowered
// to the cost of the nearest change of label along the column afterwards.

template <class T>
void scan_instances(const void* labels, std::uint64_t background, Index width, float cap, bool border,
                    std::uint8_t* edges, float* row) {
  const T* const label = static_cast<const T*>(labels);
  const T none = static_cast<T>(background);
  for (Index x = 0; x + 1 < width; ++x) edges[x] = label[x] != label[x + 1];
  std::memset(edges + width - 1, 0, kPhasePadding);
  Index begin = 0;
  const auto fill = [&](Index end) {
    if (label[begin] == none) {
      std::memset(row + begin, 0, static_cast<std::size_t>(end - begin) * sizeof(float));
    } else {
      const bool open_begin = begin == 0 && !border, open_end = end == width && !border;
      fill_run(row, begin, end, open_begin, open_end, false, cap, 0, width);
    }
    begin = end;
  };
  for (Index x = 0; x < width; x += 8) {
    std::uint64_t bits = load_bytes(edges + x);
    for (; bits != 0; bits &= bits - 1) fill(x + lowest_bit(bits) / 8 + 1);
  }
  fill(width);
}

// One sweep along the columns, in the direction of `stride`: `steps` counts from the last change of label.
template <bool squares, class T>
inline void sweep_changes(const T* labels, Index count, Index length, Index stride, float cost, float start,
                          float* field) {
  float steps[kTileColumns];
  for (Index x = 0; x < count; ++x) steps[x] = start;
  for (Index row = 0; row < length; ++row, labels += stride, field += stride) {
    const T* const before = row == 0 ? labels : labels - stride;
    for (Index x = 0; x < count; ++x) {
      steps[x] = (labels[x] == before[x] ? steps[x] : 0.0f) + 1.0f;
      const float change = (squares ? steps[x] * steps[x] : steps[x]) * cost;
      field[x] = change < field[x] ? change : field[x];
    }
  }
}

template <class T>
void lower_to_changes(const void* labels, Index count, Index length, Index stride, bool squares, float cost,
                      bool border, float* field) {
  const T* const first = static_cast<const T*>(labels);
  const auto sweep = squares ? sweep_changes<true, T> : sweep_changes<false, T>;
  const float start = border ? 0.0f : kInfinity;
  const Index last = (length - 1) * stride;
  sweep(first, count, length, stride, cost, start, field);
  sweep(first + last, count, length, -stride, cost, start, field + last);
}

}  // namespace
}  // namespace fastsdm::FASTSDM_ISA
