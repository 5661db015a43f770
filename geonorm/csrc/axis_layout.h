// How the instances of a dense tensor lie in memory.
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <vector>

namespace geonorm {

using at::Tensor;

// The layout that at::empty_like gives a tensor of this one's sizes and strides.
inline std::vector<int64_t> strides_like(const Tensor& x) {
  return at::empty_like(x, x.options().device(at::kMeta)).strides().vec();
}

inline bool same_layout(at::IntArrayRef sizes, at::IntArrayRef a, at::IntArrayRef b) {
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] > 1 && a[d] != b[d]) return false;
  }
  return true;
}

// All sums of one multiple of each step, the last step fastest.
inline Tensor lattice(const std::vector<std::pair<int64_t, int64_t>>& sizes_and_steps) {
  Tensor sums = at::zeros({1}, at::kLong);
  for (const auto& [size, step] : sizes_and_steps) {
    sums = (sums.unsqueeze(1) + at::arange(size, at::kLong) * step).flatten();
  }
  return sums;
}

class AxisLayout {
 public:
  AxisLayout(const Tensor& x, at::IntArrayRef axes) : sizes_(x.sizes().vec()),
                                                      strides_(strides_like(x)) {
    Tensor element = x;
    for (const int64_t axis : axes) element = element.narrow(axis, 0, 1);
    stats_sizes_ = element.sizes().vec();
    stats_strides_ = strides_like(element);
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
    for (const int64_t d : order_) instances_ *= stats_sizes_[d];
    if (inner_kept_) instances_ /= inner_size_;
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
  Tensor bases() const { return offsets(true); }
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
  Tensor flat(const Tensor& dense) const {
    return dense.as_strided({dense.numel() / inner_size_, inner_size_}, {inner_size_, 1});
  }
  Tensor unflat(const Tensor& flat) const { return flat.as_strided(sizes_, strides_); }

  Tensor empty_stats(const at::TensorOptions& options) const {
    return at::empty_strided(stats_sizes_, stats_strides_, options);
  }
  // Statistics from the order of instances to the tensor's axes, and back.
  Tensor stats(const Tensor& flat) const {
    const Tensor ours = flat.as_strided(stats_sizes_, flat_stats_strides());
    if (same_layout(stats_sizes_, ours.strides(), stats_strides_)) {
      return flat.as_strided(stats_sizes_, stats_strides_);
    }
    return at::empty_strided(stats_sizes_, stats_strides_, flat.options()).copy_(ours);
  }
  Tensor flat_stats(const Tensor& stats) const {
    const auto shape = flat_stats_shape();
    const auto ours = flat_stats_strides();
    if (same_layout(stats_sizes_, stats.strides(), ours)) {
      return stats.as_strided(shape, {shape[1], 1});
    }
    return at::empty_strided(stats_sizes_, ours, stats.options())
        .copy_(stats)
        .as_strided(shape, {shape[1], 1});
  }
  // A parameter (C,) or (B, C) as flat statistics.
  Tensor flat_parameter(const Tensor& parameter) const {
    std::vector<int64_t> shape(sizes_.size(), 1);
    shape[0] = parameter.dim() == 2 ? sizes_[0] : 1;
    shape[1] = sizes_[1];
    return flat_stats(parameter.reshape(shape).expand(stats_sizes_));
  }
  // The sum of statistics over all axes that the parameter has not.
  Tensor parameter_gradient(const Tensor& flat, const Tensor& parameter) const {
    std::vector<int64_t> axes;
    for (int64_t d = parameter.dim() == 2 ? 2 : 0; d < int64_t(sizes_.size()); ++d) {
      if (d != 1) axes.push_back(d);
    }
    return flat.as_strided(stats_sizes_, flat_stats_strides()).sum(axes);
  }

 private:
  bool kept(int64_t d) const { return stats_sizes_[d] == sizes_[d]; }
  std::vector<int64_t> flat_stats_shape() const {
    return {instances_, inner_kept_ ? inner_size_ : 1};
  }
  std::vector<int64_t> flat_stats_strides() const {
    std::vector<int64_t> strides(sizes_.size(), 1);
    int64_t step = 1;
    for (size_t k = order_.size(); k-- > 0;) {
      strides[order_[k]] = step;
      step *= stats_sizes_[order_[k]];
    }
    return strides;
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
  size_t outer_;                // how many of them come before the inner ones
  bool inner_kept_;
  int64_t inner_size_ = 1, instances_ = 1;
};

}  // namespace geonorm
