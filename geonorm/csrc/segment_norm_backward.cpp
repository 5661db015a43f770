// The backward of segment_norm on the CPU: one pass over gradients and rows for the sums, one for
// the gradient of the rows.
#include "segment_norm.h"

#include "products.h"

namespace geonorm {
namespace {

// What every row's gradient loses, per instance and channel: mean(γg) and rstd-free mean(γg·x̂).
template <class A>
struct Lost {
  const A *mean, *along, *weights;
};

template <class T, Activation activation>
GEONORM_CLONES void row_gradients(Matrix<T> grads, Matrix<T> rows, T* out, const int64_t* index,
                                  Coefficients<Math<T>> all, Lost<Math<T>> lost, Math<T> slope,
                                  int64_t begin, int64_t end) {
  using A = Math<T>;
  for (int64_t row = end - 1; row >= begin; --row) {
    const auto at = all.of(index[row]);
    const A* mean = lost.mean + index[row] * rows.channels;
    const A* along = lost.along + index[row] * rows.channels;
    const A share = lost.weights ? lost.weights[row] : A(1);
    const T *x = rows.row(row), *g = grads.row(row);
    T* y = out + row * rows.channels;
    over_channels<A, 1>(rows.channels, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value;
      const auto xhat = at.template xhat<W>(x + c, c);
      auto grad = read<A, W>(g + c);
      if constexpr (activation != Activation::none) {
        grad = deactivate<activation>(grad, at.template affine<W>(xhat, c), slope);
      }
      const auto gained = grad * read<A, W>(at.weight + c);
      const auto taken = read<A, W>(mean + c) + xhat * read<A, W>(along + c);
      write<W>(y + c, (gained - taken * share) * read<A, W>(at.rstd + c));
    });
  }
}

// Turns Σg and Σg·x̂ of a channel into the means of γg and γg·x̂ over the channel's group.
Tensor lost_mean(const Tensor& sums, const Tensor& mass, const OptionalTensor& weight,
                 int64_t groups) {
  const int64_t channels = sums.size(1), width = channels / groups;
  const Tensor gained = weight ? sums * *weight : sums;
  const Tensor scale = (mass.clamp_min(0) * static_cast<double>(width)).masked_fill(mass <= 0, 1);
  const Tensor per_row = scale.to(sums.scalar_type()).unsqueeze(1);
  if (width == 1) return gained / per_row;
  return (gained.unflatten(1, {groups, width}).sum(2) / per_row).repeat_interleave(width, 1);
}

Tensor parameter_gradient(const Tensor& sums, const OptionalTensor& parameter, const Tensor& rows) {
  if (!parameter) return at::empty({0}, rows.options());
  return parameter->dim() == 2 ? sums : sums.sum(0);
}

template <class T, Activation activation>
void backward(const Tensor& grad, const Tensor& rows, const Tensor& index,
              const Channelwise<Math<T>>& channelwise, const OptionalTensor& row_weights,
              const OptionalTensor& weight, int64_t groups, double slope, Tensor& out, Tensor& sums,
              Tensor& products) {
  using A = Math<T>;
  const int64_t* owner = index.const_data_ptr<int64_t>();
  const int64_t instances = sums.size(0), channels = rows.size(1);
  const auto parts = partition(owner, rows.size(0), instances, channels);
  const Matrix<T> g{grad.const_data_ptr<T>(), grad.stride(0), channels};
  const Matrix<T> x{rows.const_data_ptr<T>(), rows.stride(0), channels};
  const A* weights = row_weights ? row_weights->const_data_ptr<A>() : nullptr;
  Tensor mass = at::zeros({instances}, rows.options().dtype(at::kDouble));
  const ProductsOutput<A> into{sums.mutable_data_ptr<A>(), products.mutable_data_ptr<A>(),
                               mass.mutable_data_ptr<double>()};
  using Sums = Products<T, activation>;
  sum_rows<Sums>(parts, owner, instances, [&](const Part& part) {
    return Sums(part, parts.sorted, g, x, channelwise.get(), weights, slope, into);
  });
  const Tensor lost = lost_mean(sums, mass, weight, groups);
  const Tensor along = lost_mean(products, mass, weight, groups);
  const Lost<A> each{lost.const_data_ptr<A>(), along.const_data_ptr<A>(), weights};
  over_parts(parts, [&](int64_t begin, int64_t end) {
    row_gradients<T, activation>(g, x, out.mutable_data_ptr<T>(), owner, channelwise.get(), each,
                                 slope, begin, end);
  });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> segment_norm_backward(
    const Tensor& grad_, const Tensor& rows_, const Tensor& index_, const Tensor& shift,
    const Tensor& mean, const Tensor& rstd, const OptionalTensor& row_weights_,
    const OptionalTensor& weight, const OptionalTensor& bias, int64_t groups,
    std::string_view activation, double negative_slope) {
  const Tensor grad = as_rows(grad_.to(rows_.scalar_type())), rows = as_rows(rows_);
  const Tensor index = index_.contiguous();
  const auto row_weights = row_weights_ ? OptionalTensor(row_weights_->contiguous()) : std::nullopt;
  Tensor out = at::empty(rows.sizes(), rows.options());
  Tensor sums = at::zeros({shift.size(0), rows.size(1)}, shift.options());
  Tensor products = at::zeros_like(sums);
  if (rows.numel() > 0) {
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, rows.scalar_type(), "segment_norm_backward", [&] {
          const Channelwise<Math<scalar_t>> channelwise(shift, mean, rstd, weight, bias,
                                                        rows.size(1));
          with_activation(activation, [&](auto chosen) {
            backward<scalar_t, decltype(chosen)::value>(grad, rows, index, channelwise, row_weights,
                                                        weight, groups, negative_slope, out, sums,
                                                        products);
          });
        });
  }
  return {out, parameter_gradient(products, weight, rows), parameter_gradient(sums, bias, rows)};
}

}  // namespace geonorm
