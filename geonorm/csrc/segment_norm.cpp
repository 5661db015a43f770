// segment_norm, its backward and segment_stats on the CPU; geonorm/ops/segment_norm.py says what they
// compute and holds the reference that defines it.
#include "segment_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "moments.h"
#include "products.h"

namespace geonorm {
namespace {

// Takes the statistics of every instance that has rows. With `done`, one instance after the other.
template <class T, class A, class Done>
void sum_moments(const Partition& partition, const Batch& batch, const Math<T>* weights,
                 MomentsOutput<Math<T>> out, Done done) {
  const auto rows = batch.matrix<T>();
  const auto make = [&](const Part& part) {
    return Moments<T, A>(part, partition.sorted, rows, weights, out);
  };
  if constexpr (std::is_null_pointer_v<Done>) {
    sum_rows<Moments<T, A>>(partition, batch.index, batch.instances, batch.channels, make);
  } else {
    sum_instances<Moments<T, A>>(partition, batch.index, make, done);
  }
}

template <class T, class Done = std::nullptr_t>
void moments(const Partition& partition, const Batch& batch, const Parameter& row_weights,
             MomentsOutput<Math<T>> out, Done done = nullptr) {
  const auto* weights = row_weights.data<Math<T>>();
  // Weights may differ by any factor, so that only float64 keeps a chunk's digits.
  if (weights) return sum_moments<T, double>(partition, batch, weights, out, done);
  sum_moments<T, Math<T>>(partition, batch, weights, out, done);
}

Partition partition_of(const Batch& batch) {
  return partition(batch.index, batch.count, batch.instances, batch.channels);
}

template <int B, Activation activation, bool added, class T>
GEONORM_INLINE void write_rows(Matrix<T> rows, Matrix<T> residual, T* out, const int64_t* index,
                               const Lines<Math<T>>& lines, Math<T> slope, int64_t begin,
                               int64_t end, bool large) {
  using A = Math<T>;
  over_rows<T>(begin, end, rows.channels, large, [&](auto past_cache, int64_t row) GEONORM_LAMBDA {
    const auto at = lines.of(index[row]);
    const T *x = rows.row(row), *r = added ? residual.row(row) : nullptr;
    T* y = out + row * rows.channels;
    over_channels<B, A, 1>(rows.channels, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value;
      auto result = at.template affine<W>(at.template centred<W>(x + c, c), c);
      if constexpr (added) result += read<A, W>(r + c);
      store<W>(past_cache, y + c, activate<activation>(result, slope));
    });
  });
}

// Backward: one pass over gradients and rows for the sums, one for the gradient of the rows.

template <int B, Activation activation, class T>
GEONORM_INLINE void row_gradients(Matrix<T> grads, Matrix<T> rows, T* out, const int64_t* index,
                                  const Lines<Math<T>>& lines, const Math<T>* weights,
                                  Math<T> slope, int64_t begin, int64_t end, bool large) {
  using A = Math<T>;
  over_rows<T>(begin, end, rows.channels, large, [&](auto past_cache, int64_t row) GEONORM_LAMBDA {
    const auto at = lines.of(index[row]);
    const A share = weights ? weights[row] : A(1);
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

template <class T>
void write_gradients(const Batch& batch, Matrix<T> grads, Statistics<const Math<T>> stats,
                     const Parameter& row_weights, const Parameter& weight, const Parameter& bias,
                     Tail tail, T* out, ProductsOutput<Math<T>> into) {
  using A = Math<T>;
  using Sums = Products<T>;
  const auto parts = partition(batch.index, batch.count, batch.instances, batch.channels);
  const auto rows = batch.matrix<T>();
  const A* weights = row_weights.data<A>();
  Lines<A> lines(stats, batch, weight, bias, true);
  lines.fill();
  const auto make = [&](const Part& part) {
    return Sums(part, parts.sorted, grads, rows, lines, weights, tail.activation, A(tail.slope),
                into);
  };
  const auto write = [&](int64_t begin, int64_t end) {
    vectorized([&](auto bytes) GEONORM_LAMBDA {
      with_activation(tail.activation, [&](auto chosen) GEONORM_LAMBDA {
        row_gradients<decltype(bytes)::value, decltype(chosen)::value>(
            grads, rows, out, batch.index, lines, weights, A(tail.slope), begin, end,
            beyond_cache<T>(batch));
      });
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

void normalize(at::ScalarType type, const Batch& batch, const Parameter& row_weights,
               const Parameter& weight, const Parameter& bias, double eps, Tail tail, void* out,
               Statistics<void> stats) {
  const auto parts = partition_of(batch);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, type, "segment_norm", [&] {
    using A = Math<scalar_t>;
    const int64_t size = batch.instances * batch.groups;
    const Statistics<A> into = stats.of<A>();
    std::fill_n(into.shift, size, A(0));
    std::fill_n(into.mean, size, A(0));
    std::fill_n(into.rstd, size, static_cast<A>(1 / std::sqrt(eps)));
    const MomentsOutput<A> found{into.shift, into.mean, into.rstd, batch.groups, eps};
    Lines<A> lines(into.of<const A>(), batch, weight, bias, false);
    const Matrix<scalar_t> residual{static_cast<const scalar_t*>(tail.residual),
                                    tail.residual_stride, batch.channels};
    const auto write = [&](int64_t begin, int64_t end) {
      with_activation(tail.activation, [&](auto chosen) {
        vectorized([&](auto bytes) GEONORM_LAMBDA {
          const auto rows = [&](auto added) GEONORM_LAMBDA {
            write_rows<decltype(bytes)::value, decltype(chosen)::value, added>(
                batch.matrix<scalar_t>(), residual, static_cast<scalar_t*>(out), batch.index, lines,
                static_cast<A>(tail.slope), begin, end, beyond_cache<scalar_t>(batch));
          };
          tail.residual ? rows(std::true_type{}) : rows(std::false_type{});
        });
      });
    };
    if (one_by_one<scalar_t>(parts, batch, 1)) {
      moments<scalar_t>(parts, batch, row_weights, found,
                        [&](int64_t instance, int64_t begin, int64_t end) {
                          lines.fill(instance);
                          write(begin, end);
                        });
      return;
    }
    moments<scalar_t>(parts, batch, row_weights, found);
    lines.fill();
    over_parts(parts, write);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> segment_norm(
    const Tensor& rows_, const Tensor& index_, int64_t instances, const OptionalTensor& row_weights,
    const OptionalTensor& weight, const OptionalTensor& bias, int64_t groups, double eps,
    std::string_view activation, double negative_slope, const OptionalTensor& residual_) {
  const Tensor rows = as_rows(rows_), index = index_.contiguous();
  const auto options = stats_options(rows);
  Tensor out = at::empty(rows.sizes(), rows.options());
  if (rows.numel() == 0) {
    const Tensor none = at::zeros({instances, groups}, options);
    return {out, none, none.clone(), at::full({instances, groups}, 1 / std::sqrt(eps), options)};
  }
  Tensor shift = at::empty({instances, groups}, options), mean = at::empty_like(shift);
  Tensor rstd = at::empty_like(shift);
  Tail tail{activation_of(activation), negative_slope};
  Tensor residual;
  if (residual_) {
    residual = as_rows(*residual_);
    tail.residual = residual.const_data_ptr();
    tail.residual_stride = residual.stride(0);
  }
  normalize(rows.scalar_type(), batch_of(rows, index, instances, groups), row_weights, weight, bias,
            eps, tail, out.mutable_data_ptr(),
            {shift.mutable_data_ptr(), mean.mutable_data_ptr(), rstd.mutable_data_ptr()});
  return {out, shift, mean, rstd};
}

std::tuple<Tensor, Tensor> segment_stats(const Tensor& rows_, const Tensor& index_,
                                         int64_t instances, const OptionalTensor& row_weights,
                                         int64_t groups) {
  const Tensor rows = as_rows(rows_), index = index_.contiguous();
  Tensor mean = at::zeros({instances, groups}, stats_options(rows)), var = at::zeros_like(mean);
  if (rows.numel() == 0) return {mean, var};
  const Batch batch = batch_of(rows, index, instances, groups);
  const auto parts = partition_of(batch);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, rows.scalar_type(), "segment_stats", [&] {
        using A = Math<scalar_t>;
        moments<scalar_t>(
            parts, batch, row_weights,
            {nullptr, mean.mutable_data_ptr<A>(), var.mutable_data_ptr<A>(), groups, 0});
      });
  return {mean, var};
}

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
    write_gradients<scalar_t>(batch, grads, stats.of<const A>(), row_weights, weight, bias, tail,
                              static_cast<scalar_t*>(out), into);
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
