// Vectors of SSE2, which every x86-64 CPU has. See kernel.cpp.
#include <emmintrin.h>

#include <limits>

#include "../kernel.hpp"

namespace fastsdm::FASTSDM_ISA {
namespace {

struct Floats {
  using T = float;
  static constexpr Index lanes = 4;
  static constexpr bool saturates = false;
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  __m128 v;

  static Floats load(const float* p) { return {_mm_loadu_ps(p)}; }
  static Floats splat(float x) { return {_mm_set1_ps(x)}; }
  static Floats iota() { return {_mm_setr_ps(0, 1, 2, 3)}; }
  static Floats from_floats(const float* p) { return load(p); }
  void store(float* p) const { _mm_storeu_ps(p, v); }
  void expand(Floats (&parts)[1]) const { parts[0] = *this; }
};
inline Floats add(Floats a, Floats b) { return {_mm_add_ps(a.v, b.v)}; }
inline Floats subtract(Floats a, Floats b) { return {_mm_sub_ps(a.v, b.v)}; }
inline Floats multiply(Floats a, Floats b) { return {_mm_mul_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm_min_ps(a.v, b.v)}; }
inline Floats max(Floats a, Floats b) { return {_mm_max_ps(a.v, b.v)}; }
inline Floats root(Floats a) { return {_mm_sqrt_ps(a.v)}; }
inline Floats magnitude(Floats a) { return {_mm_andnot_ps(_mm_set1_ps(-0.0f), a.v)}; }
inline Floats with_sign_of(Floats positive, Floats a) {
  return {_mm_or_ps(positive.v, _mm_and_ps(_mm_set1_ps(-0.0f), a.v))};
}
inline Floats zero_up_to(Floats bound, Floats a) {
  return {_mm_and_ps(a.v, _mm_cmpgt_ps(magnitude(a).v, bound.v))};
}
inline void gather(const std::int32_t* from, const std::int32_t* at, std::int32_t* to) {
  for (int i = 0; i < Floats::lanes; ++i) to[i] = from[at[i]];
}
inline bool any_less(Floats a, Floats b) { return _mm_movemask_ps(_mm_cmplt_ps(a.v, b.v)) != 0; }

struct Shorts {
  using T = std::int16_t;
  static constexpr Index lanes = 8;
  static constexpr bool saturates = true;
  static constexpr T infinity = kShortMax;
  __m128i v;

  static Shorts load(const T* p) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))}; }
  static Shorts splat(T x) { return {_mm_set1_epi16(x)}; }
  static Shorts from_floats(const float* p) { return {_mm_packs_epi32(rounded(p), rounded(p + 4))}; }
  void store(T* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
  void expand(Floats (&parts)[2]) const {
    // Into the upper half of 32 bits, then down with the sign.
    parts[0] = {_mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(v, v), 16))};
    parts[1] = {_mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpackhi_epi16(v, v), 16))};
  }

 private:
  static __m128i rounded(const float* p) {
    const Floats most = Floats::splat(kShortMax), least = Floats::splat(-kShortMax);
    return _mm_cvtps_epi32(min(max(Floats::load(p), least), most).v);
  }
};
inline Shorts add(Shorts a, Shorts b) { return {_mm_adds_epi16(a.v, b.v)}; }
inline Shorts subtract(Shorts a, Shorts b) { return {_mm_subs_epi16(a.v, b.v)}; }
inline Shorts min(Shorts a, Shorts b) { return {_mm_min_epi16(a.v, b.v)}; }
inline Shorts max(Shorts a, Shorts b) { return {_mm_max_epi16(a.v, b.v)}; }
inline bool any_less(Shorts a, Shorts b) { return _mm_movemask_epi8(_mm_cmplt_epi16(a.v, b.v)) != 0; }

// Words of the search for nearest voxels: see nearest.hpp.
struct Ints {
  using T = std::int32_t;
  static constexpr Index lanes = 4;
  static constexpr T infinity = kNearInfinity;
  __m128i v;

  static Ints load(const T* p) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))}; }
  static Ints splat(T x) { return {_mm_set1_epi32(x)}; }
  void store(T* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
  void stream(T* p) const { _mm_stream_si128(reinterpret_cast<__m128i*>(p), v); }
  static void end_stream() { _mm_sfence(); }
};
inline Ints add(Ints a, Ints b) { return {_mm_add_epi32(a.v, b.v)}; }
inline Ints subtract(Ints a, Ints b) { return {_mm_sub_epi32(a.v, b.v)}; }
inline Ints chosen(__m128i first, Ints a, Ints b) {
  return {_mm_or_si128(_mm_and_si128(first, a.v), _mm_andnot_si128(first, b.v))};
}
inline Ints min(Ints a, Ints b) { return chosen(_mm_cmplt_epi32(a.v, b.v), a, b); }
inline Ints max(Ints a, Ints b) { return chosen(_mm_cmpgt_epi32(a.v, b.v), a, b); }
inline bool any_less(Ints a, Ints b) { return _mm_movemask_epi8(_mm_cmplt_epi32(a.v, b.v)) != 0; }
inline Ints where_less(Floats a, Floats b, Ints x, Ints y) {
  return chosen(_mm_castps_si128(_mm_cmplt_ps(a.v, b.v)), x, y);
}

}  // namespace
}  // namespace fastsdm::FASTSDM_ISA
