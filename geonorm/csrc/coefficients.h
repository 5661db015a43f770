// What the kernels of segment_norm know about instances: for each channel a line from x to y.
#pragma once

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <optional>

#include "simd.h"

#define GEONORM_LAMBDA __attribute__((always_inline))

namespace geonorm {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline OptionalTensor contiguous(const OptionalTensor& t) {
  return t ? OptionalTensor(t->contiguous()) : std::nullopt;
}

template <class T>
struct Matrix {
  const T* data;
  int64_t stride, channels;
  GEONORM_INLINE const T* row(int64_t r) const { return data + r * stride; }
};

// Of one instance, one value per channel: y = (x − centre) · gain + offset, and for the gradient
// grad_x = g · gain − share · ((x − centre) · along + level).
template <class A>
struct Line {
  const A *centre, *gain, *offset, *along, *level;

  template <int W, class T>
  GEONORM_INLINE Vec<A, W> centred(const T* x, int64_t c) const {
    return read<A, W>(x) - read<A, W>(centre + c);
  }
  template <int W>
  GEONORM_INLINE Vec<A, W> affine(Vec<A, W> centred, int64_t c) const {
    return centred * read<A, W>(gain + c) + read<A, W>(offset + c);
  }
};

// The lines of all instances. The centre is the number nearest to the mean; what it lacks of the
// mean goes into the offset, so that nothing is lost where the mean is large.
template <class A>
class Lines {
 public:
  Lines(const Tensor& shift_, const Tensor& mean_, const Tensor& rstd, const OptionalTensor& weight_,
        const OptionalTensor& bias_, int64_t channels, bool with_gradient)
      : channels_(channels), stride_((with_gradient ? 6 : 3) * channels),
        width_(channels / shift_.size(1)),
        memory_(at::empty({shift_.size(0), stride_}, rstd.options())),
        values_(memory_.template mutable_data_ptr<A>()), rstd_(rstd.contiguous()) {
    const Tensor shift = shift_.contiguous(), mean = mean_.contiguous();
    const auto weight = contiguous(weight_), bias = contiguous(bias_);
    const A *from = shift.const_data_ptr<A>(), *beyond = mean.const_data_ptr<A>();
    const A *spread = rstd_.template const_data_ptr<A>();
    const A* gains = weight ? weight->const_data_ptr<A>() : nullptr;
    const A* offsets = bias ? bias->const_data_ptr<A>() : nullptr;
    const int64_t groups = shift.size(1);
    const int64_t gain_step = weight && weight->dim() == 2 ? channels : 0;
    const int64_t offset_step = bias && bias->dim() == 2 ? channels : 0;
    at::parallel_for(0, shift.size(0), kGrain / channels + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        A* line = values_ + i * stride_;
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t s = i * groups + (width_ == 1 ? c : c / width_);
          const A centre = from[s] + beyond[s], moved = centre - from[s];
          const A excess = -((from[s] - (centre - moved)) + (beyond[s] - moved));
          const A gain = spread[s] * (gains ? gains[i * gain_step + c] : A(1));
          line[c] = centre;
          line[channels + c] = gain;
          line[2 * channels + c] = excess * gain + (offsets ? offsets[i * offset_step + c] : A(0));
          if (with_gradient) line[5 * channels + c] = excess;
        }
      }
    });
  }

  GEONORM_INLINE Line<A> of(int64_t instance) const {
    const A* line = values_ + instance * stride_;
    return {line, line + channels_, line + 2 * channels_, line + 3 * channels_,
            line + 4 * channels_};
  }

  // Turns Σg·(x − centre) of every channel into Σg·x̂, and fills in what the gradient takes off:
  // the means over a channel group of γg and, along x̂, of γg·x̂.
  void settle_gradient(const A* grads, A* products, const double* mass) {
    const A* spread = rstd_.template const_data_ptr<A>();
    const int64_t groups = channels_ / width_;
    at::parallel_for(0, memory_.size(0), kGrain / channels_ + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const A rows = mass[i] > 0 ? static_cast<A>(mass[i]) * width_ : A(1);
        for (int64_t g = 0; g < groups; ++g) {
          settle_group(values_ + i * stride_ + g * width_, grads + i * channels_ + g * width_,
                       products + i * channels_ + g * width_, spread[i * groups + g], rows);
        }
      }
    });
  }

 private:
  static constexpr int64_t kGrain = 1 << 14;  // values

  void settle_group(A* line, const A* grads, A* products, A rstd, A rows) const {
    A level = 0, along = 0;
    for (int64_t c = 0; c < width_; ++c) {
      const A gain = line[channels_ + c];
      products[c] = (products[c] + line[5 * channels_ + c] * grads[c]) * rstd;
      level += grads[c] * gain;
      along += products[c] * gain;
    }
    level /= rows;
    along = along / rows * rstd;
    for (int64_t c = 0; c < width_; ++c) {
      line[3 * channels_ + c] = along;
      line[4 * channels_ + c] = level + line[5 * channels_ + c] * along;
    }
  }

  int64_t channels_, stride_, width_;
  Tensor memory_;
  A* values_;
  Tensor rstd_;
};

}  // namespace geonorm
