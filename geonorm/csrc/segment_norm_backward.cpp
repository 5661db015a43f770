// The backward of segment_norm on the CPU: one pass over gradients and rows for the sums, one for
// the gradient of the rows.
#include "segment_norm.h"

#include "products.h"

namespace geonorm {
namespace {

template <class T, Activation activation, bool weighted>
GEONORM_CLONES void row_gradients(Matrix<T> grads, Matrix<T> rows, T* out, const int64_t* index,
                                  const Lines<Math<T>>& lines, const Math<T>* weights,
                                  Math<T> slope, int64_t begin, int64_t end, bool large) {
  using A = Math<T>;
  over_rows<T>(begin, end, rows.channels, large, [&](auto past_cache, int64_t row) GEONORM_LAMBDA {
    const auto at = lines.of(index[row]);
    const A share = weighted ? weights[row] : A(1);
    const T *x = rows.row(row), *g = grads.row(row);
    T* y = out + row * rows.channels;
    over_channels<A, 1>(rows.channels, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value;
      const auto centred = at.template centred<W>(x + c, c);
      auto grad = read<A, W>(g + c);
      if constexpr (activation != Activation::none) {
        grad = deactivate<activation>(grad, at.template affine<W>(centred, c), slope);
      }
      auto lost = centred * read<A, W>(at.along + c) + read<A, W>(at.level + c);
      if constexpr (weighted) lost *= share;
      store<W>(past_cache, y + c, grad * read<A, W>(at.gain + c) - lost);
    });
  });
}

Tensor parameter_gradient(const Tensor& sums, const OptionalTensor& parameter, const Tensor& rows) {
  if (!parameter) return at::empty({0}, rows.options());
  return parameter->dim() == 2 ? sums : sums.sum(0);
}

template <class T, Activation activation>
void backward(const Tensor& grad, const Tensor& rows, const Tensor& index, Lines<Math<T>>& lines,
              const OptionalTensor& row_weights, double slope, Tensor& out, Tensor& sums,
              Tensor& products) {
  using A = Math<T>;
  const int64_t* owner = index.const_data_ptr<int64_t>();
  const int64_t instances = sums.size(0), channels = rows.size(1);
  const auto parts = partition(owner, rows.size(0), instances, channels);
  const Matrix<T> g{grad.const_data_ptr<T>(), grad.stride(0), channels};
  const Matrix<T> x{rows.const_data_ptr<T>(), rows.stride(0), channels};
  const A* weights = row_weights ? row_weights->const_data_ptr<A>() : nullptr;
  const Tensor mass = at::zeros({instances}, rows.options().dtype(at::kDouble));
  const ProductsOutput<A> into{sums.mutable_data_ptr<A>(), products.mutable_data_ptr<A>(),
                               mass.mutable_data_ptr<double>()};
  using Sums = Products<T, activation>;
  sum_rows<Sums>(parts, owner, instances, [&](const Part& part) {
    return Sums(part, parts.sorted, g, x, lines, weights, slope, into);
  });
  lines.settle_gradient(into.grads, into.products, into.mass);
  const auto finish = weights ? row_gradients<T, activation, true>
                              : row_gradients<T, activation, false>;
  over_parts(parts, [&](int64_t begin, int64_t end) {
    finish(g, x, out.mutable_data_ptr<T>(), owner, lines, weights, slope, begin, end,
           beyond_cache(out));
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
  const auto row_weights = contiguous(row_weights_);
  Tensor out = at::empty(rows.sizes(), rows.options());
  Tensor sums = at::zeros({shift.size(0), rows.size(1)}, shift.options());
  Tensor products = at::zeros_like(sums);
  if (rows.numel() > 0) {
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, rows.scalar_type(), "segment_norm_backward", [&] {
          Lines<Math<scalar_t>> lines(shift, mean, rstd, weight, bias, rows.size(1), true);
          with_activation(activation, [&](auto chosen) {
            backward<scalar_t, decltype(chosen)::value>(grad, rows, index, lines, row_weights,
                                                        negative_slope, out, sums, products);
          });
        });
  }
  return {out, parameter_gradient(products, weight, rows), parameter_gradient(sums, bias, rows)};
}

}  // namespace geonorm
