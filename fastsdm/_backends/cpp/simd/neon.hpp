// Vectors of NEON, which every 64-bit ARM CPU has. See kernel.cpp.
#include <arm_neon.h>

#include <limits>

#include "../kernel.hpp"

namespace fastsdm::FASTSDM_ISA {
namespace {

struct Floats {
  using T = float;
  static constexpr Index lanes = 4;
  static constexpr bool saturates = false;
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  float32x4_t v;

  static Floats load(const float* p) { return {vld1q_f32(p)}; }
  static Floats splat(float x) { return {vdupq_n_f32(x)}; }
  static Floats iota() {
    const float lane[lanes] = {0, 1, 2, 3};
    return load(lane);
  }
  static Floats from_floats(const float* p) { return load(p); }
  void store(float* p) const { vst1q_f32(p, v); }
  void expand(Floats (&parts)[1]) const { parts[0] = *this; }
};
inline Floats add(Floats a, Floats b) { return {vaddq_f32(a.v, b.v)}; }
inline Floats subtract(Floats a, Floats b) { return {vsubq_f32(a.v, b.v)}; }
inline Floats multiply(Floats a, Floats b) { return {vmulq_f32(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {vminq_f32(a.v, b.v)}; }
inline Floats max(Floats a, Floats b) { return {vmaxq_f32(a.v, b.v)}; }
inline Floats root(Floats a) { return {vsqrtq_f32(a.v)}; }
inline Floats magnitude(Floats a) { return {vabsq_f32(a.v)}; }
inline Floats with_sign_of(Floats positive, Floats a) {
  return {vbslq_f32(vdupq_n_u32(0x80000000u), a.v, positive.v)};
}
inline Floats zero_up_to(Floats bound, Floats a) {
  return {vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a.v), vcagtq_f32(a.v, bound.v)))};
}
inline void gather(const std::int32_t* from, const std::int32_t* at, std::int32_t* to) {
  for (int i = 0; i < Floats::lanes; ++i) to[i] = from[at[i]];
}
inline bool any_less(Floats a, Floats b) { return vmaxvq_u32(vcltq_f32(a.v, b.v)) != 0; }

struct Shorts {
  using T = std::int16_t;
  static constexpr Index lanes = 8;
  static constexpr bool saturates = true;
  static constexpr T infinity = kShortMax;
  int16x8_t v;

  static Shorts load(const T* p) { return {vld1q_s16(p)}; }
  static Shorts splat(T x) { return {vdupq_n_s16(x)}; }
  static Shorts from_floats(const float* p) { return {vcombine_s16(rounded(p), rounded(p + 4))}; }
  void store(T* p) const { vst1q_s16(p, v); }
  void expand(Floats (&parts)[2]) const {
    parts[0] = {vcvtq_f32_s32(vmovl_s16(vget_low_s16(v)))};
    parts[1] = {vcvtq_f32_s32(vmovl_s16(vget_high_s16(v)))};
  }

 private:
  static int16x4_t rounded(const float* p) {
    const Floats most = Floats::splat(kShortMax), least = Floats::splat(-kShortMax);
    return vqmovn_s32(vcvtnq_s32_f32(min(max(Floats::load(p), least), most).v));
  }
};
inline Shorts add(Shorts a, Shorts b) { return {vqaddq_s16(a.v, b.v)}; }
inline Shorts subtract(Shorts a, Shorts b) { return {vqsubq_s16(a.v, b.v)}; }
inline Shorts min(Shorts a, Shorts b) { return {vminq_s16(a.v, b.v)}; }
inline Shorts max(Shorts a, Shorts b) { return {vmaxq_s16(a.v, b.v)}; }
inline bool any_less(Shorts a, Shorts b) { return vmaxvq_u16(vcltq_s16(a.v, b.v)) != 0; }

// Words of the search for nearest voxels: see nearest.hpp.
struct Ints {
  using T = std::int32_t;
  static constexpr Index lanes = 4;
  static constexpr T infinity = kNearInfinity;
  int32x4_t v;

  static Ints load(const T* p) { return {vld1q_s32(p)}; }
  static Ints splat(T x) { return {vdupq_n_s32(x)}; }
  void store(T* p) const { vst1q_s32(p, v); }
  void stream(T* p) const { store(p); }
  static void end_stream() {}
};
inline Ints add(Ints a, Ints b) { return {vaddq_s32(a.v, b.v)}; }
inline Ints subtract(Ints a, Ints b) { return {vsubq_s32(a.v, b.v)}; }
inline Ints min(Ints a, Ints b) { return {vminq_s32(a.v, b.v)}; }
inline Ints max(Ints a, Ints b) { return {vmaxq_s32(a.v, b.v)}; }
inline bool any_less(Ints a, Ints b) { return vmaxvq_u32(vcltq_s32(a.v, b.v)) != 0; }
inline Ints where_less(Floats a, Floats b, Ints x, Ints y) { return {vbslq_s32(vcltq_f32(a.v, b.v), x.v, y.v)}; }

}  // namespace
}  // namespace fastsdm::FASTSDM_ISA
