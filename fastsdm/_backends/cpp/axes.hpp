// One axis at a time, on blocks of a volume that does not fit into memory; and maps of instances.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine.hpp"

namespace fastsdm {

// Signed squared distance of each voxel to the other phase within its row, in squares of the row's spacing;
// infinite where the row has no other phase. `labels` and `squares` are [rows, width], contiguous.
struct Scan {
  const void* labels;
  int label_bytes;
  std::optional<ClassPattern> pattern;
  Index rows;
  Index width;
  float* squares;
};
void scan_rows(const Scan& scan, int threads, const std::optional<std::string>& isa);

// Signed squares [outer, length, inner], contiguous, are lowered in place to the minimum along the axis of
// `length`; with `finish`, to signed distances.
struct Relaxation {
  float* squares;
  Index outer;
  Index length;
  Index inner;
  double steps_squared;  // square of the axis' spacing in units of the scanned axis' spacing
  bool integer;          // all squares so far are integers
  std::optional<Finish> finish;
};
void relax_axis(const Relaxation& relaxation, int threads, const std::optional<std::string>& isa);

// Distance of each voxel to the nearest one of another label, 0 in the background.
struct Instances {
  const void* labels;  // [batch, shape...], contiguous
  int label_bytes;
  std::uint64_t background;  // its bit pattern
  Index batch;
  std::array<Index, 3> shape;
  std::vector<std::array<double, 3>> spacings;  // [batch]
  double max_distance;
  std::array<bool, 3> border;  // whether beyond the ends of that axis lies another label
  float* maps;                 // [batch, shape...], contiguous
};
void instance_distance(const Instances& instances, int threads, const std::optional<std::string>& isa);

}  // namespace fastsdm
