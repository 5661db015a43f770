// What sparse_conv and its weight gradient share: lists of pairs, and products held in registers.
// geonorm/ops/sparse_conv.py says what they compute.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "simd.h"

namespace geonorm {

using at::Tensor;

// Rows of one tensor and rows of another that a kernel's offsets join: those of offset k are
// [offsets[k], offsets[k + 1]), by ascending target.
struct Pairs {
  const int32_t *source, *target;
  const int64_t* offsets;
  int64_t count;  // of offsets

  int64_t begin(int64_t k) const { return offsets[k]; }
  int64_t end(int64_t k) const { return offsets[k + 1]; }
};

// Checks every value, then returns the pairs.
Pairs pairs_of(const Tensor& pairs, const Tensor& offsets, int64_t sources, int64_t targets);

// A matrix whose channels lie side by side; rows may be any distance apart.
inline Tensor side_by_side(const Tensor& x) {
  return x.size(1) > 1 && x.stride(1) != 1 ? x.contiguous() : x;
}

// Whether the machine multiplies pairs of bfloat16.
inline bool has_bfloat16() {
#ifdef __x86_64__
  static const bool found = __builtin_cpu_supports("avx512bf16");
  return found && machine() == Machine::avx512;
#else
  return false;
#endif
}

// Calls f(task) for every task; whichever thread is free takes the next one, so that what a task
// computes must not depend on the others.
template <class F>
void by_tasks(int64_t tasks, F f) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), tasks);
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t task = next++; task < tasks; task = next++) f(task);
  });
}

template <class A>
class Scratch {
 public:
  explicit Scratch(int64_t count) : memory_(c10::GetCPUAllocator()->allocate(count * sizeof(A))) {}
  A* data() const { return static_cast<A*>(memory_.get()); }

 private:
  at::DataPtr memory_;
};

// Numbers as they are multiplied: one by one, in vectors of B bytes.
template <int B, class A>
struct Singly {
  using Number = A;  // what a vector holds of each output channel
  using Sum = A;
  static constexpr int kBytes = B;
  static constexpr int kWidth = B / sizeof(A);
  static constexpr int kDepth = 1;  // input channels, or rows, in one Number
  using V = Vec<A, kWidth>;
  using S = V;

  GEONORM_INLINE static void add(S& sum, A x, V y) { sum += x * y; }
};

// Two neighbours of bfloat16 at a time, added up in float32.
struct InPairs {
  using Number = uint32_t;
  using Sum = float;
  static constexpr int kBytes = 64;
  static constexpr int kWidth = 16;
  static constexpr int kDepth = 2;
  using V = Vec<uint32_t, kWidth>;
  using S = Vec<float, kWidth>;

  GEONORM_INLINE static void add(S& sum, uint32_t x, V y) {
#ifdef __x86_64__
    // No intrinsic: that could be inlined into functions for AVX512_BF16 only.
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(y), "v"(V{} + x));
#endif
  }
};

// Calls f(R) with how numbers of type T are multiplied on this machine.
template <class T, class F>
void multiplying(F f) {
  if constexpr (std::is_same_v<T, c10::BFloat16>) {
    if (has_bfloat16()) return f(InPairs{});
  }
#ifdef __x86_64__
  if (machine() == Machine::avx512) return f(Singly<64, Math<T>>{});
  if (machine() == Machine::avx2) return f(Singly<32, Math<T>>{});
#endif
  f(Singly<16, Math<T>>{});
}

// Calls f(0), a GEONORM_LAMBDA, compiled for the machine that R is for.
template <class R, class F>
void compiled(const F& f) {
#ifdef __x86_64__
  if constexpr (R::kBytes == 64) return on_avx512(f);
  if constexpr (R::kBytes == 32) return on_avx2(f);
#endif
  f(0);
}

// How many vectors of sums side by side, N, and how many rows of them, M, fit the registers.
template <class R>
constexpr int kMostAbreast = R::kBytes > 32 ? 4 : 2;
template <class R, int N>
constexpr int kRowsOf = R::kBytes > 32 ? (N == 4 ? 6 : 8) : (N == 2 ? 6 : 8);

// Calls f(N, first vector) for groups of neighbouring vectors.
template <class R, class F>
GEONORM_INLINE void over_vectors(int64_t vectors, F f) {
  for (int64_t v = 0; v < vectors;) {
    const int64_t left = vectors - v;
    if constexpr (kMostAbreast<R> == 4) {
      if (left == 4 || left > 6) {
        f(Number<4>{}, v);
        v += 4;
        continue;
      }
      if (left == 3 || left > 4) {
        f(Number<3>{}, v);
        v += 3;
        continue;
      }
    }
    if (left >= 2) {
      f(Number<2>{}, v);
      v += 2;
    } else {
      f(Number<1>{}, v);
      v += 1;
    }
  }
}

Tensor sparse_conv(const Tensor& features, const Tensor& kernel, const Tensor& pairs,
                   const Tensor& back, const Tensor& offsets, int64_t rows);

Tensor sparse_conv_weight(const Tensor& features, const Tensor& grad, const Tensor& pairs,
                          const Tensor& back, const Tensor& offsets);

}  // namespace geonorm
