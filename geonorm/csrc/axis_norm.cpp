// axis_norm and its backward on the CPU; geonorm/ops/axis_norm/op.py says what they compute and
// geonorm/ops/axis_norm/reference.py is the law.
//
// Where the fastest axes of memory are kept (channels_last), rows of them have instances just as in
// segment_norm, which then does the work. Where they are normalized over, an instance is a set of
// runs, which stay in the cache between the passes over them.
#include "axis_norm.h"

#include "axis_layout.h"
#include "runs.h"
#include "segment_norm.h"

namespace geonorm {
namespace {

// How instances are cut: none where there are enough of them for every thread.
struct Cut {
  int64_t slices, grain;

  explicit Cut(const Runs& runs) {
    constexpr int64_t kWorthAThread = 1 << 15;  // values
    const int64_t threads = at::get_num_threads();
    const int64_t most = std::max<int64_t>(1, runs.size() / kWorthAThread);
    slices = runs.instances < threads ? std::min(threads, most) : 1;
    grain = std::max<int64_t>(1, kWorthAThread * slices / runs.size());
  }
};

// Runs first(i, slice, s) on every slice of every instance, then join(i), then second(i, slice).
template <class First, class Join, class Second>
void over_runs(const Runs& runs, const Cut& cut, First first, Join join, Second second) {
  const auto slice = [&](int64_t s) {
    return Slice{runs.piece, runs.length, runs.size() * s / cut.slices,
                 runs.size() * (s + 1) / cut.slices};
  };
  if (cut.slices == 1) {
    at::parallel_for(0, runs.instances, cut.grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        first(i, slice(0), 0);
        join(i);
        second(i, slice(0));
      }
    });
    return;
  }
  for (int64_t i = 0; i < runs.instances; ++i) {
    at::parallel_for(0, cut.slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) first(i, slice(s), s);
    });
    join(i);
    at::parallel_for(0, cut.slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) second(i, slice(s));
    });
  }
}

// Addresses of flat statistics and parameters.
template <class A>
struct Stats {
  const A *shift, *mean, *rstd, *weight, *bias;
  Scalars<A> of(int64_t i) const {
    return {shift[i], mean[i], rstd[i], weight ? weight[i] : A(1), bias ? bias[i] : A(0)};
  }
};

template <class A>
const A* address(const OptionalTensor& t) {
  return t ? t->const_data_ptr<A>() : nullptr;
}

template <class T, Activation activation>
void forward(const Runs& runs, const T* x, T* out, Math<T>* shift, Math<T>* mean, Math<T>* rstd,
             const OptionalTensor& weight, const OptionalTensor& bias, double eps, Math<T> slope) {
  using A = Math<T>;
  const Stats<A> stats{shift, mean, rstd, address<A>(weight), address<A>(bias)};
  const Cut cut(runs);
  std::vector<Moment> moments(runs.instances * cut.slices);
  over_runs(
      runs, cut,
      [&](int64_t i, Slice slice, int64_t s) {
        moments[i * cut.slices + s] = run_moment(x + runs.base[i], slice);
      },
      [&](int64_t i) {
        Moment total;
        for (int64_t s = 0; s < cut.slices; ++s) total.merge(moments[i * cut.slices + s]);
        shift[i] = read<A, 1>(x + runs.base[i] + runs.piece[0]);
        mean[i] = total.mean - shift[i];
        rstd[i] = 1 / std::sqrt(total.squares / total.mass + eps);
      },
      [&](int64_t i, Slice slice) {
        normalize_run<T, activation>(x + runs.base[i], out + runs.base[i], slice, stats.of(i),
                                     slope);
      });
}

template <class T, Activation activation>
void backward(const Runs& runs, const T* grads, const T* x, T* out, const Stats<Math<T>>& stats,
              Math<T>* sums, Math<T>* products, Math<T> slope) {
  using A = Math<T>;
  const Cut cut(runs);
  std::vector<RunProducts> parts(runs.instances * cut.slices);
  over_runs(
      runs, cut,
      [&](int64_t i, Slice slice, int64_t s) {
        parts[i * cut.slices + s] = run_products<T, activation>(
            grads + runs.base[i], x + runs.base[i], slice, stats.of(i), slope);
      },
      [&](int64_t i) {
        RunProducts total;
        for (int64_t s = 0; s < cut.slices; ++s) {
          total.grads += parts[i * cut.slices + s].grads;
          total.products += parts[i * cut.slices + s].products;
        }
        sums[i] = total.grads;
        products[i] = total.products;
      },
      [&](int64_t i, Slice slice) {
        const Scalars<A> at = stats.of(i);
        const A mean = at.weight * sums[i] / runs.size();
        const A along = at.weight * products[i] / runs.size();
        run_gradients<T, activation>(grads + runs.base[i], x + runs.base[i], out + runs.base[i],
                                     slice, at, mean, along, slope);
      });
}

// A parameter as segment_norm's rows or flat statistics take it.
OptionalTensor parameter_of(const AxisLayout& layout, const OptionalTensor& parameter) {
  if (!parameter) return std::nullopt;
  if (parameter->dim() == 1 && layout.inner_is_channels()) return parameter;
  return layout.flat_parameter(*parameter);
}

at::TensorOptions stats_options_of(const Tensor& x) {
  return x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

Runs runs_of(const AxisLayout& layout, const Tensor& bases, const Tensor& pieces) {
  return {bases.const_data_ptr<int64_t>(), pieces.const_data_ptr<int64_t>(), bases.numel(),
          pieces.numel(), layout.inner_size()};
}

Tensor gradient_of(const AxisLayout& layout, const Tensor& sums, const OptionalTensor& parameter,
                   const Tensor& x) {
  if (!parameter) return at::empty({0}, x.options());
  if (sums.dim() == 1) return sums;
  return layout.parameter_gradient(sums, *parameter);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> axis_norm(
    const Tensor& x_, at::IntArrayRef axes, const OptionalTensor& weight_,
    const OptionalTensor& bias_, double eps, std::string_view activation, double negative_slope) {
  // Outputs are views made here; were they known as such, autograd would forbid changing them in
  // place, as nn.ReLU(inplace=True) does.
  const at::AutoDispatchBelowADInplaceOrView untracked;
  const AxisLayout layout(x_, axes);
  if (x_.numel() == 0) {
    const Tensor none = layout.empty_stats(stats_options_of(x_));
    return {at::empty_like(x_), none, none.clone(), none.clone()};
  }
  const Tensor x = layout.dense(x_);
  const auto weight = parameter_of(layout, weight_), bias = parameter_of(layout, bias_);
  if (layout.inner_kept()) {
    const auto [out, shift, mean, rstd] =
        segment_norm(layout.flat(x), layout.owners(), layout.instances(), std::nullopt, weight,
                     bias, layout.inner_size(), eps, activation, negative_slope);
    return {layout.unflat(out), layout.stats(shift), layout.stats(mean), layout.stats(rstd)};
  }
  Tensor out = at::empty_like(x), shift = at::empty({layout.instances(), 1}, stats_options_of(x));
  Tensor mean = at::empty_like(shift), rstd = at::empty_like(shift);
  const Tensor bases = layout.bases(), pieces = layout.pieces();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, x.scalar_type(), "axis_norm", [&] {
        using A = Math<scalar_t>;
        with_activation(activation, [&](auto chosen) {
          forward<scalar_t, decltype(chosen)::value>(
              runs_of(layout, bases, pieces), x.const_data_ptr<scalar_t>(),
              out.mutable_data_ptr<scalar_t>(), shift.mutable_data_ptr<A>(),
              mean.mutable_data_ptr<A>(), rstd.mutable_data_ptr<A>(), weight, bias, eps,
              negative_slope);
        });
      });
  return {layout.unflat(out), layout.stats(shift), layout.stats(mean), layout.stats(rstd)};
}

std::tuple<Tensor, Tensor, Tensor> axis_norm_backward(
    const Tensor& grad_, const Tensor& x_, const Tensor& shift_, const Tensor& mean_,
    const Tensor& rstd_, at::IntArrayRef axes, const OptionalTensor& weight_,
    const OptionalTensor& bias_, std::string_view activation, double negative_slope) {
  const at::AutoDispatchBelowADInplaceOrView untracked;
  const AxisLayout layout(x_, axes);
  if (x_.numel() == 0) {
    const auto zeros = [&](const OptionalTensor& parameter) {
      return parameter ? at::zeros_like(*parameter) : at::empty({0}, x_.options());
    };
    return {at::empty_like(x_), zeros(weight_), zeros(bias_)};
  }
  const Tensor x = layout.dense(x_), grad = layout.dense(grad_.to(x.scalar_type()));
  const Tensor shift = layout.flat_stats(shift_), mean = layout.flat_stats(mean_);
  const Tensor rstd = layout.flat_stats(rstd_);
  const auto weight = parameter_of(layout, weight_), bias = parameter_of(layout, bias_);
  if (layout.inner_kept()) {
    const auto [out, products, sums] = segment_norm_backward(
        layout.flat(grad), layout.flat(x), layout.owners(), shift, mean, rstd, std::nullopt, weight,
        bias, layout.inner_size(), activation, negative_slope);
    return {layout.unflat(out), gradient_of(layout, products, weight_, x),
            gradient_of(layout, sums, bias_, x)};
  }
  Tensor out = at::empty_like(x), sums = at::empty_like(shift), products = at::empty_like(shift);
  const Tensor bases = layout.bases(), pieces = layout.pieces();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, x.scalar_type(), "axis_norm_backward", [&] {
        using A = Math<scalar_t>;
        const Stats<A> stats{shift.const_data_ptr<A>(), mean.const_data_ptr<A>(),
                             rstd.const_data_ptr<A>(), address<A>(weight), address<A>(bias)};
        with_activation(activation, [&](auto chosen) {
          backward<scalar_t, decltype(chosen)::value>(
              runs_of(layout, bases, pieces), grad.const_data_ptr<scalar_t>(),
              x.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>(), stats,
              sums.mutable_data_ptr<A>(), products.mutable_data_ptr<A>(), negative_slope);
        });
      });
  return {layout.unflat(out), gradient_of(layout, products, weight_, x),
          gradient_of(layout, sums, bias_, x)};
}

}  // namespace geonorm
