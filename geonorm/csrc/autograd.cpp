// The derivative rules of geonorm::segment_norm and geonorm::axis_norm, on every device: in Python
// they take longer than a small norm itself. geonorm/ops/derivatives.py is for what they cannot serve.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/leaky_relu_backward.h>
#include <ATen/ops/threshold_backward.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>

namespace geonorm {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;
using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <class Signature>
auto op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

Tensor or_none(const OptionalTensor& t) { return t.value_or(Tensor()); }

OptionalTensor given(const Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }

// The gradient of a parameter, none where there is no parameter.
Tensor of(const Tensor& parameter, const Tensor& grad) {
  return parameter.defined() ? grad : Tensor();
}

// Where there is a residual the activation's gradient is taken from its result, which the next layer
// keeps anyway, as torch's own ReLU does; the slope of a leaky one is then not negative.
Tensor result_for_backward(const Outputs& outputs, const OptionalTensor& residual,
                           std::string_view activation) {
  return residual && activation != "none" ? std::get<0>(outputs) : Tensor();
}

Tensor before_activation(const Tensor& grad, const Tensor& result, std::string_view activation,
                         double slope) {
  if (!result.defined()) return grad;
  return activation == "relu" ? at::threshold_backward(grad, result, 0)
                              : at::leaky_relu_backward(grad, result, slope, true);
}

variable_list kept(AutogradContext* ctx, const Outputs& outputs, variable_list saved) {
  const auto& [out, shift, mean, rstd] = outputs;
  ctx->save_for_backward(std::move(saved));
  ctx->mark_non_differentiable({shift, mean, rstd});
  return {out, shift, mean, rstd};
}

Outputs as_outputs(const variable_list& v) { return {v[0], v[1], v[2], v[3]}; }

struct SegmentNorm : torch::autograd::Function<SegmentNorm> {
  static variable_list forward(AutogradContext* ctx, const Tensor& rows, const Tensor& index,
                               const c10::SymInt& instances, const OptionalTensor& row_weights,
                               const OptionalTensor& weight, const OptionalTensor& bias,
                               int64_t groups, double eps, std::string_view activation,
                               double slope, const OptionalTensor& residual) {
    static const auto run = op<Outputs(const Tensor&, const Tensor&, c10::SymInt,
                                       const OptionalTensor&, const OptionalTensor&,
                                       const OptionalTensor&, int64_t, double, std::string_view,
                                       double, const OptionalTensor&)>("geonorm::segment_norm");
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto outputs = run.call(rows, index, instances, row_weights, weight, bias, groups, eps,
                                  activation, slope, residual);
    ctx->saved_data["instances"] = instances;
    ctx->saved_data["groups"] = groups;
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["activation"] = std::string(activation);
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["residual"] = residual.has_value();
    return kept(ctx, outputs, {rows, index, or_none(row_weights), or_none(weight), or_none(bias),
                               std::get<1>(outputs), std::get<2>(outputs), std::get<3>(outputs),
                               result_for_backward(outputs, residual, activation)});
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    static const auto fast = op<Gradients(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
        const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, int64_t,
        std::string_view, double)>("geonorm::segment_norm_backward");
    static const auto twice = op<Gradients(
        const Tensor&, const Tensor&, const Tensor&, c10::SymInt, const OptionalTensor&,
        const OptionalTensor&, const OptionalTensor&, int64_t, double, std::string_view, double)>(
        "geonorm::segment_norm_backward_twice");
    const auto saved = ctx->get_saved_variables();
    const Tensor &rows = saved[0], &index = saved[1], &weight = saved[3], &bias = saved[4];
    const auto row_weights = given(saved[2]);
    auto& data = ctx->saved_data;
    const int64_t groups = data["groups"].toInt();
    const double slope = data["slope"].toDouble();
    const bool added = data["residual"].toBool();
    auto activation = data["activation"].toStringView();
    const Tensor none, grad = before_activation(grads[0], saved[8], activation, slope);
    if (added) activation = "none";
    const auto [grad_rows, grad_weight, grad_bias] =
        at::GradMode::is_enabled()
            ? twice.call(grad, rows, index, data["instances"].toSymInt(), row_weights,
                         given(weight), given(bias), groups, data["eps"].toDouble(), activation,
                         slope)
            : fast.call(grad, rows, index, saved[5], saved[6], saved[7], row_weights,
                        given(weight), given(bias), groups, activation, slope);
    return {grad_rows, none, none, none, of(weight, grad_weight), of(bias, grad_bias),
            none,      none, none, none, added ? grad : none};
  }
};

struct AxisNorm : torch::autograd::Function<AxisNorm> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, at::IntArrayRef axes,
                               const OptionalTensor& weight, const OptionalTensor& bias, double eps,
                               std::string_view activation, double slope,
                               const OptionalTensor& residual) {
    static const auto run =
        op<Outputs(const Tensor&, at::IntArrayRef, const OptionalTensor&, const OptionalTensor&,
                   double, std::string_view, double, const OptionalTensor&)>("geonorm::axis_norm");
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto outputs = run.call(x, axes, weight, bias, eps, activation, slope, residual);
    ctx->saved_data["axes"] = axes.vec();
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["activation"] = std::string(activation);
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["residual"] = residual.has_value();
    return kept(ctx, outputs, {x, or_none(weight), or_none(bias), std::get<1>(outputs),
                               std::get<2>(outputs), std::get<3>(outputs),
                               result_for_backward(outputs, residual, activation)});
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    static const auto fast =
        op<Gradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                     at::IntArrayRef, const OptionalTensor&, const OptionalTensor&,
                     std::string_view, double)>("geonorm::axis_norm_backward");
    static const auto twice =
        op<Gradients(const Tensor&, const Tensor&, at::IntArrayRef, const OptionalTensor&,
                     const OptionalTensor&, double, std::string_view, double)>(
            "geonorm::axis_norm_backward_twice");
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    auto& data = ctx->saved_data;
    const auto axes = data["axes"].toIntVector();
    const double slope = data["slope"].toDouble();
    const bool added = data["residual"].toBool();
    auto activation = data["activation"].toStringView();
    const Tensor none, grad = before_activation(grads[0], saved[6], activation, slope);
    if (added) activation = "none";
    const auto [grad_x, grad_weight, grad_bias] =
        at::GradMode::is_enabled()
            ? twice.call(grad, x, axes, given(weight), given(bias), data["eps"].toDouble(),
                         activation, slope)
            : fast.call(grad, x, saved[3], saved[4], saved[5], axes, given(weight),
                        given(bias), activation, slope);
    return {grad_x, none, of(weight, grad_weight), of(bias, grad_bias), none, none, none,
            added ? grad : none};
  }
};

Outputs segment_norm(const Tensor& rows, const Tensor& index, c10::SymInt instances,
                     const OptionalTensor& row_weights, const OptionalTensor& weight,
                     const OptionalTensor& bias, int64_t groups, double eps,
                     std::string_view activation, double slope, const OptionalTensor& residual) {
  return as_outputs(SegmentNorm::apply(rows, index, instances, row_weights, weight, bias, groups,
                                       eps, activation, slope, residual));
}

Outputs axis_norm(const Tensor& x, at::IntArrayRef axes, const OptionalTensor& weight,
                  const OptionalTensor& bias, double eps, std::string_view activation,
                  double slope, const OptionalTensor& residual) {
  return as_outputs(AxisNorm::apply(x, axes, weight, bias, eps, activation, slope, residual));
}

}  // namespace

void add_derivatives(torch::Library& library) {
  library.impl("segment_norm", segment_norm);
  library.impl("axis_norm", axis_norm);
}

}  // namespace geonorm

