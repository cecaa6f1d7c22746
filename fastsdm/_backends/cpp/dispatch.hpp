// Which kernels were built, and which of them this CPU can run.
#pragma once

#include <vector>

#include "kernel.hpp"

namespace fastsdm {

// Best first. The last one, "baseline", runs on any CPU the module was built for.
const std::vector<const Kernel*>& supported_kernels();

}  // namespace fastsdm
