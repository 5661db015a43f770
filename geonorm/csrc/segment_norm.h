// What forward and backward of segment_norm share; the operators are declared at the end.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <string_view>
#include <tuple>

#include "coefficients.h"
#include "row_sums.h"

namespace geonorm {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// A matrix whose channels lie side by side; rows may be any distance apart.
inline Tensor as_rows(const Tensor& x) { return x.size(1) > 1 && x.stride(1) != 1 ? x.contiguous() : x; }

inline at::TensorOptions stats_options(const Tensor& rows) {
  return rows.options().dtype(rows.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

template <class F>
void with_activation(std::string_view name, F f) {
  if (name == "none") return f(std::integral_constant<Activation, Activation::none>{});
  if (name == "relu") return f(std::integral_constant<Activation, Activation::relu>{});
  if (name == "leaky_relu") return f(std::integral_constant<Activation, Activation::leaky_relu>{});
  TORCH_CHECK_VALUE(false, "activation must be none, relu or leaky_relu; got ", name);
}

// Statistics and affine parameters with one value per channel, and their addresses.
template <class A>
class Channelwise {
 public:
  Channelwise(const Tensor& shift, const Tensor& mean, const Tensor& rstd,
              const OptionalTensor& weight, const OptionalTensor& bias, int64_t channels)
      : shift_(spread(shift, channels)), mean_(spread(mean, channels)),
        rstd_(spread(rstd, channels)),
        weight_(weight ? weight->contiguous() : at::ones({channels}, rstd.options())),
        bias_(bias ? bias->contiguous() : at::zeros({channels}, rstd.options())),
        channels_(channels) {}

  Coefficients<A> get() const {
    return {shift_.const_data_ptr<A>(), mean_.const_data_ptr<A>(), rstd_.const_data_ptr<A>(),
            weight_.const_data_ptr<A>(), bias_.const_data_ptr<A>(), channels_,
            weight_.dim() == 2 ? channels_ : 0, bias_.dim() == 2 ? channels_ : 0};
  }

 private:
  static Tensor spread(const Tensor& stats, int64_t channels) {
    if (stats.size(1) == channels) return stats.contiguous();
    return stats.repeat_interleave(channels / stats.size(1), 1);
  }
  Tensor shift_, mean_, rstd_, weight_, bias_;
  int64_t channels_;
};

// The rows of all parts, each on its own thread as in sum_rows.
template <class F>
void over_parts(const Partition& partition, F f) {
  at::parallel_for(0, partition.parts.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) f(partition.parts[t].begin, partition.parts[t].end);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> segment_norm(
    const Tensor& rows, const Tensor& index, int64_t instances, const OptionalTensor& row_weights,
    const OptionalTensor& weight, const OptionalTensor& bias, int64_t groups, double eps,
    std::string_view activation, double negative_slope);

std::tuple<Tensor, Tensor, Tensor> segment_norm_backward(
    const Tensor& grad, const Tensor& rows, const Tensor& index, const Tensor& shift,
    const Tensor& mean, const Tensor& rstd, const OptionalTensor& row_weights,
    const OptionalTensor& weight, const OptionalTensor& bias, int64_t groups,
    std::string_view activation, double negative_slope);

std::tuple<Tensor, Tensor> segment_stats(const Tensor& rows, const Tensor& index,
                                         int64_t instances, const OptionalTensor& row_weights,
                                         int64_t groups);

}  // namespace geonorm
