// segment_norm, its backward and segment_stats on the CPU; geonorm/ops/segment_norm/op.py says what
// they compute and geonorm/ops/segment_norm/reference.py is the law.
#include "segment_norm.h"

#include "moments.h"

namespace geonorm {
namespace {

// Fills shift, mean and rstd, or, without a shift, the mean itself and the variance.
template <class T, class A>
void moments(const Partition& partition, const Tensor& rows, const Tensor& index,
             const OptionalTensor& row_weights, Tensor* shift, Tensor& mean, Tensor& spread,
             double eps) {
  using M = Math<T>;
  const MomentsOutput<M> out{shift ? shift->mutable_data_ptr<M>() : nullptr,
                             mean.mutable_data_ptr<M>(), spread.mutable_data_ptr<M>(),
                             mean.size(1), eps};
  const M* weights = row_weights ? row_weights->const_data_ptr<M>() : nullptr;
  const Matrix<T> x{rows.const_data_ptr<T>(), rows.stride(0), rows.size(1)};
  sum_rows<Moments<T, A>>(partition, index.const_data_ptr<int64_t>(), mean.size(0),
                          [&](const Part& part) {
                            return Moments<T, A>(part, partition.sorted, x, weights, out);
                          });
}

void statistics(const Partition& partition, const Tensor& rows, const Tensor& index,
                const OptionalTensor& row_weights, Tensor* shift, Tensor& mean, Tensor& spread,
                double eps) {
  const auto weights = contiguous(row_weights);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, rows.scalar_type(), "segment_norm", [&] {
        // Weights may differ by any factor, so that only float64 keeps a chunk's digits.
        if (weights) {
          moments<scalar_t, double>(partition, rows, index, weights, shift, mean, spread, eps);
        } else {
          moments<scalar_t, Math<scalar_t>>(partition, rows, index, weights, shift, mean, spread,
                                            eps);
        }
      });
}

template <class T, Activation activation>
GEONORM_CLONES void normalize(Matrix<T> rows, T* out, const int64_t* index,
                              const Lines<Math<T>>& lines, Math<T> slope, int64_t begin,
                              int64_t end, bool large) {
  using A = Math<T>;
  over_rows<T>(begin, end, rows.channels, large, [&](auto past_cache, int64_t row) GEONORM_LAMBDA {
    const auto at = lines.of(index[row]);
    const T* x = rows.row(row);
    T* y = out + row * rows.channels;
    over_channels<A, 1>(rows.channels, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value;
      const auto result = at.template affine<W>(at.template centred<W>(x + c, c), c);
      store<W>(past_cache, y + c, activate<activation>(result, slope));
    });
  });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> segment_norm(
    const Tensor& rows_, const Tensor& index_, int64_t instances, const OptionalTensor& row_weights,
    const OptionalTensor& weight, const OptionalTensor& bias, int64_t groups, double eps,
    std::string_view activation, double negative_slope) {
  const Tensor rows = as_rows(rows_), index = index_.contiguous();
  const auto options = stats_options(rows);
  Tensor out = at::empty(rows.sizes(), rows.options());
  Tensor shift = at::zeros({instances, groups}, options), mean = at::zeros_like(shift);
  Tensor rstd = at::full({instances, groups}, 1 / std::sqrt(eps), options);
  if (rows.numel() == 0) return {out, shift, mean, rstd};
  const auto parts =
      partition(index.const_data_ptr<int64_t>(), rows.size(0), instances, rows.size(1));
  statistics(parts, rows, index, row_weights, &shift, mean, rstd, eps);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, rows.scalar_type(), "segment_norm", [&] {
        const Lines<Math<scalar_t>> lines(shift, mean, rstd, weight, bias, rows.size(1), false);
        const Matrix<scalar_t> x{rows.const_data_ptr<scalar_t>(), rows.stride(0), rows.size(1)};
        with_activation(activation, [&](auto chosen) {
          over_parts(parts, [&](int64_t begin, int64_t end) {
            normalize<scalar_t, decltype(chosen)::value>(
                x, out.mutable_data_ptr<scalar_t>(), index.const_data_ptr<int64_t>(),
                lines, negative_slope, begin, end, beyond_cache(out));
          });
        });
      });
  return {out, shift, mean, rstd};
}

std::tuple<Tensor, Tensor> segment_stats(const Tensor& rows_, const Tensor& index_,
                                         int64_t instances, const OptionalTensor& row_weights,
                                         int64_t groups) {
  const Tensor rows = as_rows(rows_), index = index_.contiguous();
  Tensor mean = at::zeros({instances, groups}, stats_options(rows)), var = at::zeros_like(mean);
  if (rows.numel() > 0) {
    const auto parts =
        partition(index.const_data_ptr<int64_t>(), rows.size(0), instances, rows.size(1));
    statistics(parts, rows, index, row_weights, nullptr, mean, var, 0);
  }
  return {mean, var};
}

}  // namespace geonorm
