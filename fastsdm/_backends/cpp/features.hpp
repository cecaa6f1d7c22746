// Indices of nearest voxels of the other phase, for a batch of label volumes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine.hpp"

namespace fastsdm {

struct Features {
  const void* labels;  // [batch, shape...], contiguous
  int label_bytes;
  Index batch;
  std::array<Index, 3> shape;  // the last two at most kMostSteps
  std::vector<std::optional<ClassPattern>> classes;
  std::vector<std::array<double, 3>> spacings;  // [batch]
  double max_distance;
  bool planar;            // the middle axis is none of the user's, and has no index
  std::int32_t* indices;  // [batch, classes, 2 or 3, shape...], contiguous; -1 for none
  // Instead of indices, of a single class: [batch, shape...] labels, of a voxel outside that of the nearest voxel
  // inside, all others their own. `indices` then is memory to work in, [shape...].
  void* filled;
};

void nearest(const Features& features, int threads, const std::optional<std::string>& isa);

}  // namespace fastsdm
