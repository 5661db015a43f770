// The backward of segment_norm on the CPU: one pass over gradients and rows for the sums, one for
// the gradient of the rows.
#include "segment_norm.h"

#include "products.h"

namespace geonorm {
namespace {

template <int B, Activation activation, bool weighted, class T>
GEONORM_INLINE void row_gradients(Matrix<T> grads, Matrix<T> rows, T* out, const int64_t* index,
                                  const Lines<Math<T>>& lines, const Math<T>* weights,
                                  Math<T> slope, int64_t begin, int64_t end, bool large) {
  using A = Math<T>;
  over_rows<T>(begin, end, rows.channels, large, [&](auto past_cache, int64_t row) GEONORM_LAMBDA {
    const auto at = lines.of(index[row]);
    const A share = weighted ? weights[row] : A(1);
    const T *x = rows.row(row), *g = grads.row(row);
    T* y = out + row * rows.channels;
    over_channels<B, A, 1>(rows.channels, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value;
      const auto centred = at.template centred<W>(x + c, c);
      auto grad = read<A, W>(g + c);
      if constexpr (activation != Activation::none) {
        grad = deactivate<activation>(grad, at.template affine<W>(centred, c), slope);
      }
      store<W>(past_cache, y + c, at.template gradient<W>(grad, centred, share, c));
    });
  });
}

template <class T, Activation activation>
void write_gradients(const Batch& batch, Matrix<T> grads, Statistics<const Math<T>> stats,
                     const Parameter& row_weights, const Parameter& weight, const Parameter& bias,
                     double slope, T* out, ProductsOutput<Math<T>> into) {
  using A = Math<T>;
  using Sums = Products<T, activation>;
  const auto parts = partition(batch.index, batch.count, batch.instances, batch.channels);
  const auto rows = batch.matrix<T>();
  const A* weights = row_weights.data<A>();
  Lines<A> lines(stats, batch, weight, bias, true);
  lines.fill();
  const auto make = [&](const Part& part) {
    return Sums(part, parts.sorted, grads, rows, lines, weights, slope, into);
  };
  const auto write = [&](int64_t begin, int64_t end) {
    vectorized([&](auto bytes) GEONORM_LAMBDA {
      const auto finish = [&](auto weighted) GEONORM_LAMBDA {
        row_gradients<decltype(bytes)::value, activation, weighted>(
            grads, rows, out, batch.index, lines, weights, A(slope), begin, end,
            beyond_cache<T>(batch));
      };
      weights ? finish(std::true_type{}) : finish(std::false_type{});
    });
  };
  if (one_by_one<T>(parts, batch, 2)) {
    sum_instances<Sums>(parts, batch.index, make, [&](int64_t i, int64_t begin, int64_t end) {
      lines.settle_gradient(i, into.grads, into.products, into.mass);
      write(begin, end);
    });
    return;
  }
  sum_rows<Sums>(parts, batch.index, batch.instances, batch.channels, make);
  lines.settle_gradient(into.grads, into.products, into.mass);
  over_parts(parts, write);
}

// From the gradient of each instance to that of the parameter.
Tensor parameter_gradient(const Tensor& each, const OptionalTensor& parameter, const Tensor& rows) {
  if (!parameter) return at::empty({0}, rows.options());
  if (parameter->dim() == 2) return each;
  return each.size(0) == 1 ? each.view({each.size(1)}) : each.sum(0);
}

}  // namespace

void gradients(at::ScalarType type, const Batch& batch, const void* grad, int64_t grad_stride,
               Statistics<const void> stats, const Parameter& row_weights, const Parameter& weight,
               const Parameter& bias, Tail tail, void* out, void* grad_weight, void* grad_bias) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, type, "segment_norm_backward", [&] {
    using A = Math<scalar_t>;
    const int64_t size = batch.instances * batch.channels;
    std::vector<double> mass(batch.instances);
    const ProductsOutput<A> into{static_cast<A*>(grad_bias), static_cast<A*>(grad_weight),
                                 mass.data()};
    std::fill_n(into.grads, size, A(0));
    std::fill_n(into.products, size, A(0));
    const Matrix<scalar_t> grads{static_cast<const scalar_t*>(grad), grad_stride, batch.channels};
    with_activation(tail.activation, [&](auto chosen) {
      write_gradients<scalar_t, decltype(chosen)::value>(
          batch, grads, stats.of<const A>(), row_weights, weight, bias, tail.slope,
          static_cast<scalar_t*>(out), into);
    });
  });
}

std::tuple<Tensor, Tensor, Tensor> segment_norm_backward(
    const Tensor& grad_, const Tensor& rows_, const Tensor& index_, const Tensor& shift_,
    const Tensor& mean_, const Tensor& rstd_, const OptionalTensor& row_weights,
    const OptionalTensor& weight, const OptionalTensor& bias, int64_t groups,
    std::string_view activation, double negative_slope) {
  const Tensor grad = as_rows(grad_.to(rows_.scalar_type())), rows = as_rows(rows_);
  const Tensor index = index_.contiguous(), shift = shift_.contiguous();
  const Tensor mean = mean_.contiguous(), rstd = rstd_.contiguous();
  Tensor out = at::empty(rows.sizes(), rows.options());
  Tensor sums = at::empty({shift.size(0), rows.size(1)}, shift.options());
  Tensor products = at::empty_like(sums);
  if (rows.numel() > 0) {
    gradients(rows.scalar_type(), batch_of(rows, index, shift.size(0), groups),
              grad.const_data_ptr(), grad.stride(0),
              {shift.const_data_ptr(), mean.const_data_ptr(), rstd.const_data_ptr()}, row_weights,
              weight, bias, {activation_of(activation), negative_slope}, out.mutable_data_ptr(),
              products.mutable_data_ptr(), sums.mutable_data_ptr());
  } else {
    sums.zero_();
    products.zero_();
  }
  return {out, parameter_gradient(products, weight, rows), parameter_gradient(sums, bias, rows)};
}

}  // namespace geonorm
