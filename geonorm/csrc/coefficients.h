// What the kernels of segment_norm know about rows and instances.
#pragma once

#include "simd.h"

#define GEONORM_LAMBDA __attribute__((always_inline))

namespace geonorm {

template <class T>
struct Matrix {
  const T* data;
  int64_t stride, channels;
  GEONORM_INLINE const T* row(int64_t r) const { return data + r * stride; }
};

// Statistics and affine parameters of one instance, or of the first of all, one value per channel.
template <class A>
struct Coefficients {
  const A *shift, *mean, *rstd, *weight, *bias;
  int64_t stats_stride, weight_stride, bias_stride;

  GEONORM_INLINE Coefficients of(int64_t instance) const {
    const int64_t s = instance * stats_stride;
    return {shift + s, mean + s, rstd + s, weight + instance * weight_stride,
            bias + instance * bias_stride, 0, 0, 0};
  }
  // Two subtractions, neither folded into x·a + b: at a large mean that loses the digits.
  template <int W, class T>
  GEONORM_INLINE Vec<A, W> xhat(const T* x, int64_t c) const {
    const auto centred = (read<A, W>(x) - read<A, W>(shift + c)) - read<A, W>(mean + c);
    return centred * read<A, W>(rstd + c);
  }
  template <int W>
  GEONORM_INLINE Vec<A, W> affine(Vec<A, W> xhat, int64_t c) const {
    return xhat * read<A, W>(weight + c) + read<A, W>(bias + c);
  }
};

}  // namespace geonorm
