// Distances between the surfaces of two volumes' masks, measured at the surfaces only.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine.hpp"

namespace fastsdm {

// A volume of labels, or one channel per class; any strides, in elements.
struct Channels {
  const void* data;
  int element_bytes;  // 1, 2, 4 or 8
  bool floats;        // 4 or 8 bytes; inside above 0.5, whatever a pattern says
  std::array<Index, 4> strides;
};

struct SurfaceClass {
  Index channel;
  std::optional<ClassPattern> patterns[2];  // in either volume; none: no voxel belongs to it
};

struct Surfaces {
  Channels volumes[2];
  std::array<Index, 3> shape;
  bool planar;     // the first axis is none of the user's: it has no neighbours
  bool between;    // surface elements lie between voxels: cells of 8 (4) voxels of both phases
  bool symmetric;  // else only the first volume's surfaces are measured
  std::vector<SurfaceClass> classes;
  std::array<double, 3> spacing;
};

// One mask's surface elements, in the order of the volume.
struct SurfaceElements {
  Index count = 0;
  std::vector<float> distances;     // to the other surface; infinite where there is none
  std::vector<std::uint8_t> codes;  // of cells: which corners are inside, the first corner lowest
};

// Two for each class. Throws std::invalid_argument where floats are NaN.
std::vector<SurfaceElements> surface_distances(const Surfaces& surfaces, int threads,
                                               const std::optional<std::string>& isa);

}  // namespace fastsdm
