// axis_norm and its backward on the CPU; geonorm/ops/axis_norm.py says what they compute and holds
// the reference that defines it.
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
  Slice slice(const Runs& runs, int64_t s) const {
    const auto edge = [&](int64_t k) {
      return k == slices ? runs.size() : runs.size() * k / slices / 64 * 64;
    };
    return {runs.piece, runs.length, edge(s), edge(s + 1)};
  }
};

// What a pass over the runs needs; instance i has element i % period of the parameters.
template <class T>
struct Pass {
  using A = Math<T>;
  Runs runs;
  Cut cut;
  const T *grads, *x, *residual;
  T* out;
  Statistics<A> stats;
  const A *weight, *bias;
  int64_t period;
  double share;  // of a value in its instance
  double eps;
  Activation activation;
  A slope;
  A *grad_weight, *grad_bias;

  bool past_cache() const {
    constexpr size_t kOuterCacheBytes = 1 << 24;  // in the inner cache is the instance itself
    return runs.instances * runs.size() * sizeof(T) > kOuterCacheBytes &&
           runs.length * sizeof(T) % 16 == 0 && reinterpret_cast<uintptr_t>(out) % 16 == 0;
  }
  GEONORM_INLINE RunLine<A> of(int64_t i, int64_t p) const {
    const A gain = stats.rstd[i] * (weight ? weight[p] : A(1));
    return {stats.shift[i], gain, (bias ? bias[p] : A(0)) - stats.mean[i] * gain};
  }
  GEONORM_INLINE void finish(int64_t i, const Moment& total) const {
    const double var = total.squares * share;
    stats.shift[i] = near_mean(total.mean, var);
    stats.mean[i] = total.mean - stats.shift[i];
    stats.rstd[i] = 1 / std::sqrt(var + eps);
  }
  GEONORM_INLINE void finish(int64_t i, const RunProducts& total) const {
    grad_bias[i] = total.grads;
    grad_weight[i] = (total.products - stats.mean[i] * total.grads) * stats.rstd[i];
  }
};

// The two halves of forward and of backward: what is summed, and what is written with the sums. The
// activation is looked up for each instance, so that what does not depend on it is compiled once.
template <class T>
struct Forward : Pass<T> {
  using Sum = Moment;
  template <int B>
  GEONORM_INLINE Sum sum(int64_t i, int64_t, Slice slice) const {
    return run_moment<B>(this->x + this->runs.at(i), slice);
  }
  static void merge(Sum& total, const Sum& other) { total.merge(other); }
  template <int B>
  GEONORM_INLINE void write(int64_t i, int64_t p, Slice slice, bool large) const {
    const int64_t base = this->runs.at(i);
    const RunLine<Math<T>> at = this->of(i, p);
    with_activation(this->activation, [&](auto tail) GEONORM_LAMBDA {
      with_flags([&](auto past, auto added) GEONORM_LAMBDA {
        const T* residual = added ? this->residual + base : nullptr;
        normalize_run<B, past, tail, added>(this->x + base, residual, this->out + base, slice, at,
                                            this->slope);
      }, large, this->residual != nullptr);
    });
  }
};

template <class T>
struct Backward : Pass<T> {
  using Sum = RunProducts;
  template <int B>
  GEONORM_INLINE Sum sum(int64_t i, int64_t p, Slice slice) const {
    const int64_t base = this->runs.at(i);
    const RunLine<Math<T>> at = this->of(i, p);
    Sum total;
    with_activation(this->activation, [&](auto tail) GEONORM_LAMBDA {
      total = run_products<B, tail>(this->grads + base, this->x + base, slice, at, this->slope);
    });
    return total;
  }
  static void merge(Sum& total, const Sum& other) {
    total.grads += other.grads;
    total.products += other.products;
  }
  template <int B>
  GEONORM_INLINE void write(int64_t i, int64_t p, Slice slice, bool large) const {
    const int64_t base = this->runs.at(i);
    auto at = this->of(i, p);
    at.along = this->grad_weight[i] * this->share * this->stats.rstd[i];
    at.level = this->grad_bias[i] * this->share - this->stats.mean[i] * at.along;
    with_activation(this->activation, [&](auto tail) GEONORM_LAMBDA {
      with_flags([&](auto past) GEONORM_LAMBDA {
        run_gradients<B, past, tail>(this->grads + base, this->x + base, this->out + base, slice,
                                     at, this->slope);
      }, large);
    });
  }
};

// What is done with a slice of an instance; both at once where it is all of it, which is still in the
// cache when it is written.
enum class Step { sum, write, both };

// Instances begin to end; a sum alone goes to `sum`.
template <int B, class Work>
GEONORM_INLINE void over_instances(const Work& work, Step step, Slice slice, bool large,
                                   int64_t begin, int64_t end, typename Work::Sum* sum) {
  int64_t p = begin % work.period;
  for (int64_t i = begin; i < end; ++i) {
    if (step != Step::write) {
      const auto found = work.template sum<B>(i, p, slice);
      step == Step::both ? work.finish(i, found) : void(*sum = found);
    }
    if (step != Step::sum) work.template write<B>(i, p, slice, large);
    if (++p == work.period) p = 0;
  }
}

template <class Work>
void over_runs(const Work& work) {
  const Cut& cut = work.cut;
  const bool large = work.past_cache();
  std::vector<typename Work::Sum> sums(cut.slices);
  const auto run = [&](Step step, int64_t s, int64_t begin, int64_t end) {
    const Slice slice = cut.slice(work.runs, s);
    vectorized([&](auto bytes) GEONORM_LAMBDA {
      over_instances<bytes>(work, step, slice, large, begin, end, &sums[s]);
    });
  };
  if (cut.slices == 1) {
    at::parallel_for(0, work.runs.instances, cut.grain, [&](int64_t begin, int64_t end) {
      run(Step::both, 0, begin, end);
      fence();
    });
    return;
  }
  for (int64_t i = 0; i < work.runs.instances; ++i) {
    const auto by_slices = [&](Step step) {
      at::parallel_for(0, cut.slices, 1, [&](int64_t begin, int64_t end) {
        for (int64_t s = begin; s < end; ++s) run(step, s, i, i + 1);
        fence();
      });
    };
    by_slices(Step::sum);
    for (int64_t s = 1; s < cut.slices; ++s) Work::merge(sums[0], sums[s]);
    work.finish(i, sums[0]);
    by_slices(Step::write);
  }
}

template <class T>
Pass<T> pass_of(const AxisLayout& layout, const Tensor& bases, const Tensor& pieces,
                const Tensor& x, Tensor& out, const OptionalTensor& weight,
                const OptionalTensor& bias, Tail tail) {
  using A = Math<T>;
  const Runs runs{bases.defined() ? bases.const_data_ptr<int64_t>() : nullptr,
                  pieces.const_data_ptr<int64_t>(), layout.instances(), pieces.numel(),
                  layout.inner_size()};
  return {.runs = runs, .cut = Cut(runs), .grads = nullptr, .x = x.const_data_ptr<T>(),
          .residual = nullptr, .out = out.mutable_data_ptr<T>(), .stats = {},
          .weight = weight ? weight->const_data_ptr<A>() : nullptr,
          .bias = bias ? bias->const_data_ptr<A>() : nullptr,
          .period = weight ? weight->numel() : bias ? bias->numel() : 1,
          .share = 1.0 / runs.size(), .eps = 0, .activation = tail.activation,
          .slope = static_cast<A>(tail.slope), .grad_weight = nullptr, .grad_bias = nullptr};
}

// A parameter as the runs, or as the rows of segment_norm, take it; the other one tells its size.
OptionalTensor for_runs(const AxisLayout& layout, const OptionalTensor& parameter,
                        const OptionalTensor& other) {
  if (!parameter) return parameter;
  const bool alike = !other || other->dim() == parameter->dim();
  return alike && layout.repeats(*parameter) ? *parameter : layout.spread(*parameter);
}

Parameter for_rows(const AxisLayout& layout, const OptionalTensor& parameter) {
  if (!parameter || (parameter->dim() == 1 && layout.inner_is_channels())) return parameter;
  Parameter spread;
  spread.tensor = layout.spread(*parameter);
  spread.per_instance = true;
  return spread;
}

Batch rows_of(const AxisLayout& layout, const Tensor& x, const Tensor& owners) {
  const int64_t channels = layout.inner_size();
  return {x.const_data_ptr(), channels, layout.rows(), channels, owners.const_data_ptr<int64_t>(),
          layout.instances(), channels};
}

Statistics<void> pointers(Tensor& shift, Tensor& mean, Tensor& rstd) {
  return {shift.mutable_data_ptr(), mean.mutable_data_ptr(), rstd.mutable_data_ptr()};
}

Tensor gradient_of(const AxisLayout& layout, const Tensor& each, const OptionalTensor& parameter,
                   const Tensor& x) {
  return parameter ? layout.gathered(each, *parameter) : at::empty({0}, x.options());
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> axis_norm(
    const Tensor& x_, at::IntArrayRef axes, const OptionalTensor& weight,
    const OptionalTensor& bias, double eps, std::string_view activation, double negative_slope,
    const OptionalTensor& residual_) {
  const AxisLayout layout(x_, axes);
  const auto options = stats_options(x_);
  Tensor out = layout.empty(x_.options()), shift = layout.empty_stats(options);
  Tensor mean = layout.empty_stats(options), rstd = layout.empty_stats(options);
  if (x_.numel() > 0) {
    const Tensor x = layout.dense(x_);
    const Tensor residual = residual_ ? layout.dense(*residual_) : Tensor();
    Tail tail{activation_of(activation), negative_slope};
    if (layout.inner_kept()) {
      const Tensor owners = layout.owners();
      const Batch batch = rows_of(layout, x, owners);
      tail.residual = residual_ ? residual.const_data_ptr() : nullptr;
      tail.residual_stride = batch.stride;
      normalize(x.scalar_type(), batch, Parameter(), for_rows(layout, weight),
                for_rows(layout, bias), eps, tail, out.mutable_data_ptr(),
                pointers(shift, mean, rstd));
    } else {
      const Tensor bases = layout.bases(), pieces = layout.pieces();
      const auto gains = for_runs(layout, weight, bias);
      const auto offsets = for_runs(layout, bias, weight);
      AT_DISPATCH_FLOATING_TYPES_AND2(
          at::kHalf, at::kBFloat16, x.scalar_type(), "axis_norm", [&] {
            auto pass = pass_of<scalar_t>(layout, bases, pieces, x, out, gains, offsets, tail);
            pass.stats = pointers(shift, mean, rstd).of<Math<scalar_t>>();
            pass.eps = eps;
            if (residual_) pass.residual = residual.const_data_ptr<scalar_t>();
            over_runs(Forward<scalar_t>{pass});
          });
    }
  }
  return {out, layout.settled(shift), layout.settled(mean), layout.settled(rstd)};
}

std::tuple<Tensor, Tensor, Tensor> axis_norm_backward(
    const Tensor& grad_, const Tensor& x_, const Tensor& shift_, const Tensor& mean_,
    const Tensor& rstd_, at::IntArrayRef axes, const OptionalTensor& weight,
    const OptionalTensor& bias, std::string_view activation, double negative_slope) {
  const AxisLayout layout(x_, axes);
  const auto options = stats_options(x_);
  Tensor out = layout.empty(x_.options());
  Tensor sums = layout.empty_stats(options), products = layout.empty_stats(options);
  if (x_.numel() > 0) {
    const Tensor x = layout.dense(x_), grad = layout.dense(grad_.to(x.scalar_type()));
    Tensor shift = layout.unsettled(shift_), mean = layout.unsettled(mean_);
    Tensor rstd = layout.unsettled(rstd_);
    const Statistics<void> stats = pointers(shift, mean, rstd);
    const Tail tail{activation_of(activation), negative_slope};
    if (layout.inner_kept()) {
      const Tensor owners = layout.owners();
      const Batch batch = rows_of(layout, x, owners);
      gradients(x.scalar_type(), batch, grad.const_data_ptr(), batch.stride,
                stats.of<const void>(), Parameter(), for_rows(layout, weight),
                for_rows(layout, bias), tail, out.mutable_data_ptr(),
                products.mutable_data_ptr(), sums.mutable_data_ptr());
    } else {
      const Tensor bases = layout.bases(), pieces = layout.pieces();
      const auto gains = for_runs(layout, weight, bias);
      const auto offsets = for_runs(layout, bias, weight);
      AT_DISPATCH_FLOATING_TYPES_AND2(
          at::kHalf, at::kBFloat16, x.scalar_type(), "axis_norm_backward", [&] {
            using A = Math<scalar_t>;
            auto pass = pass_of<scalar_t>(layout, bases, pieces, x, out, gains, offsets, tail);
            pass.grads = grad.const_data_ptr<scalar_t>();
            pass.stats = stats.of<A>();
            pass.grad_weight = products.mutable_data_ptr<A>();
            pass.grad_bias = sums.mutable_data_ptr<A>();
            over_runs(Backward<scalar_t>{pass});
          });
    }
  } else {
    sums.zero_();
    products.zero_();
  }
  return {out, gradient_of(layout, products, weight, x_), gradient_of(layout, sums, bias, x_)};
}

}  // namespace geonorm
