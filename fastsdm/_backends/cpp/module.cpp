// The Python module: checks what it is handed, releases the GIL, calls the engine.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "engine.hpp"
#include "parallel.hpp"

namespace nb = nanobind;

namespace {

using Labels = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Spacing = nb::ndarray<const double, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Maps = nb::ndarray<float, nb::ndim<5>, nb::c_contig, nb::device::cpu>;
using Classes = std::vector<std::optional<std::tuple<std::uint64_t, bool>>>;

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
  for (const auto& pattern : classes) {
    problem.classes.emplace_back();
    if (pattern) problem.classes.back() = {std::get<0>(*pattern), std::get<1>(*pattern)};
  }
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

}  // namespace

NB_MODULE(_native_ext, module) {
  module.def("signed_distance", &signed_distance, nb::arg("labels"), nb::arg("classes"), nb::arg("spacing"),
             nb::arg("max_distance"), nb::arg("maps"), nb::kw_only(), nb::arg("shifts"),
             nb::arg("both_sides"), nb::arg("missing"), nb::arg("limit"), nb::arg("first"),
             nb::arg("threads"), nb::arg("isa") = nb::none(),
             "Fill maps [B, K, *S] float32 from labels [B, D, H, W] of any integer dtype, where S is (D, H, W) or\n"
             "the shape of a region of it that begins at voxel `first`.\n\n"
             "classes holds (bit pattern, inverted) per class, or None for one that no label can equal.");
  module.def("fail_thread_after", [](int started) { fastsdm::threads_before_failure = started; },
             nb::arg("started"), "For tests: starting one more thread after so many fails once for want of memory.");
  module.def("isas", &fastsdm::supported_isas, "Instruction sets this CPU can run, best first.");
}
