// Masks and their surfaces as bits, 64 voxels a word. Part of surface.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "surface.hpp"

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

namespace fastsdm {
namespace {

using Word = std::uint64_t;
constexpr Index kBits = 64;

inline Index lowest(Word word) {
#if defined(_MSC_VER) && !defined(__clang__)
  unsigned long bit;
  _BitScanForward64(&bit, word);
  return static_cast<Index>(bit);
#else
  return __builtin_ctzll(word);
#endif
}

inline Index highest(Word word) {
#if defined(_MSC_VER) && !defined(__clang__)
  unsigned long bit;
  _BitScanReverse64(&bit, word);
  return static_cast<Index>(bit);
#else
  return 63 - __builtin_clzll(word);
#endif
}

// A volume of bits; every row has a word of zeros before and behind it.
struct BitVolume {
  std::array<Index, 3> shape;
  Index words;  // of a row, without the two
  std::vector<Word> storage;

  explicit BitVolume(const std::array<Index, 3>& shape)
      : shape(shape),
        words((shape[2] + kBits - 1) / kBits),
        storage(static_cast<std::size_t>(shape[0] * shape[1] * (words + 2))) {}

  Index rows() const { return shape[0] * shape[1]; }
  Index pitch() const { return words + 2; }
  Word* row(Index number) { return storage.data() + number * pitch() + 1; }
  const Word* row(Index number) const { return storage.data() + number * pitch() + 1; }
};

// ---- from labels to bits --------------------------------------------------------------------------------

inline void prefetch(const void* place) {
#if defined(__SSE2__) || defined(_M_X64)
  _mm_prefetch(static_cast<const char*>(place), _MM_HINT_T0);
#elif defined(__GNUC__)
  __builtin_prefetch(place);
#endif
}

// One bit of each of 64 bytes, which hold nothing above bit 1.
template <int bit>
Word packed(const std::uint8_t* bytes) {
  Word word = 0;
#if defined(__SSE2__) || defined(_M_X64)
  for (int i = 0; i < 4; ++i) {
    const __m128i sixteen = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes) + i);
    word |= static_cast<Word>(_mm_movemask_epi8(_mm_slli_epi16(sixteen, 7 - bit))) << (16 * i);
  }
#else
  for (int i = 0; i < 64; i += 8) {
    Word eight = 0;
    for (int j = 0; j < 8; ++j) eight |= static_cast<Word>(bytes[i + j] >> bit & 1) << (8 * j);
    // Moves the lowest bit of byte j to bit 56 + j; no two products meet.
    word |= (eight * 0x0102040810204080u >> 56) << i;
  }
#endif
  return word;
}

struct Marks {
  alignas(16) std::uint8_t bytes[kBits] = {};
};

// Marks up to 64 elements of a row.
template <class T, class Mark>
Marks marks_of(const void* data, Index count, Index stride, Mark mark) {
  const T* const row = static_cast<const T*>(data);
  Marks marks;
  if (stride == 1) {
    for (Index x = 0; x < count; ++x) marks.bytes[x] = mark(row[x]);
    return marks;
  }
  Index x = 0;
  for (; x + 8 <= count; x += 8) {
    for (Index i = 0; i < 8; i += 2) prefetch(row + (x + i + kBits) * stride);
    for (Index i = 0; i < 8; ++i) marks.bytes[x + i] = mark(row[(x + i) * stride]);
  }
  for (; x < count; ++x) marks.bytes[x] = mark(row[x * stride]);
  return marks;
}

// Which of up to 64 elements of a row are inside; sets `is_nan` if one is NaN.
using ReadBits = Word (*)(const void* row, Index count, Index stride, const ClassPattern& pattern, bool& is_nan);

template <class T>
Word integer_bits(const void* row, Index count, Index stride, const ClassPattern& pattern, bool&) {
  const T low = static_cast<T>(pattern.low), span = static_cast<T>(pattern.span);
  const auto mark = [=](T value) { return static_cast<T>(value - low) <= span; };
  return packed<0>(marks_of<T>(row, count, stride, mark).bytes);
}

template <class T>
Word float_bits(const void* row, Index count, Index stride, const ClassPattern&, bool& is_nan) {
  const Marks marks =
      marks_of<T>(row, count, stride, [](T value) { return (value > T{0.5}) | (value != value) << 1; });
  is_nan |= packed<1>(marks.bytes) != 0;
  return packed<0>(marks.bytes);
}

inline ReadBits read_bits_of(const Channels& channels) {
  if (channels.floats) return channels.element_bytes == 4 ? float_bits<float> : float_bits<double>;
  switch (channels.element_bytes) {
    case 1:
      return integer_bits<std::uint8_t>;
    case 2:
      return integer_bits<std::uint16_t>;
    case 4:
      return integer_bits<std::uint32_t>;
    default:
      return integer_bits<std::uint64_t>;
  }
}

// ---- from bits to surfaces ------------------------------------------------------------------------------

inline Word from_left(const Word* word) { return word[0] << 1 | word[-1] >> 63; }
inline Word from_right(const Word* word) { return word[0] >> 1 | word[1] << 63; }

// Row (z, y) of the surface's grid. Outside of the volume lie zeros.
void find_surface(const BitVolume& mask, bool planar, bool between, Index z, Index y, const Word* zeros,
                  Word* surface, Index words) {
  const Index depth = mask.shape[0], height = mask.shape[1];
  const auto row = [&](Index z, Index y) {
    return z < 0 || z >= depth || y < 0 || y >= height ? zeros : mask.row(z * height + y);
  };
  if (!between) {
    const Word *own = row(z, y), *above = row(z, y - 1), *below = row(z, y + 1);
    const Word* const before = planar ? own : row(z - 1, y);
    const Word* const behind = planar ? own : row(z + 1, y);
    for (Index i = 0; i < words; ++i) {
      const Word within = from_left(own + i) & from_right(own + i) & above[i] & below[i] & before[i] & behind[i];
      surface[i] = own[i] & ~within;
    }
    return;
  }
  const Word* const rows[4] = {row(z, y - 1), row(z, y), row(z - 1, y - 1), row(z - 1, y)};
  for (Index i = 0; i < words; ++i) {
    Word some = 0, all = ~Word{0};
    for (int corner = 0; corner < (planar ? 2 : 4); ++corner) {
      const Word right = rows[corner][i], left = from_left(rows[corner] + i);
      some |= left | right;
      all &= left & right;
    }
    surface[i] = some & ~all;
  }
}

// Corner bits of the cell whose last corner is voxel (z, y, x): the last axis first.
std::uint8_t code_of(const BitVolume& mask, bool planar, Index z, Index y, Index x) {
  unsigned code = 0, bit = 0;
  for (Index dz = planar ? 1 : 0; dz < 2; ++dz) {
    for (Index dy = 0; dy < 2; ++dy) {
      for (Index dx = 0; dx < 2; ++dx, ++bit) {
        const Index at[3] = {planar ? z : z - 1 + dz, y - 1 + dy, x - 1 + dx};
        bool inside = true;
        for (std::size_t axis = 0; axis < 3; ++axis)
          inside = inside && at[axis] >= 0 && at[axis] < mask.shape[axis];
        if (!inside) continue;
        code |= static_cast<unsigned>(mask.row(at[0] * mask.shape[1] + at[1])[at[2] / kBits] >> at[2] % kBits & 1)
                << bit;
      }
    }
  }
  return static_cast<std::uint8_t>(code);
}

template <class Visit>
void each_bit(const Word* row, Index words, Visit visit) {
  for (Index i = 0; i < words; ++i) {
    for (Word rest = row[i]; rest != 0; rest &= rest - 1) visit(i * kBits + lowest(rest));
  }
}

}  // namespace
}  // namespace fastsdm
