// The operators of axis_norm.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

namespace geonorm {

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> axis_norm(
    const at::Tensor& x, at::IntArrayRef axes, const std::optional<at::Tensor>& weight,
    const std::optional<at::Tensor>& bias, double eps, std::string_view activation,
    double negative_slope, const std::optional<at::Tensor>& residual);

std::tuple<at::Tensor, at::Tensor, at::Tensor> axis_norm_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& shift, const at::Tensor& mean,
    const at::Tensor& rstd, at::IntArrayRef axes, const std::optional<at::Tensor>& weight,
    const std::optional<at::Tensor>& bias, std::string_view activation, double negative_slope);

}  // namespace geonorm
