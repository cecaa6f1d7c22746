// What every engine takes before its threads start: tables of costs, and memory to work in.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernel.hpp"

namespace fastsdm {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Below this many voxels a thread costs more than it saves.
constexpr Index kVoxelsPerThread = 1 << 15;
// Fewer in one grab would waste it, more would leave the last thread alone.
constexpr Index kVoxelsPerGrain = 1 << 14;

constexpr Index kFloatBytes = sizeof(float);

inline Index round_up(Index n, Index unit) { return (n + unit - 1) / unit * unit; }

// What Kernel::relax_columns asks for; lanes of either width fill the same bytes.
inline Index scratch_bytes(Index length, Index float_lanes) {
  const Index rows = round_up(length, kBlock);
  return (rows * kTileColumns + 2 * (rows + rows / kBlock) * float_lanes) * static_cast<Index>(sizeof(float));
}

// The smallest float not below x.
inline float float_above(double x) {
  if (x > std::numeric_limits<float>::max()) return kInfinity;
  const float nearest = static_cast<float>(x);
  return nearest < x ? std::nextafter(nearest, kInfinity) : nearest;
}

inline bool is_integer(double x) { return x == std::floor(x) && x <= kShortMax; }

// Items that hold `voxels` each, to be grabbed together.
inline Index grain(Index voxels) { return std::max<Index>(1, kVoxelsPerGrain / voxels); }

inline Index useful_threads(Index voxels, int threads) {
  return std::clamp<Index>(voxels / kVoxelsPerThread, 1, std::max(threads, 1));
}

// Costs along one axis, in squares of the scanned axis' spacing. So isotropic squares are exact integers.
class CostTable {
 public:
  CostTable(const Kernel& kernel, Index length, double steps_squared, bool integer) {
    const Index rows = round_up(length, kBlock);
    floats_.resize(static_cast<std::size_t>(rows * kernel.float_lanes));
    shorts_.resize(integer ? static_cast<std::size_t>(rows * kernel.short_lanes) : 0);
    for (Index d = 0; d < rows; ++d) {
      const double cost = static_cast<double>(d) * static_cast<double>(d) * steps_squared;
      std::fill_n(floats_.begin() + d * kernel.float_lanes, kernel.float_lanes, static_cast<float>(cost));
      if (integer) {
        std::fill_n(shorts_.begin() + d * kernel.short_lanes, kernel.short_lanes,
                    static_cast<std::int16_t>(std::min<double>(cost, kShortMax)));
      }
    }
  }

  // `answers` rows of a column of `length`, from row `first` on, are asked for.
  Axis axis(Index length, Index stride, Index first, Index answers) const {
    return {length, stride, first, answers, floats_.data(), shorts_.empty() ? nullptr : shorts_.data()};
  }

 private:
  std::vector<float> floats_;
  std::vector<std::int16_t> shorts_;
};

// Aligned memory that is not initialised.
class Scratch {
 public:
  unsigned char* take(Index bytes) {
    bytes_.reset(new unsigned char[static_cast<std::size_t>(bytes + kScratchAlignment)]);
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.get());
    return bytes_.get() + (kScratchAlignment - static_cast<Index>(address % kScratchAlignment));
  }

 private:
  std::unique_ptr<unsigned char[]> bytes_;
};

// The best kernel of this CPU, or the named one. Throws std::invalid_argument where the CPU cannot run it.
const Kernel& kernel_of(const std::optional<std::string>& isa);

}  // namespace fastsdm
