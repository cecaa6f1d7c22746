// Signed distance maps of a batch of label volumes, on threads.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernel.hpp"

namespace fastsdm {

// Which voxels belong to a class: those whose bits, read as an unsigned number, lie in [low, low + span]. In two's
// complement the numbers above 0 are such a range as well.
struct ClassPattern {
  std::uint64_t low;
  std::uint64_t span;
};

struct Sample {
  std::array<double, 3> spacing;
  double shift;    // is taken off the distances inside
  double missing;  // magnitude that stands for an infinite distance
};

inline bool operator==(const Sample& a, const Sample& b) {
  return a.spacing == b.spacing && a.shift == b.shift && a.missing == b.missing;
}

struct Problem {
  const void* labels;  // [batch, shape...], contiguous
  int label_bytes;     // 1, 2, 4 or 8
  Index batch;
  std::array<Index, 3> shape;
  std::vector<std::optional<ClassPattern>> classes;  // none: no voxel belongs to it
  std::vector<Sample> samples;                       // [batch]
  double max_distance;                               // distances beyond it need not be exact
  bool both_sides;             // the shift is taken off the distances on both sides, not only inside
  double limit;                // the map is cut to [-limit, limit]
  std::array<Index, 3> first;  // voxel of the volume that the map begins with ...
  std::array<Index, 3> size;   // ... and the map's shape: the whole volume, or a region of it
  float* maps;                 // [batch, classes, size...], contiguous
};

// Names of the instruction sets this CPU can run, best first.
std::vector<std::string> supported_isas();

// Throws std::invalid_argument for an instruction set the CPU cannot run, std::bad_alloc for want of memory.
void signed_distance(const Problem& problem, int threads, const std::optional<std::string>& isa);

}  // namespace fastsdm
