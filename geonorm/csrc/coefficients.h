// Coefficients of each instance for the kernels of segment_norm: y as a linear function of x.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>

#include <optional>

#include "simd.h"

namespace geonorm {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// A weight or bias, contiguous: of each channel, or of each channel of each instance.
struct Parameter {
  OptionalTensor tensor;
  bool per_instance = false;

  Parameter() = default;
  Parameter(const OptionalTensor& t)
      : tensor(t ? OptionalTensor(t->contiguous()) : std::nullopt),
        per_instance(t && t->dim() == 2) {}
  template <class A>
  const A* data() const {
    return tensor ? tensor->const_data_ptr<A>() : nullptr;
  }
};

// A number near the mean, with so few digits that most values less it are exact. What the mean has
// beyond it is at most a 64th of the deviation.
GEONORM_INLINE double near_mean(double mean, double var) {
  const double large = std::sqrt(var * 0x1.2p95);
  return (mean + large) - large;
}

// Merges `mass` in (mean, squares) into totals of mass `done` (Chan, Golub and LeVeque, 1979).
GEONORM_INLINE void merge_moments(double& total_mean, double& total_squares, double done,
                                  double mean, double squares, double mass) {
  const double apart = mean - total_mean, share = mass / (done + mass);
  total_mean += apart * share;
  total_squares += squares + apart * apart * done * share;
}

// Shift, the mean of what exceeds it, and rstd, (instances, groups) each.
template <class A>
struct Statistics {
  A *shift, *mean, *rstd;
  template <class To>
  Statistics<To> of() const {
    return {static_cast<To*>(shift), static_cast<To*>(mean), static_cast<To*>(rstd)};
  }
};

template <class T>
struct Matrix {
  const T* data;
  int64_t stride, channels;
  GEONORM_INLINE const T* row(int64_t r) const { return data + r * stride; }
};

// Rows in memory, channels side by side, and the instance of each.
struct Batch {
  const void* rows;
  int64_t stride, count, channels;
  const int64_t* index;
  int64_t instances, groups;

  template <class T>
  Matrix<T> matrix() const {
    return {static_cast<const T*>(rows), stride, channels};
  }
};

// Of one instance, one value per channel: y = (x − centre) · gain + offset, and for the gradient
// grad_x = (g · inner − share · ((x − centre) · along + level)) · outer. Without an inner factor the
// gradient of an instance of one row is exactly zero.
template <class A>
struct Line {
  const A *centre, *gain, *offset, *along, *level, *inner, *outer;

  template <int W, class T>
  GEONORM_INLINE Vec<A, W> centred(const T* x, int64_t c) const {
    return read<A, W>(x) - read<A, W>(centre + c);
  }
  template <int W>
  GEONORM_INLINE Vec<A, W> affine(Vec<A, W> centred, int64_t c) const {
    return centred * read<A, W>(gain + c) + read<A, W>(offset + c);
  }
  template <int W>
  GEONORM_INLINE Vec<A, W> gradient(Vec<A, W> grad, Vec<A, W> centred, A share, int64_t c) const {
    const auto lost = centred * read<A, W>(along + c) + read<A, W>(level + c);
    if (inner != nullptr) grad *= read<A, W>(inner + c);
    return (grad - lost * share) * read<A, W>(outer + c);
  }
};

// The lines of all instances. The centre is the shift; what it lacks of the mean goes into the
// offset, so that nothing is lost where the mean is large.
template <class A>
class Lines {
 public:
  Lines(Statistics<const A> stats, const Batch& batch, const Parameter& weight,
        const Parameter& bias, bool with_gradient)
      : stats_(stats), gains_(weight.data<A>()), offsets_(bias.data<A>()),
        channels_(batch.channels), width_(channels_ / batch.groups),
        stride_((!with_gradient ? 3 : width_ == 1 ? 6 : 8) * channels_), instances_(batch.instances),
        gain_step_(weight.per_instance ? channels_ : 0),
        offset_step_(bias.per_instance ? channels_ : 0),
        memory_(c10::GetCPUAllocator()->allocate(instances_ * stride_ * sizeof(A))),
        values_(static_cast<A*>(memory_.get())) {}

  void fill() {
    at::parallel_for(0, instances_, kGrain / channels_ + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) fill(i);
    });
  }
  void fill(int64_t i) {
    A* line = values_ + i * stride_;
    const int64_t groups = channels_ / width_;
    for (int64_t c = 0; c < channels_; ++c) {
      const int64_t s = i * groups + (width_ == 1 ? c : c / width_);
      const A excess = -stats_.mean[s];
      const A weight = gains_ ? gains_[i * gain_step_ + c] : A(1), gain = stats_.rstd[s] * weight;
      line[c] = stats_.shift[s];
      line[channels_ + c] = gain;
      line[2 * channels_ + c] = excess * gain + (offsets_ ? offsets_[i * offset_step_ + c] : A(0));
      if (stride_ > 3 * channels_) line[5 * channels_ + c] = excess;
      if (stride_ > 6 * channels_) {
        line[6 * channels_ + c] = weight;
        line[7 * channels_ + c] = stats_.rstd[s];
      }
    }
  }

  GEONORM_INLINE Line<A> of(int64_t instance) const {
    const A* line = values_ + instance * stride_;
    const bool one = width_ == 1;
    return {line, line + channels_, line + 2 * channels_, line + 3 * channels_,
            line + 4 * channels_, one ? nullptr : line + 6 * channels_,
            line + (one ? 1 : 7) * channels_};
  }

  // Turns Σg·(x − centre) of every channel into Σg·x̂, and fills in what the gradient takes off:
  // the mean of g and, along x̂, of g·x̂, or over a group of channels those of γg.
  void settle_gradient(const A* grads, A* products, const double* mass) {
    at::parallel_for(0, instances_, kGrain / channels_ + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) settle_gradient(i, grads, products, mass);
    });
  }
  void settle_gradient(int64_t i, const A* grads, A* products, const double* mass) {
    const int64_t groups = channels_ / width_;
    const A rows = mass[i] > 0 ? static_cast<A>(mass[i]) * width_ : A(1);
    for (int64_t g = 0; g < groups; ++g) {
      settle_group(values_ + i * stride_ + g * width_, grads + i * channels_ + g * width_,
                   products + i * channels_ + g * width_, stats_.rstd[i * groups + g], rows);
    }
  }

 private:
  static constexpr int64_t kGrain = 1 << 14;  // values

  void settle_group(A* line, const A* grads, A* products, A rstd, A rows) const {
    A level = 0, along = 0;
    for (int64_t c = 0; c < width_; ++c) {
      const A weight = width_ == 1 ? A(1) : line[6 * channels_ + c];
      products[c] = (products[c] + line[5 * channels_ + c] * grads[c]) * rstd;
      level += grads[c] * weight;
      along += products[c] * weight;
    }
    level /= rows;
    along = along / rows * rstd;
    for (int64_t c = 0; c < width_; ++c) {
      line[3 * channels_ + c] = along;
      line[4 * channels_ + c] = level + line[5 * channels_ + c] * along;
    }
  }

  Statistics<const A> stats_;
  const A *gains_, *offsets_;
  int64_t channels_, width_, stride_, instances_, gain_step_, offset_step_;
  at::DataPtr memory_;
  A* values_;
};

}  // namespace geonorm
