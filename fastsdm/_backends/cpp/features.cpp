// Between the passes the words of a map lie in the plane of its first index: no memory but the result. Labels are
// taken tile by tile from the indices found, which are not kept.
#include "features.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "parallel.hpp"
#include "workspace.hpp"

namespace fastsdm {
namespace {

// Results larger than a cache are written past it: 32 MB.
constexpr Index kWordsToStream = 1 << 23;

struct alignas(64) Worker {
  unsigned char* scratch;
  std::int32_t* words;  // of a slab, or of a tile
  std::int32_t* found;  // indices of a tile, where labels are asked for
  std::uint8_t* phase;
};

// Costs along one axis in words; none where squared costs are not all integers.
class NearCosts {
 public:
  NearCosts(const Kernel& kernel, Index length, double steps_squared, Index near_squares, bool last) {
    if (near_squares == 0) return;
    const Index rows = round_up(length, kBlock);
    before_.resize(static_cast<std::size_t>(rows * kernel.float_lanes));
    after_.resize(before_.size());
    kernel.fill_near_costs(rows, static_cast<Index>(steps_squared), near_squares, last, before_.data(),
                           after_.data());
  }
  void hand_to(NearestStep& step) const {
    step.before = before_.empty() ? nullptr : before_.data();
    step.after = after_.empty() ? nullptr : after_.data();
  }

 private:
  std::vector<std::int32_t> before_, after_;
};

// Indices of a tile's voxels, rows of kTileColumns.
struct TileIndices {
  const std::int32_t* row;
  const std::int32_t* middle;  // null: all 0
  const std::int32_t* scanned;
};

// Writes the labels of the voxels found for a tile's columns from `column` on; where there is none, their own.
template <class T>
void take_labels(const void* volume, const std::array<Index, 3>& shape, const TileIndices& found, Index column,
                 Index columns, void* filled) {
  const T* const labels = static_cast<const T*>(volume);
  const Index plane = shape[1] * shape[2];
  for (Index z = 0; z < shape[0]; ++z) {
    const T* const own = labels + z * plane + column;
    T* const to = static_cast<T*>(filled) + z * plane + column;
    for (Index x = 0; x < columns; ++x) {
      const Index i = z * kTileColumns + x, row = found.row[i];
      const Index line = row * shape[1] + (found.middle ? found.middle[i] : 0);
      to[x] = row < 0 ? own[x] : labels[line * shape[2] + found.scanned[i]];
    }
  }
}
using TakeLabels = void (*)(const void*, const std::array<Index, 3>&, const TileIndices&, Index, Index, void*);
constexpr TakeLabels kTakeLabels[4] = {take_labels<std::uint8_t>, take_labels<std::uint16_t>,
                                       take_labels<std::uint32_t>, take_labels<std::uint64_t>};

// Near words of this square are not less, words of lesser squares are.
std::int32_t first_word(Index square) {
  return static_cast<std::int32_t>((square << kSquareShift) - (Index{1} << (kSquareShift - 1)));
}

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
  const bool fills = features.filled != nullptr;
  const auto match_row = kernel.match_row[bytes == 8 ? 3 : bytes / 2];
  const TakeLabels take = kTakeLabels[bytes == 8 ? 3 : bytes / 2];

  const Index longest = std::max(depth, height);
  const Index flags = round_up(longest, kBlock) / kBlock * (kTileColumns / kernel.float_lanes);
  const Index relax = round_up(scratch_bytes(longest, kernel.float_lanes) + flags, kScratchAlignment);
  // A slab is as wide as its tiles are together: what the last one holds too much is 0.
  const Index wide = round_up(width, kTileColumns), slab = height > 1 ? height * wide : 0;
  const Index words = std::max(slab, depth * kTileColumns) * kFloatBytes;
  const Index found = fills ? planes * depth * kTileColumns * kFloatBytes : 0;
  const Index each = relax + words + found + round_up(width + kPhasePadding, kScratchAlignment);
  const Index count = useful_threads(volume, threads);
  Scratch scratch;
  unsigned char* next = scratch.take(count * each);
  std::vector<Worker> workers;
  for (Index i = 0; i < count; ++i, next += each) {
    auto* const of_words = reinterpret_cast<std::int32_t*>(next + relax);
    workers.push_back({next, of_words, of_words + words / kFloatBytes, next + relax + words + found});
  }
  std::vector<std::int32_t> scan_words(static_cast<std::size_t>(4 * width + kWordPadding));
  const Index tiles = (plane + kTileColumns - 1) / kTileColumns;

  for (Index map = 0; map < features.batch * classes; ++map) {
    std::int32_t* const rows = features.indices + (fills ? 0 : map * planes * volume);
    const auto& pattern = features.classes[static_cast<std::size_t>(map % classes)];
    if (!pattern) {
      std::fill_n(rows, planes * volume, -1);
      continue;
    }
    const auto& spacing = features.spacings[static_cast<std::size_t>(map / classes)];
    const double unit = spacing[2];
    const auto squared = [unit](double step) { return step / unit * (step / unit); };
    const double middle = height > 1 ? squared(spacing[1]) : 1.0, first = depth > 1 ? squared(spacing[0]) : 1.0;
    const CostTable middle_costs(kernel, height, middle, false);
    const CostTable first_costs(kernel, depth, first, false);
    // Squared costs of at least 1 each: what is nearer than `beyond` is so within kNearSteps along every axis.
    constexpr Index beyond = (kNearSteps + 1) * (kNearSteps + 1);
    const bool all_near = is_integer(middle) && is_integer(first);
    const Index near_squares = is_integer(middle) ? beyond : 0;
    const NearCosts middle_near(kernel, height, middle, near_squares, false);
    const NearCosts first_near(kernel, depth, first, all_near ? near_squares : 0, true);
    std::int32_t* const tables[4] = {&scan_words[0], &scan_words[width], &scan_words[2 * width],
                                     &scan_words[3 * width]};
    kernel.fill_scan_words(width, near_squares, !fills, tables);
    const ScanWords scan{{tables[0], tables[1]}, {tables[2], tables[3]}, {kNoneWord, fills ? 0 : -kNoneWord}};
    NearestStep step{};
    step.stream = !fills && features.batch * classes * planes * volume >= kWordsToStream &&
                  plane % kTileColumns == 0 && reinterpret_cast<std::uintptr_t>(rows) % kScratchAlignment == 0;
    step.weight = static_cast<float>(middle);
    step.width = width;
    step.farthest = farthest_square(features.max_distance, static_cast<float>(unit));
    const bool limited = features.max_distance <= std::numeric_limits<float>::max();
    step.most =
        limited ? std::max(std::floor(step.farthest) + 1, std::nextafter(step.farthest, kInfinity)) : kInfinity;
    step.near_squares = static_cast<float>(near_squares);
    step.near_end = first_word(near_squares);
    step.none_above = std::numeric_limits<std::int32_t>::max();
    if (all_near && step.farthest < static_cast<float>(near_squares)) {
      step.near_end = std::numeric_limits<std::int32_t>::max();
      step.none_above = first_word(static_cast<Index>(step.farthest) + 1) - 1;
    }
    const unsigned char* const labels =
        static_cast<const unsigned char*>(features.labels) + map / classes * volume * bytes;
    unsigned char* const filled =
        static_cast<unsigned char*>(features.filled) + (fills ? map * volume * bytes : 0);

    std::atomic<unsigned> seen{0};
    parallel_for(depth, grain(plane), workers, [&](Index z, Worker& worker) {
      std::int32_t* const slab = rows + z * plane;
      std::int32_t* const scanned = height > 1 ? worker.words : slab;
      unsigned of_slab = 0;
      for (Index y = 0; y < height; ++y) {
        match_row(labels + (z * plane + y * width) * bytes, pattern->low, pattern->span, width, worker.phase);
        std::int32_t* const row = scanned + y * wide;
        of_slab |= kernel.scan_nearest(worker.phase, width, scan, row);
        if (height > 1) std::fill(row + width, row + wide, 0);
      }
      seen.fetch_or(of_slab, std::memory_order_relaxed);
      if (height == 1) return;
      if (of_slab != (kInside | kOutside)) {
        std::fill_n(slab, plane, scanned[0]);
        return;
      }
      NearestStep here = step;
      middle_near.hand_to(here);
      for (Index x = 0; x < width; x += kTileColumns) {
        here.words = slab + x;
        kernel.nearest_columns({scanned + x, wide}, std::min(kTileColumns, width - x),
                               middle_costs.axis(height, width, 0, height), here, worker.scratch);
      }
    });
    if (seen != (kInside | kOutside)) {
      if (fills) {
        std::memcpy(filled, labels, static_cast<std::size_t>(volume * bytes));
      } else {
        std::fill_n(rows, planes * volume, -1);
      }
      continue;
    }
    parallel_for(tiles, grain(depth * kTileColumns), workers, [&](Index item, Worker& worker) {
      NearestStep here = step;
      first_near.hand_to(here);
      here.column = item * kTileColumns;
      std::int32_t* const from = rows + here.column;
      const Index columns = std::min(kTileColumns, plane - here.column);
      const Index index = fills ? depth * kTileColumns : volume;  // from one index to the next
      here.row = fills ? worker.found : from;
      here.middle = features.planar ? nullptr : here.row + index;
      here.scanned = here.row + (planes - 1) * index;
      kernel.copy_columns(from, columns, first_costs.axis(depth, plane, 0, depth), worker.words);
      const Axis axis = first_costs.axis(depth, fills ? kTileColumns : plane, 0, depth);
      kernel.nearest_columns({worker.words, kTileColumns}, columns, axis, here, worker.scratch);
      if (fills) take(labels, features.shape, {here.row, here.middle, here.scanned}, here.column, columns, filled);
    });
  }
}

}  // namespace fastsdm
