#include "dispatch.hpp"

#if defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace fastsdm {

namespace baseline {
extern const Kernel kernel;
}

#if defined(FASTSDM_X86_KERNELS)
namespace avx2 {
extern const Kernel kernel;
}
namespace avx512 {
extern const Kernel kernel;
}

namespace {

#if defined(_MSC_VER) && !defined(__clang__)
// The operating system must save the registers too: `state` are the bits of XCR0 that say so.
bool has(int bits_of_ebx, unsigned long long state) {
  int leaf[4];
  __cpuid(leaf, 0);
  if (leaf[0] < 7) return false;
  __cpuid(leaf, 1);
  const int osxsave = 1 << 27;
  if (!(leaf[2] & osxsave) || (_xgetbv(0) & state) != state) return false;
  __cpuidex(leaf, 7, 0);
  return (leaf[1] & bits_of_ebx) == bits_of_ebx;
}
bool has_avx2() { return has(1 << 5, 0x6); }
bool has_avx512() { return has(1 << 16 | 1 << 17 | 1 << 30 | static_cast<int>(1u << 31), 0xe6); }
#else
bool has_avx2() { return __builtin_cpu_supports("avx2"); }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace
#endif

const std::vector<const Kernel*>& supported_kernels() {
  static const std::vector<const Kernel*> kernels = [] {
    std::vector<const Kernel*> found;
#if defined(FASTSDM_X86_KERNELS)
    if (has_avx512()) found.push_back(&avx512::kernel);
    if (has_avx2()) found.push_back(&avx2::kernel);
#endif
    found.push_back(&baseline::kernel);
    return found;
  }();
  return kernels;
}

}  // namespace fastsdm
