// Vectors of what every CPU of the architecture has.
#if defined(__x86_64__) || defined(_M_X64)
#include "sse2.hpp"
#elif defined(__aarch64__) || defined(_M_ARM64)
#include "neon.hpp"
#else
#include "plain.hpp"
#endif
