// Masks and their surfaces as bits, 64 voxels a word. Part of surface.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "surface.hpp"

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

// Writes what `inside` says of each element of a row, 0 or 1.
template <class T, class Inside>
void mark_row(const void* data, Index width, Index stride, Inside inside, std::uint8_t* bytes) {
  const T* const row = static_cast<const T*>(data);
  if (stride == 1) {
    for (Index x = 0; x < width; ++x) bytes[x] = inside(row[x]);
  } else {
    for (Index x = 0; x < width; ++x) bytes[x] = inside(row[x * stride]);
  }
}

template <class T>
void match_strided(const void* row, Index width, Index stride, const ClassPattern& pattern, std::uint8_t* bytes) {
  const T low = static_cast<T>(pattern.low), span = static_cast<T>(pattern.span);
  mark_row<T>(row, width, stride, [=](T value) { return static_cast<T>(value - low) <= span; }, bytes);
}

// Returns whether the row holds NaN.
template <class T>
bool mark_floats(const void* row, Index width, Index stride, std::uint8_t* bytes) {
  bool is_nan = false;
  const auto inside = [&](T value) {
    is_nan |= value != value;
    return value > T{0.5};
  };
  mark_row<T>(row, width, stride, inside, bytes);
  return is_nan;
}

void pack(const std::uint8_t* bytes, Index width, Word* words) {
  for (Index x = 0; x < width; x += 8) {
    Word eight = 0;
    for (int i = 0; i < 8; ++i) eight |= static_cast<Word>(bytes[x + i]) << (8 * i);
    // Moves the lowest bit of byte i to bit 56 + i; no two products meet.
    words[x / kBits] |= (eight * 0x0102040810204080u >> 56) << (x % kBits);
  }
}

class Reader {
 public:
  Reader(const Channels& channels, Index width, const Kernel& kernel)
      : channels_(channels),
        width_(width),
        match_row_(kernel.match_row[channels.element_bytes == 8 ? 3 : channels.element_bytes / 2]) {}

  // Returns whether the row holds NaN.
  bool read(Index channel, const std::optional<ClassPattern>& pattern, Index z, Index y, std::uint8_t* bytes,
            Word* words) const {
    if (!channels_.floats && !pattern) return false;
    bool is_nan = false;
    const auto& strides = channels_.strides;
    const Index first = channel * strides[0] + z * strides[1] + y * strides[2], stride = strides[3];
    const void* const row = static_cast<const unsigned char*>(channels_.data) + first * channels_.element_bytes;
    if (channels_.floats) {
      is_nan =
          (channels_.element_bytes == 4 ? mark_floats<float> : mark_floats<double>)(row, width_, stride, bytes);
    } else if (stride == 1) {
      match_row_(row, pattern->low, pattern->span, width_, bytes);
    } else {
      constexpr decltype(&match_strided<std::uint8_t>) match[] = {
          match_strided<std::uint8_t>, match_strided<std::uint16_t>, match_strided<std::uint32_t>,
          match_strided<std::uint64_t>};
      match[channels_.element_bytes == 8 ? 3 : channels_.element_bytes / 2](row, width_, stride, *pattern, bytes);
    }
    pack(bytes, width_, words);
    return is_nan;
  }

 private:
  const Channels& channels_;
  Index width_;
  Kernel::MatchRow match_row_;
};

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
