// Vectors of what every CPU of the architecture has: SSE2 on x86-64, NEON on ARM, else arrays of four.
#include <limits>

#include "kernel.hpp"

#define FASTSDM_ISA baseline
#define FASTSDM_ISA_NAME "baseline"

#if defined(__x86_64__) || defined(_M_X64)
#include "vectors_sse2.hpp"
#elif defined(__aarch64__) || defined(_M_ARM64)
#include "vectors_neon.hpp"
#else
#include "vectors_plain.hpp"
#endif

#include "relax.hpp"
