// Instances whose values lie in runs: normalization along the fastest axis of memory.
//
// Instance i is the union of the runs of `length` values from at(i) + piece[p] on, for every p.
#pragma once

#include <algorithm>
#include <cmath>

#include "segment_norm.h"

namespace geonorm {

struct Runs {
  const int64_t *base, *piece;  // without bases, instances of one run lie side by side
  int64_t instances, pieces, length;
  GEONORM_INLINE int64_t at(int64_t i) const { return base ? base[i] : i * length; }
  int64_t size() const { return pieces * length; }
};

// Some values of one instance: positions begin to end of its runs laid end to end.
struct Slice {
  const int64_t* piece;
  int64_t length, begin, end;

  // Calls f(offset, count) for consecutive values, at most kChunk at a time.
  template <class F>
  GEONORM_INLINE void over_chunks(F f) const {
    constexpr int64_t kChunk = 2048;
    int64_t p = begin == 0 ? 0 : begin / length, within = begin - p * length;
    for (int64_t at = begin; at < end;) {
      const int64_t count = std::min({end - at, length - within, kChunk});
      f(piece[p] + within, count);
      at += count;
      within += count;
      if (within == length) {
        within = 0;
        ++p;
      }
    }
  }
};

// Mass, mean and squared deviation of some values.
struct Moment {
  double mass = 0, mean = 0, squares = 0;

  GEONORM_INLINE void merge(const Moment& other) {
    if (other.mass == 0) return;
    if (mass == 0) {
      *this = other;
      return;
    }
    const double apart = other.mean - mean, share = other.mass / (mass + other.mass);
    squares += other.squares + apart * apart * mass * share;
    mean += apart * share;
    mass += other.mass;
  }
};

// A sum in four vectors and, for what does not fill one, a single value.
template <class A>
struct Lanes {
  static constexpr int W = kLanes<A>;
  Vec<A, W> wide[4] = {};
  A rest = 0;

  template <class V>
  GEONORM_INLINE void add(int v, V x) {
    if constexpr (std::is_arithmetic_v<V>) {
      rest += x;
    } else {
      wide[v] += x;
    }
  }
  GEONORM_INLINE A total() const {
    return fold<W>((wide[0] + wide[1]) + (wide[2] + wide[3])) + rest;
  }
  template <int N>
  static GEONORM_INLINE A fold(Vec<A, N> v) {
    if constexpr (N == 1) {
      return v;
    } else {
      Vec<A, N / 2> halves[2];
      __builtin_memcpy(halves, &v, sizeof(v));
      return fold<N / 2>(halves[0] + halves[1]);
    }
  }
};

// Sums a chunk around the mean of what came before it, or of its own beginning where that is less
// than an eighth of it; this bounds what the centring loses. What the centre is off by is taken out.
template <class T>
GEONORM_INLINE Moment run_moment(const T* x, Slice slice) {
  using A = Math<T>;
  Moment total;
  slice.over_chunks([&](int64_t offset, int64_t count) GEONORM_LAMBDA {
    const T* values = x + offset;
    const double share = 1.0 / count;
    A centre = total.mean;
    if (total.mass * 8 < count) {
      const int64_t lead = std::min(count, std::max<int64_t>(64, count / 8));
      const A first = read<A, 1>(values);
      Lanes<A> around;
      over_channels<A, 4>(lead, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
        constexpr int W = decltype(w)::value, U = decltype(u)::value;
        GEONORM_UNROLL for (int v = 0; v < U; ++v) {
          around.add(v, read<A, W>(values + c + v * W) - first);
        }
      });
      centre = first + around.total() * static_cast<A>(1.0 / lead);
    }
    Lanes<A> sum, square;
    over_channels<A, 4>(count, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        const auto apart = read<A, W>(values + c + v * W) - centre;
        sum.add(v, apart);
        square.add(v, apart * apart);
      }
    });
    const double off = sum.total(), squares = square.total() - off * off * share;
    total.merge({double(count), centre + off * share, squares < 0 ? 0 : squares});
  });
  return total;
}

// The statistics and parameters of one instance.
template <class A>
struct Scalars {
  A shift, mean, rstd, weight, bias;
  template <class V>
  GEONORM_INLINE V xhat(V x) const {
    return ((x - shift) - mean) * rstd;
  }
  template <class V>
  GEONORM_INLINE V affine(V xhat) const {
    return xhat * weight + bias;
  }
};

template <bool past_cache, Activation activation, class T>
GEONORM_INLINE void normalize_run(const T* x, T* out, Slice slice, Scalars<Math<T>> at,
                                  Math<T> slope) {
  using A = Math<T>;
  slice.over_chunks([&](int64_t offset, int64_t count) GEONORM_LAMBDA {
    over_channels<A, 4>(count, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        const int64_t k = offset + c + v * W;
        const auto y = activate<activation>(at.affine(at.xhat(read<A, W>(x + k))), slope);
        store<W>(std::bool_constant<past_cache>{}, out + k, y);
      }
    });
  });
}

// Σg and Σg·x̂, g the gradient before the activation.
struct RunProducts {
  double grads = 0, products = 0;
};

template <Activation activation, class T>
GEONORM_INLINE RunProducts run_products(const T* grads, const T* x, Slice slice,
                                        Scalars<Math<T>> at, Math<T> slope) {
  using A = Math<T>;
  RunProducts total;
  slice.over_chunks([&](int64_t offset, int64_t count) GEONORM_LAMBDA {
    Lanes<A> sum, product;
    over_channels<A, 4>(count, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        const int64_t k = offset + c + v * W;
        const auto xhat = at.xhat(read<A, W>(x + k));
        auto grad = read<A, W>(grads + k);
        if constexpr (activation != Activation::none) {
          grad = deactivate<activation>(grad, at.affine(xhat), slope);
        }
        sum.add(v, grad);
        product.add(v, grad * xhat);
      }
    });
    total.grads += sum.total();
    total.products += product.total();
  });
  return total;
}

// grad = (γg − mean(γg) − x̂ · mean(γg·x̂)) · rstd.
template <bool past_cache, Activation activation, class T>
GEONORM_INLINE void run_gradients(const T* grads, const T* x, T* out, Slice slice,
                                  Scalars<Math<T>> at, Math<T> mean, Math<T> along,
                                  Math<T> slope) {
  using A = Math<T>;
  slice.over_chunks([&](int64_t offset, int64_t count) GEONORM_LAMBDA {
    over_channels<A, 2>(count, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        const int64_t k = offset + c + v * W;
        const auto xhat = at.xhat(read<A, W>(x + k));
        auto grad = read<A, W>(grads + k);
        if constexpr (activation != Activation::none) {
          grad = deactivate<activation>(grad, at.affine(xhat), slope);
        }
        const auto result = (grad * at.weight - (mean + xhat * along)) * at.rstd;
        store<W>(std::bool_constant<past_cache>{}, out + k, result);
      }
    });
  });
}

}  // namespace geonorm
