// Cuts the work into items and hands them to threads; all arithmetic on voxels is in the kernels.
//
// The map itself is the only intermediate. Items of the first pass are slabs (one class of one sample at one
// position of the first axis): scanned along the last axis and relaxed along the middle one while they are in
// the cache. Items of the second pass are tiles of columns, relaxed along the first axis and finished.
//
// For a region each pass answers only what the next one reads: the last axis is cut by the scan, the middle one
// by its pass. What is left is longer than the map along the first axis, so it lies in a field of its own, which
// groups of maps use in turn.
#include "engine.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "dispatch.hpp"
#include "parallel.hpp"
#include "workspace.hpp"

namespace fastsdm {
namespace {

// Maps of a region are made together up to that many voxels.
constexpr Index kVoxelsPerGroup = 1 << 23;

// An axis of the volume, and which part of it the map holds.
struct Extent {
  int axis;
  Index length = 1;
  Index first = 0;
  Index count = 1;
};

// What differs between samples.
struct Geometry {
  Sample sample;
  CostTable middle;
  CostTable first;
  float cap;      // squares beyond it may be cut to it
  float missing;  // magnitude of the map where a phase is missing
  Finish finish;
};

// What a thread has to itself.
struct alignas(64) Worker {
  unsigned char* scratch;
  std::uint8_t* phase;
  float* slab;  // of a region: the volume's slab, as it is scanned
  bool far = false;
};

class Engine {
 public:
  Engine(const Problem& problem, const Kernel& kernel, int threads)
      : problem_(problem), kernel_(kernel), classes_(static_cast<Index>(problem.classes.size())) {
    match_row_ = kernel.match_row[problem.label_bytes == 8 ? 3 : problem.label_bytes / 2];
    fold_axes();
    plane_ = height_.count * width_.count;
    is_region_ = problem.size != problem.shape;
    const Index maps = problem.batch * classes_, voxels = depth_.length * plane_;
    group_ = is_region_ ? std::clamp<Index>(kVoxelsPerGroup / voxels, 1, maps) : maps;
    if (is_region_) field_.reset(new float[static_cast<std::size_t>(group_ * voxels)]);
    make_geometries();
    phases_seen_ = std::vector<std::atomic<unsigned>>(static_cast<std::size_t>(problem.batch * classes_));
    make_workers(useful_threads(maps * voxels, threads));
  }

  void run() {
    const Index maps = problem_.batch * classes_, depth = depth_.length;
    const Index tiles = (plane_ + kTileColumns - 1) / kTileColumns;
    for (first_map_ = 0; first_map_ < maps; first_map_ += group_) {
      const Index first = first_map_, group = std::min(group_, maps - first);
      // The classes of a slab one after the other: its labels stay in the cache.
      parallel_for(group * depth, grain(plane_), workers_,
                   [=](Index i, Worker& worker) { fill_slab(first + i % group, i / group, worker); });
      parallel_for(group * tiles, grain(depth * kTileColumns), workers_, [=](Index i, Worker& worker) {
        finish_tile(first + i / tiles, i % tiles * kTileColumns, worker);
      });
    }
  }

 private:
  // Axes of size 1 add nothing: what is left is laid out so that the last axis is scanned and, of two, the
  // other is the first, along which the work is cut.
  void fold_axes() {
    std::vector<Extent> axes;
    for (int axis = 0; axis < 3; ++axis) {
      if (problem_.shape[axis] == 1) continue;
      axes.push_back({axis, problem_.shape[axis], problem_.first[axis], problem_.size[axis]});
    }
    if (!axes.empty()) width_ = axes.back();
    if (axes.size() > 1) depth_ = axes.front();
    if (axes.size() > 2) height_ = axes[1];
  }

  void make_geometries() {
    for (const Sample& sample : problem_.samples) {
      const auto same = [&sample](const Geometry& g) { return g.sample == sample; };
      const auto found = std::find_if(geometries_.begin(), geometries_.end(), same);
      geometry_of_sample_.push_back(static_cast<std::size_t>(found - geometries_.begin()));
      if (found == geometries_.end()) geometries_.push_back(geometry(sample));
    }
  }

  Geometry geometry(const Sample& sample) const {
    const double unit = sample.spacing[width_.axis];
    const auto steps_squared = [&](const Extent& extent) {
      const double step = sample.spacing[extent.axis] / unit;
      return extent.length > 1 ? step * step : 1.0;
    };
    const double middle = steps_squared(height_), first = steps_squared(depth_);
    const double reach = problem_.max_distance;
    const float shift = static_cast<float>(sample.shift), limit = static_cast<float>(problem_.limit);
    return {sample,
            CostTable(kernel_, height_.length, middle, is_integer(middle)),
            CostTable(kernel_, depth_.length, first, is_integer(middle) && is_integer(first)),
            float_above(std::ceil((reach / unit) * (reach / unit))),
            std::min(static_cast<float>(sample.missing), limit),
            {static_cast<float>(unit), float_above(reach), problem_.both_sides ? -shift : 0.0f, shift, limit}};
  }

  // All memory is taken here, before any thread starts, so a thread cannot fail.
  void make_workers(Index count) {
    const Index longest = std::max(depth_.length, height_.length);
    const Index relax = round_up(scratch_bytes(longest, kernel_.float_lanes), kScratchAlignment);
    const Index phase = round_up(width_.length + kPhasePadding, kScratchAlignment);
    const Index slab = is_region_ ? round_up(height_.length * width_.count * kFloatBytes, kScratchAlignment) : 0;
    const Index each = relax + phase + slab;
    unsigned char* next = scratch_.take(count * each);
    for (Index i = 0; i < count; ++i, next += each) {
      workers_.push_back({next, next + relax, reinterpret_cast<float*>(next + relax + phase)});
    }
  }

  void fill_slab(Index map, Index z, Worker& worker) {
    const std::optional<ClassPattern>& pattern = pattern_of(map);
    if (!pattern) return;
    const Geometry& g = geometry_of(map);
    const Index width = width_.length, kept = width_.count, row_bytes = width * problem_.label_bytes;
    const unsigned char* const labels = static_cast<const unsigned char*>(problem_.labels) +
                                        (map / classes_ * depth_.length + z) * height_.length * row_bytes;
    float* const slab = field(map) + z * plane_;
    float* const rows = is_region_ ? worker.slab : slab;
    unsigned seen = 0;
    for (Index y = 0; y < height_.length; ++y) {
      match_row_(labels + y * row_bytes, pattern->low, pattern->span, width, worker.phase);
      seen |= kernel_.scan_row(worker.phase, width, g.cap, width_.first, width_.first + kept, rows + y * kept);
    }
    phases_seen(map).fetch_or(seen, std::memory_order_relaxed);
    if (seen == (kInside | kOutside) && (height_.length > 1 || is_region_)) {
      const Axis middle = g.middle.axis(height_.length, kept, height_.first, height_.count);
      for (Index x = 0; x < kept; x += kTileColumns) {
        const Index columns = std::min(kTileColumns, kept - x);
        kernel_.relax_columns(rows + x, slab + x, columns, middle, nullptr, worker.scratch, worker.far);
      }
    } else if (is_region_) {  // one phase only
      std::fill_n(slab, plane_, seen == kInside ? -g.cap : g.cap);
    }
  }

  void finish_tile(Index map, Index column, Worker& worker) {
    const Index columns = std::min(kTileColumns, plane_ - column);
    const Geometry& g = geometry_of(map);
    float* const answers = problem_.maps + map * depth_.count * plane_ + column;
    const unsigned seen = phases_seen(map).load(std::memory_order_relaxed);
    if (seen == (kInside | kOutside)) {
      kernel_.relax_columns(field(map) + column, answers, columns,
                            g.first.axis(depth_.length, plane_, depth_.first, depth_.count), &g.finish,
                            worker.scratch, worker.far);
    } else if (is_region_ || g.cap != kInfinity || g.missing != kInfinity || !pattern_of(map)) {
      for (Index z = 0; z < depth_.count; ++z) {
        std::fill_n(answers + z * plane_, columns, seen == kInside ? -g.missing : g.missing);
      }
    }
  }

  float* field(Index map) {
    return is_region_ ? field_.get() + (map - first_map_) * depth_.length * plane_
                      : problem_.maps + map * depth_.length * plane_;
  }
  const std::optional<ClassPattern>& pattern_of(Index map) const {
    return problem_.classes[static_cast<std::size_t>(map % classes_)];
  }
  const Geometry& geometry_of(Index map) const {
    return geometries_[geometry_of_sample_[static_cast<std::size_t>(map / classes_)]];
  }
  std::atomic<unsigned>& phases_seen(Index map) { return phases_seen_[static_cast<std::size_t>(map)]; }

  const Problem& problem_;
  const Kernel& kernel_;
  const Index classes_;
  Extent depth_{0}, height_{1}, width_{2};
  Index plane_ = 1;         // voxels of a slab that the map holds
  bool is_region_ = false;  // of the volume, not all of it
  Index group_ = 1;         // maps made together ...
  Index first_map_ = 0;     // ... now from this one on
  Kernel::MatchRow match_row_ = nullptr;
  std::vector<Geometry> geometries_;
  std::vector<std::size_t> geometry_of_sample_;
  std::vector<std::atomic<unsigned>> phases_seen_;
  std::vector<Worker> workers_;
  Scratch scratch_;                 // of all of them
  std::unique_ptr<float[]> field_;  // of a region: squares that the last pass reads
};

}  // namespace

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Kernel* kernel : supported_kernels()) names.emplace_back(kernel->isa);
  return names;
}

const Kernel& kernel_of(const std::optional<std::string>& isa) {
  for (const Kernel* kernel : supported_kernels()) {
    if (!isa || *isa == kernel->isa) return *kernel;
  }
  throw std::invalid_argument("isa: must be one of isas(); got '" + *isa + "'");
}

void signed_distance(const Problem& problem, int threads, const std::optional<std::string>& isa) {
  if (problem.batch == 0 || problem.classes.empty()) return;
  if (std::find(problem.size.begin(), problem.size.end(), 0) != problem.size.end()) return;
  Engine(problem, kernel_of(isa), threads).run();
}

}  // namespace fastsdm
