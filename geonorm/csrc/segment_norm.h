// What forward and backward of segment_norm share; the operators are declared at the end.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>

#include <string_view>
#include <tuple>

#include "coefficients.h"
#include "row_sums.h"

namespace geonorm {

constexpr size_t kCacheBytes = 1 << 21;  // results beyond this are stored past the cache

// A matrix whose channels lie side by side; rows may be any distance apart.
inline Tensor as_rows(const Tensor& x) { return x.size(1) > 1 && x.stride(1) != 1 ? x.contiguous() : x; }

inline at::TensorOptions stats_options(const Tensor& x) {
  return x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

inline Batch batch_of(const Tensor& rows, const Tensor& index, int64_t instances, int64_t groups) {
  return {rows.const_data_ptr(), rows.stride(0), rows.size(0), rows.size(1),
          index.const_data_ptr<int64_t>(), instances, groups};
}

inline Activation activation_of(std::string_view name) {
  if (name == "relu") return Activation::relu;
  if (name == "leaky_relu") return Activation::leaky_relu;
  TORCH_CHECK_VALUE(name == "none", "activation must be none, relu or leaky_relu; got ", name);
  return Activation::none;
}

// The rows of all parts, each on its own thread as in sum_rows.
template <class F>
void over_parts(const Partition& partition, F f) {
  at::parallel_for(0, partition.parts.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) f(partition.parts[t].begin, partition.parts[t].end);
  });
}

// Calls f(past_cache, row) for all rows, block by block from the last on, since those that the sums
// read last may still be in the cache. `large` results are stored past it.
template <class T, class F>
GEONORM_INLINE void over_rows(int64_t begin, int64_t end, int64_t channels, bool large, F f) {
  constexpr int64_t kBlockBytes = 1 << 17;
  const int64_t block = std::max<int64_t>(1, kBlockBytes / (channels * sizeof(T)));
  for (int64_t stop = end; stop > begin; stop -= block) {
    const int64_t start = std::max(begin, stop - block);
    if (large && channels * sizeof(T) % 16 == 0) {
      for (int64_t row = start; row < stop; ++row) f(std::true_type{}, row);
    } else {
      for (int64_t row = start; row < stop; ++row) f(std::false_type{}, row);
    }
  }
  if (large) fence();
}

template <int W, class T, class P, class V>
GEONORM_INLINE void store(P past_cache, T* p, V v) {
  if constexpr (past_cache) {
    write_past_cache<W>(p, v);
  } else {
    write<W>(p, v);
  }
}

template <class T>
bool beyond_cache(const Batch& batch) {
  return batch.count * batch.channels * sizeof(T) > kCacheBytes;
}

// Whether instances are summed and written one after the other: in `tensors` of them, one of the
// usual size is still in the cache then.
template <class T>
bool one_by_one(const Partition& partition, const Batch& batch, int64_t tensors) {
  constexpr int64_t kOwnCacheBytes = 1 << 19;
  const int64_t present = partition.parts.back().high - partition.parts.front().low + 1;
  const int64_t bytes = batch.count * batch.channels * sizeof(T);
  return partition.whole && tensors * bytes / present <= kOwnCacheBytes;
}

// What follows the norm: act(norm(x) + residual), whose rows are `residual_stride` apart.
struct Tail {
  Activation activation;
  double slope;
  const void* residual = nullptr;
  int64_t residual_stride = 0;
};

// Normalizes a batch that has rows; out is contiguous, and every statistic is written.
void normalize(at::ScalarType type, const Batch& batch, const Parameter& row_weights,
               const Parameter& weight, const Parameter& bias, double eps, Tail tail, void* out,
               Statistics<void> stats);

// The gradients, of the parameters per instance: (instances, channels).
void gradients(at::ScalarType type, const Batch& batch, const void* grad, int64_t grad_stride,
               Statistics<const void> stats, const Parameter& row_weights, const Parameter& weight,
               const Parameter& bias, Tail tail, void* out, void* grad_weight, void* grad_bias);

std::tuple<Tensor, Tensor, Tensor, Tensor> segment_norm(
    const Tensor& rows, const Tensor& index, int64_t instances, const OptionalTensor& row_weights,
    const OptionalTensor& weight, const OptionalTensor& bias, int64_t groups, double eps,
    std::string_view activation, double negative_slope, const OptionalTensor& residual);

std::tuple<Tensor, Tensor, Tensor> segment_norm_backward(
    const Tensor& grad, const Tensor& rows, const Tensor& index, const Tensor& shift,
    const Tensor& mean, const Tensor& rstd, const OptionalTensor& row_weights,
    const OptionalTensor& weight, const OptionalTensor& bias, int64_t groups,
    std::string_view activation, double negative_slope);

std::tuple<Tensor, Tensor> segment_stats(const Tensor& rows, const Tensor& index,
                                         int64_t instances, const OptionalTensor& row_weights,
                                         int64_t groups);

}  // namespace geonorm
