// Between the passes the words of a map lie in the plane of its first index: no memory but the result.
#include "features.hpp"

#include <algorithm>
#include <cmath>

#include "parallel.hpp"
#include "workspace.hpp"

namespace fastsdm {
namespace {

struct alignas(64) Worker {
  unsigned char* scratch;
  std::int32_t* tile;
  std::uint8_t* phase;
  bool far = false;
};

// The largest square whose distance is within the limit, as a map would round it.
float farthest_square(double max_distance, float unit) {
  if (max_distance > std::numeric_limits<float>::max()) return std::numeric_limits<float>::max();
  const float limit = static_cast<float>(max_distance);
  const auto within = [=](float square) { return std::sqrt(square) * unit <= limit; };
  float square = (limit / unit) * (limit / unit);
  while (!within(square)) square = std::nextafter(square, 0.0f);
  while (within(std::nextafter(square, kInfinity))) square = std::nextafter(square, kInfinity);
  return square;
}

}  // namespace

void nearest(const Features& features, int threads, const std::optional<std::string>& isa) {
  const Kernel& kernel = kernel_of(isa);
  const Index depth = features.shape[0], height = features.shape[1], width = features.shape[2];
  const Index plane = height * width, volume = depth * plane, bytes = features.label_bytes;
  const Index classes = static_cast<Index>(features.classes.size()), planes = features.planar ? 2 : 3;
  if (features.batch == 0 || volume == 0 || classes == 0) return;
  const auto match_row = kernel.match_row[bytes == 8 ? 3 : bytes / 2];

  const Index longest = std::max(depth, height);
  const Index relax = round_up(scratch_bytes(longest, kernel.float_lanes), kScratchAlignment);
  const Index tile = round_up(longest, kBlock) * kTileColumns * kFloatBytes;
  const Index each = relax + tile + round_up(width + kPhasePadding, kScratchAlignment);
  const Index count = useful_threads(volume, threads);
  Scratch scratch;
  unsigned char* next = scratch.take(count * each);
  std::vector<Worker> workers;
  for (Index i = 0; i < count; ++i, next += each) {
    workers.push_back({next, reinterpret_cast<std::int32_t*>(next + relax), next + relax + tile});
  }
  const Index tiles = (plane + kTileColumns - 1) / kTileColumns;

  for (Index map = 0; map < features.batch * classes; ++map) {
    std::int32_t* const rows = features.indices + map * planes * volume;
    const auto& pattern = features.classes[static_cast<std::size_t>(map % classes)];
    if (!pattern) {
      std::fill_n(rows, planes * volume, -1);
      continue;
    }
    const auto& spacing = features.spacings[static_cast<std::size_t>(map / classes)];
    const double unit = spacing[2];
    const auto squared = [unit](double step) { return step / unit * (step / unit); };
    const double middle = height > 1 ? squared(spacing[1]) : 1.0, first = depth > 1 ? squared(spacing[0]) : 1.0;
    const CostTable middle_costs(kernel, height, middle, is_integer(middle));
    const CostTable first_costs(kernel, depth, first, is_integer(middle) && is_integer(first));
    NearestStep step{};
    step.weight = static_cast<float>(middle);
    step.width = width;
    step.farthest = farthest_square(features.max_distance, static_cast<float>(unit));
    const bool limited = features.max_distance <= std::numeric_limits<float>::max();
    step.most = limited ? std::max(std::floor(step.farthest) + 1, std::nextafter(step.farthest, kInfinity))
                        : kInfinity;
    const unsigned char* const labels =
        static_cast<const unsigned char*>(features.labels) + map / classes * volume * bytes;

    parallel_for(depth, grain(plane), workers, [&](Index z, Worker& worker) {
      std::int32_t* const slab = rows + z * plane;
      for (Index y = 0; y < height; ++y) {
        match_row(labels + (z * plane + y * width) * bytes, pattern->value, pattern->inverted, width,
                  worker.phase);
        kernel.scan_nearest(worker.phase, width, slab + y * width);
      }
      if (height == 1) return;
      NearestStep here = step;
      for (Index x = 0; x < width; x += kTileColumns) {
        here.words = slab + x;
        kernel.nearest_columns(slab + x, std::min(kTileColumns, width - x),
                               middle_costs.axis(height, width, 0, height), here, worker.scratch, worker.tile,
                               worker.far);
      }
    });
    parallel_for(tiles, grain(depth * kTileColumns), workers, [&](Index item, Worker& worker) {
      NearestStep here = step;
      here.column = item * kTileColumns;
      here.row = rows + here.column;
      here.middle = features.planar ? nullptr : here.row + volume;
      here.scanned = here.row + (planes - 1) * volume;
      kernel.nearest_columns(here.row, std::min(kTileColumns, plane - here.column),
                             first_costs.axis(depth, plane, 0, depth), here, worker.scratch, worker.tile,
                             worker.far);
    });
  }
}

}  // namespace fastsdm
