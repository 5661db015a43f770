// Instruction sets that kernels are compiled for, their vectors, and the storage types they read.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <type_traits>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define GEONORM_INLINE inline __attribute__((always_inline))
#define GEONORM_LAMBDA __attribute__((always_inline))
// Seldom called from a loop that needs its registers for itself.
#define GEONORM_SELDOM __attribute__((noinline))
// Before a short loop over vectors, which stay in registers only if it is unrolled.
#define GEONORM_UNROLL _Pragma("GCC unroll 8")

namespace geonorm {

// The instruction sets that kernels are compiled for.
enum class Machine { any, avx2, avx512 };

inline Machine best_machine() {
#ifdef __x86_64__
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Machine::any;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return wide ? Machine::avx512 : Machine::avx2;
#else
  return Machine::any;
#endif
}

// The one in use, which tests change to a lesser one.
inline Machine& machine() {
  static Machine chosen = best_machine();
  return chosen;
}

template <int N>
using Number = std::integral_constant<int, N>;

#ifdef __x86_64__
template <class F>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))) void on_avx512(const F& f) {
  f(Number<64>{});
}
template <class F>
__attribute__((target("avx2,fma"))) void on_avx2(const F& f) {
  f(Number<32>{});
}
#endif

// Calls f(bytes of a vector), a GEONORM_LAMBDA, compiled for this machine; what f calls is compiled
// with it only if inlined, hence GEONORM_INLINE. The last bits depend on the machine: the compiler
// makes an FMA of a product and a sum where there is one (see setup.py).
template <class F>
void vectorized(const F& f) {
#ifdef __x86_64__
  if (machine() == Machine::avx512) return on_avx512(f);
  if (machine() == Machine::avx2) return on_avx2(f);
#endif
  f(Number<16>{});
}

// How many vectors of B bytes, and as many of each sum, stay in registers.
template <int B>
constexpr int kAbreast = B > 32 ? 2 : 4;

template <class A, int W>
struct VectorOf {
  typedef A type __attribute__((vector_size(sizeof(A) * W)));
};
template <class A>
struct VectorOf<A, 1> {
  using type = A;
};
template <class A, int W>
using Vec = typename VectorOf<A, W>::type;

// The type in which a storage type is calculated.
template <class T>
using Math = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class To, class From>
GEONORM_INLINE To convert(From from) {
  if constexpr (std::is_same_v<To, From>) {
    return from;
  } else if constexpr (std::is_arithmetic_v<To>) {
    return static_cast<To>(from);
  } else {
    return __builtin_convertvector(from, To);
  }
}

template <class To, class From>
GEONORM_INLINE To bits_of(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

template <class V, class P>
GEONORM_INLINE V raw(const P* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(V));
  return v;
}

template <int W>
GEONORM_INLINE Vec<float, W> from_half(Vec<uint32_t, W> half) {
  using U = Vec<uint32_t, W>;
  const U magnitude = (half & 0x7fffu) << 13;
  // Scaling by 2^112 rebiases the exponent and makes subnormals normal; infinity and NaN keep
  // every exponent bit.
  const U scaled = bits_of<U>(Vec<float, W>(bits_of<Vec<float, W>>(magnitude) * 0x1p112f));
  const U special = magnitude >= 0x0f800000u ? scaled | 0x7f800000u : scaled;
  return bits_of<Vec<float, W>>(U(special | (half & 0x8000u) << 16));
}

template <int W>
GEONORM_INLINE Vec<uint32_t, W> to_half(Vec<float, W> x) {
  using U = Vec<uint32_t, W>;
  using F = Vec<float, W>;
  const U bits = bits_of<U>(x), twice = bits + bits;
  // Adding a power of two that depends on the exponent rounds the mantissa to half's ten bits.
  const F magnitude = bits_of<F>(U(bits & 0x7fffffffu)) * 0x1p112f * 0x1p-110f;
  U bias = twice & 0xff000000u;
  bias = bias < 0x71000000u ? U{} + 0x71000000u : bias;
  const U sum = bits_of<U>(F(bits_of<F>(U((bias >> 1) + 0x07800000u)) + magnitude));
  const U rounded = ((sum >> 13) & 0x7c00u) + (sum & 0x0fffu);
  return (bits & 0x80000000u) >> 16 | (twice > 0xff000000u ? U{} + 0x7e00u : rounded);
}

template <int W>
GEONORM_INLINE Vec<uint32_t, W> to_bfloat16(Vec<float, W> x) {
  using U = Vec<uint32_t, W>;
  const U bits = bits_of<U>(x);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? U{} + 0x7fc0u : rounded;
}

// W values of storage type T as a vector of A.
template <class A, int W, class T>
GEONORM_INLINE Vec<A, W> read(const T* p) {
  if constexpr (std::is_floating_point_v<T>) {
    return convert<Vec<A, W>>(raw<Vec<T, W>>(p));
  } else {
    const auto bits = convert<Vec<uint32_t, W>>(raw<Vec<uint16_t, W>>(p));
    if constexpr (std::is_same_v<T, c10::Half>) {
      return convert<Vec<A, W>>(from_half<W>(bits));
    } else {
      return convert<Vec<A, W>>(bits_of<Vec<float, W>>(Vec<uint32_t, W>(bits << 16)));
    }
  }
}

template <int W, class T>
GEONORM_INLINE void write(T* p, Vec<Math<T>, W> v) {
  if constexpr (std::is_floating_point_v<T>) {
    __builtin_memcpy(p, &v, sizeof(v));
  } else {
    Vec<uint16_t, W> bits;
    if constexpr (std::is_same_v<T, c10::Half>) {
      bits = convert<Vec<uint16_t, W>>(to_half<W>(v));
    } else {
      bits = convert<Vec<uint16_t, W>>(to_bfloat16<W>(v));
    }
    __builtin_memcpy(p, &bits, sizeof(bits));
  }
}

// Stores past the cache, for results too large to be found there again; finish with fence().
template <int W, class T>
GEONORM_INLINE void write_past_cache(T* p, Vec<Math<T>, W> v) {
#ifdef __SSE2__
  if constexpr (W > 1) {
    alignas(64) T values[W];
    write<W>(values, v);
    constexpr size_t kParts = W * sizeof(T) / sizeof(__m128i);
    for (size_t k = 0; k < kParts; ++k) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(p) + k,
                       reinterpret_cast<const __m128i*>(values)[k]);
    }
    return;
  }
#endif
  write<W>(p, v);
}

inline void fence() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

template <int N, class T>
GEONORM_INLINE void prefetch(const T* p) {
  for (size_t b = 0; b < N * sizeof(T); b += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(p) + b);
  }
}

// Calls f(W, U, c) for U vectors of B bytes, W channels each, from c on, then for single ones, then
// for half of one, then for single channels.
template <int B, class A, int U, class F>
GEONORM_INLINE void over_channels(int64_t channels, F f) {
  constexpr int W = B / sizeof(A);
  int64_t c = 0;
  for (; c + U * W <= channels; c += U * W) f(Number<W>{}, Number<U>{}, c);
  for (; U > 1 && c + W <= channels; c += W) f(Number<W>{}, Number<1>{}, c);
  if (c + W / 2 <= channels) {
    f(Number<W / 2>{}, Number<1>{}, c);
    c += W / 2;
  }
  for (; c < channels; ++c) f(Number<1>{}, Number<1>{}, c);
}

enum class Activation { none, relu, leaky_relu };

// Calls f with a constant of the compiler for each flag.
template <class F>
GEONORM_INLINE void with_flags(F f, bool flag) {
  flag ? f(std::true_type{}) : f(std::false_type{});
}
template <class F>
GEONORM_INLINE void with_flags(F f, bool one, bool other) {
  with_flags([&](auto known) GEONORM_LAMBDA {
    other ? f(known, std::true_type{}) : f(known, std::false_type{});
  }, one);
}

// Calls f with the activation as a constant of the compiler.
template <class F>
GEONORM_INLINE void with_activation(Activation activation, F f) {
  switch (activation) {
    case Activation::none: return f(std::integral_constant<Activation, Activation::none>{});
    case Activation::relu: return f(std::integral_constant<Activation, Activation::relu>{});
    case Activation::leaky_relu:
      return f(std::integral_constant<Activation, Activation::leaky_relu>{});
  }
}

template <Activation activation, class V, class A>
GEONORM_INLINE V activate(V y, A slope) {
  if constexpr (activation == Activation::relu) return y < A(0) ? V{} : y;
  if constexpr (activation == Activation::leaky_relu) return y > A(0) ? y : y * slope;
  return y;
}

// The gradient before the activation whose input was y.
template <Activation activation, class V, class A>
GEONORM_INLINE V deactivate(V grad, V y, A slope) {
  if constexpr (activation == Activation::relu) return y > A(0) ? grad : V{};
  if constexpr (activation == Activation::leaky_relu) return y > A(0) ? grad : grad * slope;
  return grad;
}

}  // namespace geonorm
