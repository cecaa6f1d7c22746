// Masks are bits, 64 voxels a word. From them come the surfaces, by shifts, and for each element of one surface
// the nearest element of the other: rows of bits are looked at in the order of their distance from the element
// until no row can hold a nearer one. Surfaces that lie close to each other need a few rows for each element.
// Where a sample of elements needs more than a distance map of the volume would cost, the map is made.
#include "surface.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "parallel.hpp"
#include "surface_bits.hpp"
#include "surface_search.hpp"
#include "workspace.hpp"

namespace fastsdm {
namespace {

constexpr Index kSampled = 1024;
// Looking at a row costs about as much as so many voxels of a map.
constexpr double kVoxelsPerRow = 1.0;

// A surface, and where in the list of its elements every row begins.
struct Surface {
  BitVolume bits;
  std::vector<Index> begins;

  explicit Surface(const std::array<Index, 3>& shape)
      : bits(shape), begins(static_cast<std::size_t>(shape[0] * shape[1] + 1)) {}

  Index count() const { return begins.back(); }
  void number_elements() {
    for (Index row = 0; row < bits.rows(); ++row) {
      Index end = begins[static_cast<std::size_t>(row)];
      each_bit(bits.row(row), bits.words, [&](Index) { ++end; });
      begins[static_cast<std::size_t>(row + 1)] = end;
    }
  }
};

struct alignas(64) Worker {
  bool is_nan[2] = {false, false};
};

class Measure {
 public:
  Measure(const Surfaces& problem, int threads, const std::optional<std::string>& isa)
      : problem_(problem), threads_(threads), isa_(isa), kernel_(kernel_of(isa)), grid_(problem.shape) {
    const Index voxels = problem.shape[0] * problem.shape[1] * problem.shape[2];
    workers_.resize(static_cast<std::size_t>(useful_threads(voxels, threads)));
    if (problem.between) {
      for (std::size_t axis = problem.planar ? 1 : 0; axis < 3; ++axis) ++grid_[axis];
    }
  }

  std::vector<SurfaceElements> run() {
    read_masks();
    find_surfaces();
    std::vector<SurfaceElements> elements(surfaces_.size());
    const Search search(grid_, problem_.spacing);
    for (std::size_t i = 0; i < surfaces_.size(); ++i) {
      elements[i].count = surfaces_[i].count();
      if (i % 2 == 1 && !problem_.symmetric) continue;
      if (problem_.between) read_codes(i, elements[i].codes);
      measure(surfaces_[i], surfaces_[i ^ 1], search, elements[i].distances);
    }
    return elements;
  }

 private:
  // All classes of 64 voxels one after the other: channels may lie beside each other in a cache line.
  void read_masks() {
    for (std::size_t i = 0; i < 2 * problem_.classes.size(); ++i) masks_.emplace_back(problem_.shape);
    const Index depth = problem_.shape[0], height = problem_.shape[1], width = problem_.shape[2];
    const ReadBits readers[2] = {read_bits_of(problem_.volumes[0]), read_bits_of(problem_.volumes[1])};
    parallel_for(2 * depth, grain(height * width), workers_, [&](Index item, Worker& worker) {
      const Index z = item / 2;
      const std::size_t volume = static_cast<std::size_t>(item % 2);
      const Channels& channels = problem_.volumes[volume];
      const unsigned char* const data = static_cast<const unsigned char*>(channels.data);
      const auto& strides = channels.strides;
      for (Index y = 0; y < height; ++y) {
        for (Index x = 0; x < width; x += kBits) {
          const Index place = z * strides[1] + y * strides[2] + x * strides[3];
          for (std::size_t c = 0; c < problem_.classes.size(); ++c) {
            const SurfaceClass& wanted = problem_.classes[c];
            if (!wanted.patterns[volume] && !channels.floats) continue;
            masks_[2 * c + volume].row(z * height + y)[x / kBits] = readers[volume](
                data + (wanted.channel * strides[0] + place) * channels.element_bytes, std::min(width - x, kBits),
                strides[3], wanted.patterns[volume].value_or(ClassPattern{}), worker.is_nan[volume]);
          }
        }
      }
    });
    for (const Worker& worker : workers_) {
      if (worker.is_nan[0]) throw std::invalid_argument("y_pred: must not contain NaN");
      if (worker.is_nan[1]) throw std::invalid_argument("y: must not contain NaN");
    }
  }

  void find_surfaces() {
    for (std::size_t i = 0; i < masks_.size(); ++i) surfaces_.emplace_back(grid_);
    const std::vector<Word> zeros(static_cast<std::size_t>(masks_.front().pitch() + 2));
    const Index masks = static_cast<Index>(masks_.size()), depth = grid_[0], height = grid_[1];
    parallel_for(masks * depth, grain(height * grid_[2]), workers_, [&](Index item, Worker&) {
      const std::size_t i = static_cast<std::size_t>(item / depth);
      BitVolume& bits = surfaces_[i].bits;
      const Index z = item % depth;
      for (Index y = 0; y < height; ++y) {
        find_surface(masks_[i], problem_.planar, problem_.between, z, y, zeros.data() + 1,
                     bits.row(z * height + y), bits.words);
      }
    });
    parallel_for(masks, 1, workers_,
                 [&](Index i, Worker&) { surfaces_[static_cast<std::size_t>(i)].number_elements(); });
  }

  void read_codes(std::size_t i, std::vector<std::uint8_t>& codes) {
    const Surface& surface = surfaces_[i];
    codes.resize(static_cast<std::size_t>(surface.count()));
    parallel_for(surface.bits.rows(), grain(grid_[2]), workers_, [&](Index row, Worker&) {
      std::size_t next = static_cast<std::size_t>(surface.begins[static_cast<std::size_t>(row)]);
      each_bit(surface.bits.row(row), surface.bits.words, [&](Index x) {
        codes[next++] = code_of(masks_[i], problem_.planar, row / grid_[1], row % grid_[1], x);
      });
    });
  }

  void measure(const Surface& own, const Surface& other, const Search& search, std::vector<float>& distances) {
    distances.resize(static_cast<std::size_t>(own.count()), kInfinity);
    if (own.count() == 0 || other.count() == 0) return;
    if (map_is_cheaper(own, other, search)) return read_map(own, other, distances);
    parallel_for(own.bits.rows(), grain(grid_[2]), workers_, [&](Index row, Worker&) {
      std::size_t next = static_cast<std::size_t>(own.begins[static_cast<std::size_t>(row)]);
      Index looked = 0;
      each_bit(own.bits.row(row), own.bits.words, [&](Index x) {
        const double square = search.square(other.bits, row / grid_[1], row % grid_[1], x, looked);
        distances[next++] = static_cast<float>(std::sqrt(square));
      });
    });
  }

  // Judged by a sample, spread evenly.
  bool map_is_cheaper(const Surface& own, const Surface& other, const Search& search) const {
    const double voxels = static_cast<double>(grid_[0]) * static_cast<double>(grid_[1] * grid_[2]);
    const Index samples = std::min(own.count(), kSampled);
    const double share = static_cast<double>(samples) / static_cast<double>(own.count());
    Index looked = 0;
    for (Index sample = 0; sample < samples; ++sample) {
      const Index element = sample * (own.count() / samples);
      const auto after = std::upper_bound(own.begins.begin(), own.begins.end(), element);
      const Index row = static_cast<Index>(after - own.begins.begin()) - 1;
      Index skipped = element - own.begins[static_cast<std::size_t>(row)], found = -1;
      each_bit(own.bits.row(row), own.bits.words, [&](Index x) {
        if (skipped-- == 0) found = x;
      });
      search.square(other.bits, row / grid_[1], row % grid_[1], found, looked);
      if (static_cast<double>(looked) > share * voxels / kVoxelsPerRow) return true;
    }
    return false;
  }

  void read_map(const Surface& own, const Surface& other, std::vector<float>& distances) {
    const std::size_t voxels = static_cast<std::size_t>(grid_[0] * grid_[1] * grid_[2]);
    std::vector<std::uint8_t> labels(voxels);
    for (Index row = 0; row < other.bits.rows(); ++row) {
      std::uint8_t* const bytes = labels.data() + row * grid_[2];
      each_bit(other.bits.row(row), other.bits.words, [=](Index x) { bytes[x] = 1; });
    }
    const std::unique_ptr<float[]> map(new float[voxels]);
    Problem problem{};
    problem.labels = labels.data();
    problem.label_bytes = 1;
    problem.batch = 1;
    problem.shape = problem.size = grid_;
    problem.classes = {ClassPattern{1, 0}};
    problem.samples = {{problem_.spacing, 0.0, kInfinity}};
    problem.max_distance = problem.limit = kInfinity;
    problem.maps = map.get();
    signed_distance(problem, threads_, isa_);
    for (Index row = 0; row < own.bits.rows(); ++row) {
      std::size_t next = static_cast<std::size_t>(own.begins[static_cast<std::size_t>(row)]);
      // On the other surface a distance is inside, hence negative.
      each_bit(own.bits.row(row), own.bits.words, [&](Index x) {
        distances[next++] = std::max(map[static_cast<std::size_t>(row * grid_[2] + x)], 0.0f);
      });
    }
  }

  const Surfaces& problem_;
  const int threads_;
  const std::optional<std::string>& isa_;
  const Kernel& kernel_;
  std::array<Index, 3> grid_;  // of the surfaces' elements
  std::vector<Worker> workers_;
  std::vector<BitVolume> masks_;   // by class, two each
  std::vector<Surface> surfaces_;  // likewise
};

}  // namespace

std::vector<SurfaceElements> surface_distances(const Surfaces& surfaces, int threads,
                                               const std::optional<std::string>& isa) {
  const auto& shape = surfaces.shape;
  if (surfaces.classes.empty()) return {};
  if (shape[0] == 0 || shape[1] == 0 || shape[2] == 0) {
    return std::vector<SurfaceElements>(2 * surfaces.classes.size());
  }
  return Measure(surfaces, threads, isa).run();
}

}  // namespace fastsdm
