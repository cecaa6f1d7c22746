// Arrays of four, left to the compiler to vectorise. See kernel.cpp.
#include <math.h>
#include <string.h>

#include <limits>

#include "../kernel.hpp"

namespace fastsdm::FASTSDM_ISA {
namespace {

struct Floats {
  using T = float;
  static constexpr Index lanes = 4;
  static constexpr bool saturates = false;
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  T v[lanes];

  static Floats load(const T* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static Floats splat(T x) { return {{x, x, x, x}}; }
  static Floats iota() { return {{0, 1, 2, 3}}; }
  static Floats from_floats(const float* p) { return load(p); }
  void store(T* p) const { memcpy(p, v, sizeof v); }
  void expand(Floats (&parts)[1]) const { parts[0] = *this; }
};

// Signed squares up to kShortMax in 32 bits: what 16 saturating bits would hold.
struct Shorts {
  using T = std::int16_t;
  static constexpr Index lanes = 4;
  static constexpr bool saturates = true;
  static constexpr T infinity = kShortMax;
  std::int32_t v[lanes];

  static Shorts load(const T* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static Shorts splat(std::int32_t x) { return {{x, x, x, x}}; }
  static Shorts from_floats(const float* p) {
    Shorts result{};
    for (int i = 0; i < lanes; ++i) {
      const float cut = p[i] > kShortMax ? kShortMax : p[i] < -kShortMax ? -kShortMax : p[i];
      result.v[i] = static_cast<std::int32_t>(cut);
    }
    return result;
  }
  void store(T* p) const {
    for (int i = 0; i < lanes; ++i) p[i] = static_cast<T>(v[i]);
  }
  void expand(Floats (&parts)[1]) const {
    for (int i = 0; i < lanes; ++i) parts[0].v[i] = static_cast<float>(v[i]);
  }
};

template <class V, class Operation>
inline V lanewise(V a, const V& b, Operation operation) {
  for (int i = 0; i < V::lanes; ++i) a.v[i] = operation(a.v[i], b.v[i]);
  return a;
}
template <class V>
inline V min(const V& a, const V& b) {
  return lanewise(a, b, [](auto x, auto y) { return x < y ? x : y; });
}
template <class V>
inline V max(const V& a, const V& b) {
  return lanewise(a, b, [](auto x, auto y) { return x > y ? x : y; });
}
template <class V>
inline bool any_less(const V& a, const V& b) {
  bool any = false;
  for (int i = 0; i < V::lanes; ++i) any |= a.v[i] < b.v[i];
  return any;
}
inline void gather(const std::int32_t* from, const std::int32_t* at, std::int32_t* to) {
  for (int i = 0; i < Floats::lanes; ++i) to[i] = from[at[i]];
}
inline Floats add(const Floats& a, const Floats& b) {
  return lanewise(a, b, [](float x, float y) { return x + y; });
}
inline Floats subtract(const Floats& a, const Floats& b) {
  return lanewise(a, b, [](float x, float y) { return x - y; });
}
inline Floats multiply(const Floats& a, const Floats& b) {
  return lanewise(a, b, [](float x, float y) { return x * y; });
}
inline Floats root(const Floats& a) {
  return lanewise(a, a, [](float x, float) { return sqrtf(x); });
}
inline Floats magnitude(const Floats& a) {
  return lanewise(a, a, [](float x, float) { return fabsf(x); });
}
inline Floats with_sign_of(const Floats& positive, const Floats& a) {
  return lanewise(positive, a, [](float x, float sign) { return copysignf(x, sign); });
}
inline Floats zero_up_to(const Floats& bound, const Floats& a) {
  return lanewise(bound, a, [](float most, float x) { return fabsf(x) > most ? x : 0.0f; });
}
inline Shorts add(const Shorts& a, const Shorts& b) {
  return min(lanewise(a, b, [](std::int32_t x, std::int32_t y) { return x + y; }), Shorts::splat(kShortMax));
}
inline Shorts subtract(const Shorts& a, const Shorts& b) {
  return lanewise(a, b, [](std::int32_t x, std::int32_t y) { return x - y; });  // one of them is 0
}

// Words of the search for nearest voxels: see nearest.hpp.
struct Ints {
  using T = std::int32_t;
  static constexpr Index lanes = 4;
  static constexpr T infinity = kNearInfinity;
  T v[lanes];

  static Ints load(const T* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static Ints splat(T x) { return {{x, x, x, x}}; }
  void store(T* p) const { memcpy(p, v, sizeof v); }
  void stream(T* p) const { store(p); }
  static void end_stream() {}
};
inline Ints add(const Ints& a, const Ints& b) {
  return lanewise(a, b, [](std::int32_t x, std::int32_t y) { return x + y; });
}
inline Ints subtract(const Ints& a, const Ints& b) {
  return lanewise(a, b, [](std::int32_t x, std::int32_t y) { return x - y; });
}
inline Ints where_less(const Floats& a, const Floats& b, const Ints& x, Ints y) {
  for (int i = 0; i < Ints::lanes; ++i) y.v[i] = a.v[i] < b.v[i] ? x.v[i] : y.v[i];
  return y;
}

}  // namespace
}  // namespace fastsdm::FASTSDM_ISA
