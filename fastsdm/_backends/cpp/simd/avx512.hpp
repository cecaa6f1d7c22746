// Vectors of AVX-512 (F, BW, DQ, VL). See kernel.cpp.
#include <immintrin.h>

#include <limits>

#include "../kernel.hpp"

namespace fastsdm::FASTSDM_ISA {
namespace {

struct Floats {
  using T = float;
  static constexpr Index lanes = 16;
  static constexpr bool saturates = false;
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  __m512 v;

  static Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Floats splat(float x) { return {_mm512_set1_ps(x)}; }
  static Floats iota() { return {_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }
  static Floats from_floats(const float* p) { return load(p); }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void expand(Floats (&parts)[1]) const { parts[0] = *this; }
};
inline Floats add(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats subtract(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats multiply(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats root(Floats a) { return {_mm512_sqrt_ps(a.v)}; }
inline Floats magnitude(Floats a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
inline Floats with_sign_of(Floats positive, Floats a) {
  return {_mm512_or_ps(positive.v, _mm512_and_ps(_mm512_set1_ps(-0.0f), a.v))};
}
inline Floats zero_up_to(Floats bound, Floats a) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(magnitude(a).v, bound.v, _CMP_GT_OQ), a.v)};
}
inline void gather(const std::int32_t* from, const std::int32_t* at, std::int32_t* to) {
  _mm512_storeu_si512(to, _mm512_i32gather_epi32(_mm512_loadu_si512(at), from, 4));
}
inline bool any_less(Floats a, Floats b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ) != 0; }

struct Shorts {
  using T = std::int16_t;
  static constexpr Index lanes = 32;
  static constexpr bool saturates = true;
  static constexpr T infinity = kShortMax;
  __m512i v;

  static Shorts load(const T* p) { return {_mm512_loadu_si512(p)}; }
  static Shorts splat(T x) { return {_mm512_set1_epi16(x)}; }
  static Shorts from_floats(const float* p) {
    return {_mm512_inserti64x4(_mm512_castsi256_si512(rounded(p)), rounded(p + 16), 1)};
  }
  void store(T* p) const { _mm512_storeu_si512(p, v); }
  void expand(Floats (&parts)[2]) const {
    parts[0] = {_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(v)))};
    parts[1] = {_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v, 1)))};
  }

 private:
  static __m256i rounded(const float* p) {
    const Floats most = Floats::splat(kShortMax), least = Floats::splat(-kShortMax);
    return _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(min(max(Floats::load(p), least), most).v));
  }
};
inline Shorts add(Shorts a, Shorts b) { return {_mm512_adds_epi16(a.v, b.v)}; }
inline Shorts subtract(Shorts a, Shorts b) { return {_mm512_subs_epi16(a.v, b.v)}; }
inline Shorts min(Shorts a, Shorts b) { return {_mm512_min_epi16(a.v, b.v)}; }
inline Shorts max(Shorts a, Shorts b) { return {_mm512_max_epi16(a.v, b.v)}; }
inline bool any_less(Shorts a, Shorts b) { return _mm512_cmplt_epi16_mask(a.v, b.v) != 0; }

// Words of the search for nearest voxels: see nearest.hpp.
struct Ints {
  using T = std::int32_t;
  static constexpr Index lanes = 16;
  static constexpr T infinity = kNearInfinity;
  __m512i v;

  static Ints load(const T* p) { return {_mm512_loadu_si512(p)}; }
  static Ints splat(T x) { return {_mm512_set1_epi32(x)}; }
  void store(T* p) const { _mm512_storeu_si512(p, v); }
  void stream(T* p) const { _mm512_stream_si512(reinterpret_cast<__m512i*>(p), v); }
  static void end_stream() { _mm_sfence(); }
};
inline Ints add(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Ints subtract(Ints a, Ints b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline Ints min(Ints a, Ints b) { return {_mm512_min_epi32(a.v, b.v)}; }
inline Ints max(Ints a, Ints b) { return {_mm512_max_epi32(a.v, b.v)}; }
inline bool any_less(Ints a, Ints b) { return _mm512_cmplt_epi32_mask(a.v, b.v) != 0; }
inline Ints where_less(Floats a, Floats b, Ints x, Ints y) {
  return {_mm512_mask_mov_epi32(y.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), x.v)};
}

}  // namespace
}  // namespace fastsdm::FASTSDM_ISA
