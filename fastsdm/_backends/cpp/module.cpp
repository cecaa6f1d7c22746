// The Python module: checks what it is handed, releases the GIL, calls the engine.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <stdexcept>

#include "axes.hpp"
#include "engine.hpp"
#include "features.hpp"
#include "parallel.hpp"
#include "surface.hpp"

namespace nb = nanobind;

namespace {

using Labels = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Spacing = nb::ndarray<const double, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Maps = nb::ndarray<float, nb::ndim<5>, nb::c_contig, nb::device::cpu>;
using Pattern = std::optional<std::tuple<std::uint64_t, std::uint64_t>>;  // low, span
using Classes = std::vector<Pattern>;

std::optional<fastsdm::ClassPattern> pattern_of(const Pattern& given) {
  if (!given) return std::nullopt;
  return fastsdm::ClassPattern{std::get<0>(*given), std::get<1>(*given)};
}

void signed_distance(Labels labels, const Classes& classes, Spacing spacing, double max_distance, Maps maps,
                     const std::vector<double>& shifts, bool both_sides, const std::vector<double>& missing,
                     double limit, const std::tuple<fastsdm::Index, fastsdm::Index, fastsdm::Index>& first,
                     int threads, const std::optional<std::string>& isa) {
  fastsdm::Problem problem{};
  problem.labels = labels.data();
  problem.label_bytes = labels.dtype().bits / 8;
  problem.batch = static_cast<fastsdm::Index>(labels.shape(0));
  bool agree = maps.shape(0) == labels.shape(0) && maps.shape(1) == classes.size() &&
               spacing.shape(0) == labels.shape(0) && shifts.size() == labels.shape(0) &&
               missing.size() == labels.shape(0) && labels.dtype().lanes == 1;
  problem.first = {std::get<0>(first), std::get<1>(first), std::get<2>(first)};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    problem.shape[axis] = static_cast<fastsdm::Index>(labels.shape(axis + 1));
    problem.size[axis] = static_cast<fastsdm::Index>(maps.shape(axis + 2));
    agree = agree && problem.first[axis] >= 0 && problem.first[axis] <= problem.shape[axis] - problem.size[axis];
  }
  if (!agree) throw std::invalid_argument("labels, classes, maps and what is given per sample: shapes must agree");
  for (const Pattern& pattern : classes) problem.classes.push_back(pattern_of(pattern));
  for (std::size_t b = 0; b < spacing.shape(0); ++b) {
    problem.samples.push_back({{spacing(b, 0), spacing(b, 1), spacing(b, 2)}, shifts[b], missing[b]});
  }
  problem.max_distance = max_distance;
  problem.both_sides = both_sides;
  problem.limit = limit;
  problem.maps = maps.data();

  const nb::gil_scoped_release released;
  fastsdm::signed_distance(problem, threads, isa);
}

using Rows = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Squares = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Volumes = nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

void scan_rows(Rows labels, const Pattern& pattern, Squares squares, int threads,
               const std::optional<std::string>& isa) {
  if (squares.size() != labels.size()) throw std::invalid_argument("labels and squares: sizes must agree");
  fastsdm::Scan scan{labels.data(),
                     labels.dtype().bits / 8,
                     pattern_of(pattern),
                     static_cast<fastsdm::Index>(labels.shape(0)),
                     static_cast<fastsdm::Index>(labels.shape(1)),
                     squares.data()};
  const nb::gil_scoped_release released;
  fastsdm::scan_rows(scan, threads, isa);
}

// finish: unit, shift outside, shift inside, limit
void relax_axis(nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu> squares, double steps_squared,
                bool integer, const std::optional<std::tuple<double, double, double, double>>& finish, int threads,
                const std::optional<std::string>& isa) {
  fastsdm::Relaxation relaxation{squares.data(),
                                 static_cast<fastsdm::Index>(squares.shape(0)),
                                 static_cast<fastsdm::Index>(squares.shape(1)),
                                 static_cast<fastsdm::Index>(squares.shape(2)),
                                 steps_squared,
                                 integer,
                                 std::nullopt};
  if (finish) {
    const auto [unit, outside, inside, limit] = *finish;
    relaxation.finish = {static_cast<float>(unit), std::numeric_limits<float>::infinity(),
                         -static_cast<float>(outside), static_cast<float>(inside), static_cast<float>(limit)};
  }
  const nb::gil_scoped_release released;
  fastsdm::relax_axis(relaxation, threads, isa);
}

void instance_distance(Labels labels, std::uint64_t background, Spacing spacing, double max_distance,
                       const std::tuple<bool, bool, bool>& border, Volumes maps, int threads,
                       const std::optional<std::string>& isa) {
  fastsdm::Instances instances{};
  instances.labels = labels.data();
  instances.label_bytes = labels.dtype().bits / 8;
  instances.background = background;
  instances.batch = static_cast<fastsdm::Index>(labels.shape(0));
  bool agree = spacing.shape(0) == labels.shape(0) && maps.shape(0) == labels.shape(0);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    instances.shape[axis] = static_cast<fastsdm::Index>(labels.shape(axis + 1));
    agree = agree && maps.shape(axis + 1) == labels.shape(axis + 1);
  }
  if (!agree) throw std::invalid_argument("labels, spacing and maps: shapes must agree");
  for (std::size_t b = 0; b < spacing.shape(0); ++b) {
    instances.spacings.push_back({spacing(b, 0), spacing(b, 1), spacing(b, 2)});
  }
  instances.max_distance = max_distance;
  instances.border = {std::get<0>(border), std::get<1>(border), std::get<2>(border)};
  instances.maps = maps.data();
  const nb::gil_scoped_release released;
  fastsdm::instance_distance(instances, threads, isa);
}

using Indices = nb::ndarray<std::int32_t, nb::ndim<6>, nb::c_contig, nb::device::cpu>;

fastsdm::Features features_of(const Labels& labels, const Classes& classes, const Spacing& spacing,
                              double max_distance) {
  fastsdm::Features features{};
  features.labels = labels.data();
  features.label_bytes = labels.dtype().bits / 8;
  features.batch = static_cast<fastsdm::Index>(labels.shape(0));
  bool agree = spacing.shape(0) == labels.shape(0);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    features.shape[axis] = static_cast<fastsdm::Index>(labels.shape(axis + 1));
    agree = agree && (axis == 0 || features.shape[axis] <= fastsdm::kMostSteps);
  }
  if (!agree) throw std::invalid_argument("labels and spacing: shapes must agree");
  for (const Pattern& pattern : classes) features.classes.push_back(pattern_of(pattern));
  for (std::size_t b = 0; b < spacing.shape(0); ++b) {
    features.spacings.push_back({spacing(b, 0), spacing(b, 1), spacing(b, 2)});
  }
  features.max_distance = max_distance;
  return features;
}

void nearest(Labels labels, const Classes& classes, Spacing spacing, double max_distance, Indices indices,
             int threads, const std::optional<std::string>& isa) {
  fastsdm::Features features = features_of(labels, classes, spacing, max_distance);
  const std::size_t planes = indices.shape(2);
  bool agree = indices.shape(0) == labels.shape(0) && indices.shape(1) == classes.size() &&
               (planes == 3 || (planes == 2 && labels.shape(2) == 1));
  for (std::size_t axis = 1; axis < 4; ++axis) agree = agree && indices.shape(axis + 2) == labels.shape(axis);
  if (!agree) throw std::invalid_argument("labels, classes and indices: shapes must agree");
  features.planar = planes == 2;
  features.indices = indices.data();
  const nb::gil_scoped_release released;
  fastsdm::nearest(features, threads, isa);
}

using Filled = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void nearest_label(Labels labels, const Pattern& pattern, Spacing spacing, double max_distance, Words words,
                   Filled filled, int threads, const std::optional<std::string>& isa) {
  fastsdm::Features features = features_of(labels, {pattern}, spacing, max_distance);
  bool agree =
      filled.dtype() == labels.dtype() && words.size() >= labels.shape(1) * labels.shape(2) * labels.shape(3);
  for (std::size_t axis = 0; axis < 4; ++axis) agree = agree && filled.shape(axis) == labels.shape(axis);
  if (!agree) throw std::invalid_argument("labels, words and filled: shapes and dtypes must agree");
  features.planar = labels.shape(2) == 1;
  features.indices = words.data();
  features.filled = filled.data();
  const nb::gil_scoped_release released;
  fastsdm::nearest(features, threads, isa);
}

using Strided = nb::ndarray<nb::ro, nb::ndim<4>, nb::device::cpu>;

template <class T>
nb::object owned_array(std::vector<T> values) {
  auto* const kept = new std::vector<T>(std::move(values));
  const nb::capsule owner(kept, [](void* pointer) noexcept { delete static_cast<std::vector<T>*>(pointer); });
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner));
}

fastsdm::Channels channels_of(const Strided& volume) {
  return {volume.data(),
          volume.dtype().bits / 8,
          volume.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float),
          {volume.stride(0), volume.stride(1), volume.stride(2), volume.stride(3)}};
}

std::vector<std::tuple<fastsdm::Index, nb::object, nb::object>> surface_distances(
    Strided prediction, Strided reference, const std::vector<fastsdm::Index>& channels,
    const std::vector<Classes>& patterns, const std::tuple<double, double, double>& spacing, bool planar,
    bool between, bool symmetric, int threads, const std::optional<std::string>& isa) {
  fastsdm::Surfaces surfaces{};
  surfaces.volumes[0] = channels_of(prediction);
  surfaces.volumes[1] = channels_of(reference);
  bool agree = prediction.shape(0) == reference.shape(0) && patterns.size() == 2;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    surfaces.shape[axis] = static_cast<fastsdm::Index>(prediction.shape(axis + 1));
    agree = agree && prediction.shape(axis + 1) == reference.shape(axis + 1);
  }
  for (const fastsdm::Index channel : channels) {
    agree = agree && channel >= 0 && channel < static_cast<fastsdm::Index>(prediction.shape(0));
    surfaces.classes.push_back({channel, {}});
  }
  for (std::size_t volume = 0; volume < 2 && agree; ++volume) {
    agree = patterns[volume].size() == channels.size();
    for (std::size_t c = 0; c < channels.size() && agree; ++c) {
      surfaces.classes[c].patterns[volume] = pattern_of(patterns[volume][c]);
    }
  }
  for (const fastsdm::Channels& volume : surfaces.volumes)
    agree = agree && (!volume.floats || volume.element_bytes >= 4);
  if (!agree)
    throw std::invalid_argument("prediction, reference, channels and patterns: shapes and dtypes must agree");
  surfaces.planar = planar;
  surfaces.between = between;
  surfaces.symmetric = symmetric;
  surfaces.spacing = {std::get<0>(spacing), std::get<1>(spacing), std::get<2>(spacing)};
  std::vector<fastsdm::SurfaceElements> found;
  {
    const nb::gil_scoped_release released;
    found = fastsdm::surface_distances(surfaces, threads, isa);
  }
  std::vector<std::tuple<fastsdm::Index, nb::object, nb::object>> result;
  for (fastsdm::SurfaceElements& elements : found) {
    result.emplace_back(elements.count, owned_array(std::move(elements.distances)),
                        owned_array(std::move(elements.codes)));
  }
  return result;
}

}  // namespace

NB_MODULE(_native_ext, module) {
  module.def(
      "signed_distance", &signed_distance, nb::arg("labels"), nb::arg("classes"), nb::arg("spacing"),
      nb::arg("max_distance"), nb::arg("maps"), nb::kw_only(), nb::arg("shifts"), nb::arg("both_sides"),
      nb::arg("missing"), nb::arg("limit"), nb::arg("first"), nb::arg("threads"), nb::arg("isa") = nb::none(),
      "Fill maps [B, K, *S] float32 from labels [B, D, H, W] of any integer dtype, where S is (D, H, W) or\n"
      "the shape of a region of it that begins at voxel `first`.\n\n"
      "classes holds (low, span) per class, whose labels have bits from low to low + span as an unsigned number,\n"
      "or None for one that no label can equal.");
  module.def("scan_rows", &scan_rows, nb::arg("labels"), nb::arg("pattern"), nb::arg("squares"), nb::kw_only(),
             nb::arg("threads"), nb::arg("isa") = nb::none(),
             "Fill squares with the signed squared distances within the rows of labels [rows, width].");
  module.def("relax_axis", &relax_axis, nb::arg("squares"), nb::arg("steps_squared"), nb::arg("integer"),
             nb::arg("finish").none(), nb::kw_only(), nb::arg("threads"), nb::arg("isa") = nb::none(),
             "Relax signed squares [outer, length, inner] along the middle axis, in place.\n\n"
             "finish is None or (unit, shift outside, shift inside, limit): then the result is distances.");
  module.def("instance_distance", &instance_distance, nb::arg("labels"), nb::arg("background"), nb::arg("spacing"),
             nb::arg("max_distance"), nb::arg("border"), nb::arg("maps"), nb::kw_only(), nb::arg("threads"),
             nb::arg("isa") = nb::none(),
             "Fill maps [B, D, H, W] with the distance to the nearest voxel of another label.");
  module.def(
      "nearest", &nearest, nb::arg("labels"), nb::arg("classes"), nb::arg("spacing"), nb::arg("max_distance"),
      nb::arg("indices"), nb::kw_only(), nb::arg("threads"), nb::arg("isa") = nb::none(),
      "Fill indices [B, K, 3, D, H, W] of the nearest voxels of the other phase, -1 for none. Where H is 1\n"
      "it may be [B, K, 2, D, 1, W], without that index.");
  module.def(
      "nearest_label", &nearest_label, nb::arg("labels"), nb::arg("pattern"), nb::arg("spacing"),
      nb::arg("max_distance"), nb::arg("words"), nb::arg("filled"), nb::kw_only(), nb::arg("threads"),
      nb::arg("isa") = nb::none(),
      "Fill filled, of labels' shape and dtype, with each label; where the pattern does not match, with that\n"
      "of the nearest voxel where it does. words is memory for as many int32 as a volume has voxels.");
  module.def(
      "surface_distances", &surface_distances, nb::arg("prediction"), nb::arg("reference"), nb::arg("channels"),
      nb::arg("patterns"), nb::arg("spacing"), nb::kw_only(), nb::arg("planar"), nb::arg("between"),
      nb::arg("symmetric"), nb::arg("threads"), nb::arg("isa") = nb::none(),
      "Measure the surfaces of [C, D, H, W] against each other: (count, distances, codes) of the prediction's\n"
      "and the reference's surface for each class. patterns holds the classes of either volume, as in\n"
      "signed_distance.");
  module.def(
      "fail_thread_after", [](int started) { fastsdm::threads_before_failure = started; }, nb::arg("started"),
      "For tests: starting one more thread after so many fails once for want of memory.");
  module.def("isas", &fastsdm::supported_isas, "Instruction sets this CPU can run, best first.");
}
