// Vectors of AVX2. See kernel.cpp.
#include <immintrin.h>

#include <limits>

#include "../kernel.hpp"

namespace fastsdm::FASTSDM_ISA {
namespace {

struct Floats {
  using T = float;
  static constexpr Index lanes = 8;
  static constexpr bool saturates = false;
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  __m256 v;

  static Floats load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Floats splat(float x) { return {_mm256_set1_ps(x)}; }
  static Floats iota() { return {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7)}; }
  static Floats from_floats(const float* p) { return load(p); }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void expand(Floats (&parts)[1]) const { parts[0] = *this; }
};
inline Floats add(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Floats subtract(Floats a, Floats b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Floats multiply(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Floats root(Floats a) { return {_mm256_sqrt_ps(a.v)}; }
inline Floats magnitude(Floats a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Floats with_sign_of(Floats positive, Floats a) {
  return {_mm256_or_ps(positive.v, _mm256_and_ps(_mm256_set1_ps(-0.0f), a.v))};
}
inline Floats zero_up_to(Floats bound, Floats a) {
  return {_mm256_and_ps(a.v, _mm256_cmp_ps(magnitude(a).v, bound.v, _CMP_GT_OQ))};
}
inline void gather(const std::int32_t* from, const std::int32_t* at, std::int32_t* to) {
  const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_i32gather_epi32(from, index, 4));
}
inline bool any_less(Floats a, Floats b) { return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)) != 0; }

struct Shorts {
  using T = std::int16_t;
  static constexpr Index lanes = 16;
  static constexpr bool saturates = true;
  static constexpr T infinity = kShortMax;
  __m256i v;

  static Shorts load(const T* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  static Shorts splat(T x) { return {_mm256_set1_epi16(x)}; }
  static Shorts from_floats(const float* p) {
    const __m256i packed = _mm256_packs_epi32(rounded(p), rounded(p + 8));
    return {_mm256_permute4x64_epi64(packed, 0xd8)};
  }
  void store(T* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  void expand(Floats (&parts)[2]) const {
    parts[0] = {_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(v)))};
    parts[1] = {_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1)))};
  }

 private:
  static __m256i rounded(const float* p) {
    const Floats most = Floats::splat(kShortMax), least = Floats::splat(-kShortMax);
    return _mm256_cvtps_epi32(min(max(Floats::load(p), least), most).v);
  }
};
inline Shorts add(Shorts a, Shorts b) { return {_mm256_adds_epi16(a.v, b.v)}; }
inline Shorts subtract(Shorts a, Shorts b) { return {_mm256_subs_epi16(a.v, b.v)}; }
inline Shorts min(Shorts a, Shorts b) { return {_mm256_min_epi16(a.v, b.v)}; }
inline Shorts max(Shorts a, Shorts b) { return {_mm256_max_epi16(a.v, b.v)}; }
inline bool any_less(Shorts a, Shorts b) { return _mm256_movemask_epi8(_mm256_cmpgt_epi16(b.v, a.v)) != 0; }

// Words of the search for nearest voxels: see nearest.hpp.
struct Ints {
  using T = std::int32_t;
  static constexpr Index lanes = 8;
  static constexpr T infinity = kNearInfinity;
  __m256i v;

  static Ints load(const T* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  static Ints splat(T x) { return {_mm256_set1_epi32(x)}; }
  void store(T* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  void stream(T* p) const { _mm256_stream_si256(reinterpret_cast<__m256i*>(p), v); }
  static void end_stream() { _mm_sfence(); }
};
inline Ints add(Ints a, Ints b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline Ints subtract(Ints a, Ints b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline Ints min(Ints a, Ints b) { return {_mm256_min_epi32(a.v, b.v)}; }
inline Ints max(Ints a, Ints b) { return {_mm256_max_epi32(a.v, b.v)}; }
inline bool any_less(Ints a, Ints b) { return _mm256_movemask_epi8(_mm256_cmpgt_epi32(b.v, a.v)) != 0; }
inline Ints where_less(Floats a, Floats b, Ints x, Ints y) {
  return {_mm256_blendv_epi8(y.v, x.v, _mm256_castps_si256(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)))};
}

}  // namespace
}  // namespace fastsdm::FASTSDM_ISA
