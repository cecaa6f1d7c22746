#include "axes.hpp"

#include <algorithm>

#include "parallel.hpp"
#include "workspace.hpp"

namespace fastsdm {
namespace {

struct alignas(64) Worker {
  unsigned char* scratch;
  bool far = false;
};

std::vector<Worker> make_workers(Scratch& scratch, Index count, Index each) {
  each = round_up(each, kScratchAlignment);
  unsigned char* next = scratch.take(count * each);
  std::vector<Worker> workers;
  for (Index i = 0; i < count; ++i, next += each) workers.push_back({next});
  return workers;
}

}  // namespace

void scan_rows(const Scan& scan, int threads, const std::optional<std::string>& isa) {
  const Kernel& kernel = kernel_of(isa);
  if (scan.rows == 0 || scan.width == 0) return;
  if (!scan.pattern) {
    std::fill_n(scan.squares, scan.rows * scan.width, kInfinity);
    return;
  }
  const Kernel::MatchRow match_row = kernel.match_row[scan.label_bytes == 8 ? 3 : scan.label_bytes / 2];
  Scratch scratch;
  std::vector<Worker> workers =
      make_workers(scratch, useful_threads(scan.rows * scan.width, threads), scan.width + kPhasePadding);
  const unsigned char* const labels = static_cast<const unsigned char*>(scan.labels);
  parallel_for(scan.rows, grain(scan.width), workers, [&](Index row, Worker& worker) {
    match_row(labels + row * scan.width * scan.label_bytes, scan.pattern->low, scan.pattern->span, scan.width,
              worker.scratch);
    kernel.scan_row(worker.scratch, scan.width, kInfinity, 0, scan.width, scan.squares + row * scan.width);
  });
}

void relax_axis(const Relaxation& relaxation, int threads, const std::optional<std::string>& isa) {
  const Kernel& kernel = kernel_of(isa);
  const Index outer = relaxation.outer, length = relaxation.length, inner = relaxation.inner;
  if (outer == 0 || length == 0 || inner == 0) return;
  const CostTable costs(kernel, length, relaxation.steps_squared,
                        relaxation.integer && is_integer(relaxation.steps_squared));
  const Axis axis = costs.axis(length, inner, 0, length);
  Scratch scratch;
  std::vector<Worker> workers = make_workers(scratch, useful_threads(outer * length * inner, threads),
                                             scratch_bytes(length, kernel.float_lanes));
  const Index tiles = (inner + kTileColumns - 1) / kTileColumns;
  const Finish* const finish = relaxation.finish ? &*relaxation.finish : nullptr;
  parallel_for(outer * tiles, grain(length * kTileColumns), workers, [&](Index item, Worker& worker) {
    const Index column = item % tiles * kTileColumns;
    float* const columns = relaxation.squares + item / tiles * length * inner + column;
    kernel.relax_columns(columns, columns, std::min(kTileColumns, inner - column), axis, finish, worker.scratch,
                         worker.far);
  });
}

void instance_distance(const Instances& problem, int threads, const std::optional<std::string>& isa) {
  const Kernel& kernel = kernel_of(isa);
  const Index depth = problem.shape[0], height = problem.shape[1], width = problem.shape[2];
  const Index plane = height * width, volume = depth * plane, bytes = problem.label_bytes;
  if (problem.batch == 0 || volume == 0) return;
  const int log_bytes = bytes == 8 ? 3 : static_cast<int>(bytes / 2);
  const auto scan = kernel.scan_instances[log_bytes];
  const auto lower = kernel.lower_to_changes[log_bytes];

  Scratch scratch;
  const Index relax = round_up(scratch_bytes(std::max(depth, height), kernel.float_lanes), kScratchAlignment);
  std::vector<Worker> workers =
      make_workers(scratch, useful_threads(volume, threads), relax + width + kPhasePadding);
  const Index tiles = (plane + kTileColumns - 1) / kTileColumns;

  for (Index sample = 0; sample < problem.batch; ++sample) {
    const auto& spacing = problem.spacings[static_cast<std::size_t>(sample)];
    const double unit = spacing[2], reach = problem.max_distance;
    const auto squared = [unit](double step) { return step / unit * (step / unit); };
    const double middle = squared(spacing[1]), first = squared(spacing[0]);
    const bool integer = is_integer(middle);
    const CostTable middle_costs(kernel, height, middle, integer);
    const CostTable first_costs(kernel, depth, first, integer && is_integer(first));
    const float cap = float_above(std::ceil(squared(reach)));
    const float limit = static_cast<float>(reach);
    const Finish finish{static_cast<float>(unit), float_above(reach), 0.0f, 0.0f, limit};
    const auto* const labels = static_cast<const unsigned char*>(problem.labels) + sample * volume * bytes;
    float* const maps = problem.maps + sample * volume;

    const auto columns = [&](Index at, Index count, Index length, Index stride, bool border, float cost,
                             const CostTable& costs, const Finish* last, Worker& worker) {
      if (length > 1 || last) {
        kernel.relax_columns(maps + at, maps + at, count, costs.axis(length, stride, 0, length), last,
                             worker.scratch, worker.far);
      }
      if (length > 1 || border) {
        lower(labels + at * bytes, count, length, stride, last == nullptr, cost, border, maps + at);
      }
    };
    parallel_for(depth, grain(plane), workers, [&](Index z, Worker& worker) {
      for (Index y = 0; y < height; ++y) {
        const Index at = z * plane + y * width;
        scan(labels + at * bytes, problem.background, width, cap, problem.border[2], worker.scratch + relax,
             maps + at);
      }
      for (Index x = 0; x < width; x += kTileColumns) {
        columns(z * plane + x, std::min(kTileColumns, width - x), height, width, problem.border[1],
                static_cast<float>(middle), middle_costs, nullptr, worker);
      }
    });
    parallel_for(tiles, grain(depth * kTileColumns), workers, [&](Index tile, Worker& worker) {
      const Index at = tile * kTileColumns;
      columns(at, std::min(kTileColumns, plane - at), depth, plane, problem.border[0],
              static_cast<float>(spacing[0]), first_costs, &finish, worker);
    });
  }
}

}  // namespace fastsdm
