// The search for the nearest bit of a volume, in the order of the rows' distance. Part of surface.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "surface_bits.hpp"
#include "workspace.hpp"

namespace fastsdm {
namespace {

// Neighbouring rows in the table; beyond it rows are looked for one by one.
constexpr Index kMostNeighbours = 4096;

// Steps from x to the row's nearest bit; kBits if it has none within fewer steps.
inline Index steps_nearby(const Word* row, Index x) {
  const Index i = x / kBits, shift = x % kBits;
  const Word right = row[i] >> shift | row[i + 1] << 1 << (63 - shift);
  const Word left = row[i] << (63 - shift) | row[i - 1] >> 1 >> shift;
  return std::min(right != 0 ? lowest(right) : kBits, left != 0 ? 63 - highest(left) : kBits);
}

// Steps from x to the nearest bit in other words of the row; negative if there is none.
inline Index steps_beyond(const Word* row, Index words, Index x) {
  Index steps = -1;
  for (Index j = x / kBits + 1; j < words; ++j) {
    if (row[j] == 0) continue;
    steps = j * kBits + lowest(row[j]) - x;
    break;
  }
  for (Index j = x / kBits - 1; j >= 0; --j) {
    if (row[j] == 0) continue;
    const Index other = x - (j * kBits + highest(row[j]));
    return steps < 0 ? other : std::min(steps, other);
  }
  return steps;
}

struct Neighbour {
  double square;
  std::int32_t z, y;
};

class Search {
 public:
  Search(const std::array<Index, 3>& shape, const std::array<double, 3>& spacing)
      : shape_(shape), spacing_(spacing) {
    // Rows within an ellipse that holds about as many as the table may.
    const double most = static_cast<double>(kMostNeighbours) / 3.14159 * spacing[0] * spacing[1];
    reach_ = most;
    const auto steps = [&](int axis) {
      return std::min<Index>(static_cast<Index>(std::sqrt(most) / spacing[axis]), shape[axis] - 1);
    };
    for (Index z = -steps(0); z <= steps(0); ++z) {
      for (Index y = -steps(1); y <= steps(1); ++y) {
        const double square = squared(0, z) + squared(1, y);
        if (square <= most) table_.push_back({square, static_cast<std::int32_t>(z), static_cast<std::int32_t>(y)});
      }
    }
    std::sort(table_.begin(), table_.end(),
              [](const Neighbour& a, const Neighbour& b) { return a.square < b.square; });
  }

  // Squared distance to the nearest bit, infinite where there is none; adds to `looked` the rows it looked at.
  double square(const BitVolume& other, Index z, Index y, Index x, Index& looked) const {
    double best = kInfinity;
    for (const Neighbour& neighbour : table_) {
      if (neighbour.square >= best) return best;
      look(other, z + neighbour.z, y + neighbour.y, x, neighbour.square, best, looked);
    }
    if (best <= reach_) return best;
    for (Index dz = 0; dz < shape_[0] && squared(0, dz) < best; ++dz) {
      for (Index dy = 0; dy < shape_[1] && squared(0, dz) + squared(1, dy) < best; ++dy) {
        const double square = squared(0, dz) + squared(1, dy);
        if (square <= reach_) continue;
        look(other, z + dz, y + dy, x, square, best, looked);
        if (dy > 0) look(other, z + dz, y - dy, x, square, best, looked);
        if (dz > 0) look(other, z - dz, y + dy, x, square, best, looked);
        if (dz > 0 && dy > 0) look(other, z - dz, y - dy, x, square, best, looked);
      }
    }
    return best;
  }

 private:
  double squared(std::size_t axis, Index steps) const {
    const double length = static_cast<double>(steps) * spacing_[axis];
    return length * length;
  }
  void look(const BitVolume& other, Index z, Index y, Index x, double square, double& best, Index& looked) const {
    if (z < 0 || z >= shape_[0] || y < 0 || y >= shape_[1]) return;
    ++looked;
    const Word* const row = other.row(z * shape_[1] + y);
    Index steps = steps_nearby(row, x);
    if (steps == kBits) {
      if (square + squared(2, kBits) >= best) return;
      steps = steps_beyond(row, other.words, x);
    }
    if (steps >= 0) best = std::min(best, square + squared(2, steps));
  }

  std::array<Index, 3> shape_;
  std::array<double, 3> spacing_;
  double reach_;  // rows up to this square are in the table
  std::vector<Neighbour> table_;
};

}  // namespace
}  // namespace fastsdm
