// How the instances of a dense tensor lie in memory.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/ExpandUtils.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>

#include <algorithm>
#include <vector>

namespace geonorm {

using at::Tensor;

// The layout that at::empty_like gives a tensor of this one's sizes and strides.
inline std::vector<int64_t> strides_like(const Tensor& x) {
  return x.is_non_overlapping_and_dense() ? x.strides().vec()
                                          : at::infer_dense_strides(x.sizes(), x.strides());
}

inline bool same_layout(at::IntArrayRef sizes, at::IntArrayRef a, at::IntArrayRef b) {
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] > 1 && a[d] != b[d]) return false;
  }
  return true;
}

// All sums of one multiple of each step, the last step fastest.
inline Tensor lattice(const std::vector<std::pair<int64_t, int64_t>>& sizes_and_steps) {
  int64_t count = 1, done = 1;
  for (const auto& [size, step] : sizes_and_steps) count *= size;
  Tensor result = at::empty({count}, at::kLong);
  int64_t* sums = result.mutable_data_ptr<int64_t>();
  sums[0] = 0;
  for (auto axis = sizes_and_steps.rbegin(); axis != sizes_and_steps.rend(); ++axis) {
    for (int64_t k = done; k < done * axis->first; ++k) sums[k] = sums[k - done] + axis->second;
    done *= axis->first;
  }
  return result;
}

class AxisLayout {
 public:
  AxisLayout(const Tensor& x, at::IntArrayRef axes) : sizes_(x.sizes().vec()),
                                                      strides_(strides_like(x)) {
    stats_sizes_ = sizes_;
    for (const int64_t axis : axes) stats_sizes_[axis] = 1;
    stats_strides_ = strides_like(x.as_strided(stats_sizes_, x.strides()));
    for (int64_t d = 0; d < x.dim(); ++d) {
      if (sizes_[d] > 1) order_.push_back(d);
    }
    std::sort(order_.begin(), order_.end(),
              [&](int64_t a, int64_t b) { return strides_[a] > strides_[b]; });
    outer_ = order_.size();
    inner_kept_ = !order_.empty() && kept(order_.back());
    while (outer_ > 0 && kept(order_[outer_ - 1]) == inner_kept_) {
      inner_size_ *= sizes_[order_[--outer_]];
    }
    ours_.assign(sizes_.size(), 1);
    for (size_t k = order_.size(); k-- > 0;) {
      ours_[order_[k]] = instances_;
      instances_ *= stats_sizes_[order_[k]];
    }
    if (inner_kept_) instances_ /= inner_size_;
    in_order_ = same_layout(stats_sizes_, ours_, stats_strides_);
  }

  // Whether the fastest axes of memory are kept; memory is then rows of `inner_size` values whose
  // instances are `owners`, each with statistics of that size. Otherwise these axes are normalized
  // over and instance i has the runs of Runs (runs.h) at `bases` + `pieces`.
  bool inner_kept() const { return inner_kept_; }
  int64_t inner_size() const { return inner_size_; }
  int64_t instances() const { return instances_; }

  Tensor owners() const {
    std::vector<std::pair<int64_t, int64_t>> steps;
    int64_t step = 1;
    for (size_t k = outer_; k-- > 0;) {
      const int64_t d = order_[k];
      steps.emplace_back(sizes_[d], kept(d) ? step : 0);
      if (kept(d)) step *= sizes_[d];
    }
    std::reverse(steps.begin(), steps.end());
    return lattice(steps);
  }
  // None where all outer axes are kept: the instances then lie side by side.
  Tensor bases() const {
    const bool dense = std::all_of(order_.begin(), order_.begin() + outer_,
                                   [&](int64_t d) { return kept(d); });
    return dense ? Tensor() : offsets(true);
  }
  Tensor pieces() const { return offsets(false); }

  // Whether the inner axes are the channels alone, so that a parameter (C,) fits every row.
  bool inner_is_channels() const {
    return inner_kept_ && order_.size() - outer_ == 1 && order_.back() == 1;
  }

  // x as it is laid out in memory, copied where it is not laid out as its result will be.
  Tensor dense(const Tensor& x) const {
    if (same_layout(sizes_, x.strides(), strides_)) return x;
    return at::empty_strided(sizes_, strides_, x.options()).copy_(x);
  }
  Tensor empty(const at::TensorOptions& options) const {
    return at::empty_strided(sizes_, strides_, options);
  }
  int64_t rows() const {
    int64_t count = 1;
    for (size_t k = 0; k < outer_; ++k) count *= sizes_[order_[k]];
    return count;
  }

  // Statistics are calculated in the order of instances, as memory has them, which is most often
  // also that of the tensor they are returned in: `settled` returns that one.
  Tensor empty_stats(const at::TensorOptions& options) const {
    return at::empty_strided(stats_sizes_, in_order_ ? stats_strides_ : ours_, options);
  }
  Tensor settled(const Tensor& stats) const {
    if (in_order_) return stats;
    return at::empty_strided(stats_sizes_, stats_strides_, stats.options()).copy_(stats);
  }
  Tensor unsettled(const Tensor& stats) const {
    if (same_layout(stats_sizes_, stats.strides(), ours_)) return stats;
    return at::empty_strided(stats_sizes_, ours_, stats.options()).copy_(stats);
  }

  // A parameter (C,) or (B, C) in the order of statistics, and back: summed over the other axes.
  Tensor spread(const Tensor& parameter) const {
    return unsettled(parameter.reshape(parameter_shape(parameter)).expand(stats_sizes_));
  }
  Tensor gathered(const Tensor& stats, const Tensor& parameter) const {
    if (!repeats(parameter)) {
      return stats.sum_to_size(parameter_shape(parameter)).reshape(parameter.sizes());
    }
    Tensor result = at::empty(parameter.sizes(), stats.options());
    const int64_t period = parameter.numel(), count = stats.numel();
    AT_DISPATCH_FLOATING_TYPES(stats.scalar_type(), "axis_norm_backward", [&] {
      const scalar_t* each = stats.const_data_ptr<scalar_t>();
      scalar_t* into = result.mutable_data_ptr<scalar_t>();
      for (int64_t p = 0; p < period; ++p) {
        double sum = 0;
        for (int64_t i = p; i < count; i += period) sum += each[i];
        into[p] = sum;
      }
    });
    return result;
  }
  // Whether statistic i belongs to element i of a parameter, counted round and round.
  bool repeats(const Tensor& parameter) const {
    size_t k = order_.size();
    const auto next_is = [&](int64_t d) {
      while (k > 0 && !kept(order_[k - 1])) --k;
      return sizes_[d] == 1 || (k > 0 && order_[--k] == d);
    };
    return next_is(1) && (parameter.dim() == 1 || next_is(0));
  }

 private:
  bool kept(int64_t d) const { return stats_sizes_[d] == sizes_[d]; }
  std::vector<int64_t> parameter_shape(const Tensor& parameter) const {
    std::vector<int64_t> shape(sizes_.size(), 1);
    shape[0] = parameter.dim() == 2 ? sizes_[0] : 1;
    shape[1] = sizes_[1];
    return shape;
  }
  Tensor offsets(bool kept_axes) const {
    std::vector<std::pair<int64_t, int64_t>> steps;
    for (size_t k = 0; k < outer_; ++k) {
      const int64_t d = order_[k];
      if (kept(d) == kept_axes) steps.emplace_back(sizes_[d], strides_[d]);
    }
    return lattice(steps);
  }

  std::vector<int64_t> sizes_, strides_, stats_sizes_, stats_strides_;
  std::vector<int64_t> order_;  // axes longer than 1, slowest first
  std::vector<int64_t> ours_;   // strides of statistics in the order of instances
  bool in_order_;
  size_t outer_;                // how many of them come before the inner ones
  bool inner_kept_;
  int64_t inner_size_ = 1, instances_ = 1;
};

}  // namespace geonorm
