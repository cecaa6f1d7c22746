// Cuts the work into items and hands them to threads; all arithmetic on voxels is in the kernels.
//
// The map itself is the only intermediate. Items of the first pass are slabs (one class of one sample at one
// position of the first axis): scanned along the last axis and relaxed along the middle one while they are in
// the cache. Items of the second pass are tiles of columns, relaxed along the first axis and finished.
#include "engine.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "dispatch.hpp"

namespace fastsdm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Below this many voxels a thread costs more than it saves.
constexpr Index kVoxelsPerThread = 1 << 15;
// Fewer in one grab would waste it, more would leave the last thread alone.
constexpr Index kVoxelsPerGrain = 1 << 14;

Index round_up(Index n, Index unit) { return (n + unit - 1) / unit * unit; }

// What Kernel::relax_columns asks for; lanes of either width fill the same bytes.
Index scratch_bytes(Index length, Index float_lanes) {
  const Index rows = round_up(length, kBlock);
  return (rows * kTileColumns + 2 * (rows + rows / kBlock) * float_lanes) * static_cast<Index>(sizeof(float));
}

// The smallest float not below x.
float float_above(double x) {
  if (x > std::numeric_limits<float>::max()) return kInfinity;
  const float nearest = static_cast<float>(x);
  return nearest < x ? std::nextafter(nearest, kInfinity) : nearest;
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

  Axis axis(Index length, Index stride) const {
    return {length, stride, floats_.data(), shorts_.empty() ? nullptr : shorts_.data()};
  }

 private:
  std::vector<float> floats_;
  std::vector<std::int16_t> shorts_;
};

// What depends on the spacing of a sample.
struct Geometry {
  std::array<double, 3> spacing;
  CostTable middle;
  CostTable first;
  float cap;  // squares need not be told apart beyond it
  Finish finish;
};

// What a thread has to itself.
struct alignas(64) Worker {
  unsigned char* scratch;
  std::uint8_t* phase;
  bool far = false;
};

// Runs item(i, worker) for every i below `items`; they are handed out in order, `grain` at a time.
template <class Item>
void parallel_for(Index items, Index grain, std::vector<Worker>& workers, const Item& item) {
  std::atomic<Index> next{0};
  const auto work = [&](Worker& worker) noexcept {
    for (Index begin; (begin = next.fetch_add(grain, std::memory_order_relaxed)) < items;) {
      for (Index i = begin; i < std::min(begin + grain, items); ++i) item(i, worker);
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(workers.size());
  try {
    for (std::size_t i = 1; i < workers.size(); ++i) threads.emplace_back(work, std::ref(workers[i]));
  } catch (const std::system_error&) {
    // The system grants no more threads: those there are do all the work.
  }
  work(workers.front());
  for (std::thread& thread : threads) thread.join();
}

class Engine {
 public:
  Engine(const Problem& problem, const Kernel& kernel, int threads)
      : problem_(problem), kernel_(kernel), classes_(static_cast<Index>(problem.classes.size())) {
    match_row_ = kernel.match_row[problem.label_bytes == 8 ? 3 : problem.label_bytes / 2];
    fold_axes();
    plane_ = height_ * width_;
    volume_ = depth_ * plane_;
    make_geometries();
    phases_seen_ = std::vector<std::atomic<unsigned>>(static_cast<std::size_t>(problem.batch * classes_));
    const Index wanted = problem.batch * classes_ * volume_ / kVoxelsPerThread;
    make_workers(std::clamp<Index>(wanted, 1, std::max(threads, 1)));
  }

  void run() {
    const Index slabs = problem_.batch * depth_ * classes_;
    parallel_for(slabs, grain(plane_), workers_, [this](Index i, Worker& worker) {
      const Index k = i % classes_, z = i / classes_ % depth_, b = i / classes_ / depth_;
      fill_slab(b, k, z, worker);
    });
    const Index tiles = (plane_ + kTileColumns - 1) / kTileColumns;
    const Index all = problem_.batch * classes_ * tiles;
    parallel_for(all, grain(depth_ * kTileColumns), workers_, [this, tiles](Index i, Worker& worker) {
      finish_tile(i / tiles, i % tiles * kTileColumns, worker);
    });
  }

 private:
  // Axes of size 1 add nothing: what is left is laid out so that the last axis is scanned and, of two, the
  // other is the first, along which the work is cut.
  void fold_axes() {
    std::vector<int> axes;
    for (int axis = 0; axis < 3; ++axis) {
      if (problem_.shape[axis] > 1) axes.push_back(axis);
    }
    if (!axes.empty()) width_ = problem_.shape[width_axis_ = axes.back()];
    if (axes.size() > 1) depth_ = problem_.shape[depth_axis_ = axes.front()];
    if (axes.size() > 2) height_ = problem_.shape[height_axis_ = axes[1]];
  }

  void make_geometries() {
    for (const std::array<double, 3>& spacing : problem_.spacing) {
      const auto same = [&spacing](const Geometry& g) { return g.spacing == spacing; };
      const auto found = std::find_if(geometries_.begin(), geometries_.end(), same);
      geometry_of_sample_.push_back(static_cast<std::size_t>(found - geometries_.begin()));
      if (found == geometries_.end()) geometries_.push_back(geometry(spacing));
    }
  }

  Geometry geometry(const std::array<double, 3>& spacing) const {
    const double unit = spacing[width_axis_];
    const auto steps_squared = [&](int axis, Index length) {
      return length > 1 ? (spacing[axis] / unit) * (spacing[axis] / unit) : 1.0;
    };
    const double middle = steps_squared(height_axis_, height_), first = steps_squared(depth_axis_, depth_);
    const double limit = problem_.max_distance;
    return {spacing,
            CostTable(kernel_, height_, middle, is_integer(middle)),
            CostTable(kernel_, depth_, first, is_integer(middle) && is_integer(first)),
            float_above(std::ceil((limit / unit) * (limit / unit))),
            {static_cast<float>(unit), float_above(limit)}};
  }

  // All memory is taken here, before any thread starts, so a thread cannot fail.
  void make_workers(Index count) {
    const Index longest = std::max(depth_, height_);
    const Index relax = round_up(scratch_bytes(longest, kernel_.float_lanes), kScratchAlignment);
    const Index each = relax + round_up(width_ + kPhasePadding, kScratchAlignment);
    scratch_.reset(new unsigned char[static_cast<std::size_t>(count * each + kScratchAlignment)]);
    const auto address = reinterpret_cast<std::uintptr_t>(scratch_.get());
    const Index misaligned = static_cast<Index>(address % kScratchAlignment);
    unsigned char* next = scratch_.get() + (kScratchAlignment - misaligned);
    for (Index i = 0; i < count; ++i, next += each) workers_.push_back({next, next + relax});
  }

  void fill_slab(Index b, Index k, Index z, Worker& worker) {
    const std::optional<ClassPattern>& pattern = problem_.classes[static_cast<std::size_t>(k)];
    if (!pattern) return;
    const Geometry& g = geometry_of(b);
    const unsigned char* const labels = static_cast<const unsigned char*>(problem_.labels) +
                                        (b * volume_ + z * plane_) * problem_.label_bytes;
    float* const slab = problem_.maps + (b * classes_ + k) * volume_ + z * plane_;
    unsigned seen = 0;
    for (Index y = 0; y < height_; ++y) {
      match_row_(labels + y * width_ * problem_.label_bytes, pattern->value, pattern->inverted, width_,
                 worker.phase);
      seen |= kernel_.scan_row(worker.phase, width_, g.cap, slab + y * width_);
    }
    phases_seen(b * classes_ + k).fetch_or(seen, std::memory_order_relaxed);
    if (seen != (kInside | kOutside)) return;  // one phase only: no value can fall
    if (height_ == 1) return;
    const Axis middle = g.middle.axis(height_, width_);
    for (Index x = 0; x < width_; x += kTileColumns) {
      const Index columns = std::min(kTileColumns, width_ - x);
      kernel_.relax_columns(slab + x, columns, middle, nullptr, worker.scratch, worker.far);
    }
  }

  void finish_tile(Index map, Index column, Worker& worker) {
    const Index b = map / classes_, k = map % classes_, columns = std::min(kTileColumns, plane_ - column);
    const Geometry& g = geometry_of(b);
    float* const tile = problem_.maps + map * volume_ + column;
    const unsigned seen = phases_seen(map).load(std::memory_order_relaxed);
    if (seen == (kInside | kOutside)) {
      kernel_.relax_columns(tile, columns, g.first.axis(depth_, plane_), &g.finish, worker.scratch,
                            worker.far);
    } else if (g.cap != kInfinity || !problem_.classes[static_cast<std::size_t>(k)]) {
      for (Index z = 0; z < depth_; ++z) {
        std::fill_n(tile + z * plane_, columns, seen == kInside ? -kInfinity : kInfinity);
      }
    }
  }

  static bool is_integer(double x) { return x == std::floor(x) && x <= kShortMax; }
  static Index grain(Index voxels) { return std::max<Index>(1, kVoxelsPerGrain / voxels); }
  const Geometry& geometry_of(Index b) const {
    return geometries_[geometry_of_sample_[static_cast<std::size_t>(b)]];
  }
  std::atomic<unsigned>& phases_seen(Index map) { return phases_seen_[static_cast<std::size_t>(map)]; }

  const Problem& problem_;
  const Kernel& kernel_;
  const Index classes_;
  Index depth_ = 1, height_ = 1, width_ = 1, plane_ = 1, volume_ = 1;
  int depth_axis_ = 0, height_axis_ = 1, width_axis_ = 2;
  Kernel::MatchRow match_row_ = nullptr;
  std::vector<Geometry> geometries_;
  std::vector<std::size_t> geometry_of_sample_;
  std::vector<std::atomic<unsigned>> phases_seen_;
  std::vector<Worker> workers_;
  std::unique_ptr<unsigned char[]> scratch_;  // of all of them
};

}  // namespace

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Kernel* kernel : supported_kernels()) names.emplace_back(kernel->isa);
  return names;
}

void signed_distance(const Problem& problem, int threads, const std::optional<std::string>& isa) {
  if (problem.batch == 0 || problem.classes.empty()) return;
  if (std::find(problem.shape.begin(), problem.shape.end(), 0) != problem.shape.end()) return;
  for (const Kernel* kernel : supported_kernels()) {
    if (!isa || *isa == kernel->isa) return Engine(problem, *kernel, threads).run();
  }
  throw std::invalid_argument("isa: must be one of isas(); got '" + *isa + "'");
}

}  // namespace fastsdm
