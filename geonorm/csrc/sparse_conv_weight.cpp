// The gradient of sparse_conv's kernel on the CPU: of each offset Σ features[source]ᵀ grad[target].
//
// The pairs of an offset are cut into segments of a fixed length, each the work of one thread; their
// sums are added in order, so that the bits do not depend on the number of threads. Those of an
// offset's first segment are taken where the result lies, if it is of the same kind.
#include "sparse_conv.h"

namespace geonorm {
namespace {

constexpr int64_t kSegment = 8192;  // pairs
constexpr int64_t kChunk = 64;      // pairs read at a time, whose rows then are in the cache

struct Segment {
  int64_t k, begin, end;

  bool first(const Pairs& pairs) const { return begin == pairs.begin(k); }
};

std::vector<Segment> segments_of(const Pairs& pairs) {
  std::vector<Segment> segments;
  for (int64_t k = 0; k < pairs.count; ++k) {
    int64_t begin = pairs.begin(k);
    const int64_t end = pairs.end(k);
    do {
      segments.push_back({k, begin, std::min(begin + kSegment, end)});
      begin += kSegment;
    } while (begin < end);
  }
  return segments;
}

// Adds Σ x[p][in + m] · g[p][at + n] over pairs p, M channels by N vectors, to the sums; inputs and
// width are those of a row of x and of g.
template <class R, int M, int N>
GEONORM_INLINE void outer(const typename R::Number* x, const typename R::Number* g, int64_t count,
                          int64_t inputs, int64_t width, typename R::Sum* sums) {
  using X = typename R::Number;
  typename R::S acc[M][N] = {};
  for (int64_t p = 0; p < count; ++p, x += inputs, g += width) {
    typename R::V w[N];
    GEONORM_UNROLL for (int n = 0; n < N; ++n) w[n] = raw<typename R::V>(g + n * R::kWidth);
    GEONORM_UNROLL for (int m = 0; m < M; ++m) {
      const X value = raw<X>(x + m);
      GEONORM_UNROLL for (int n = 0; n < N; ++n) R::add(acc[m][n], value, w[n]);
    }
  }
  GEONORM_UNROLL for (int m = 0; m < M; ++m) {
    GEONORM_UNROLL for (int n = 0; n < N; ++n) {
      auto* sum = sums + m * width + n * R::kWidth;
      const typename R::S total = raw<typename R::S>(sum) + acc[m][n];
      __builtin_memcpy(sum, &total, sizeof(total));
    }
  }
}

template <class R, int M, int N>
GEONORM_INLINE void outers(const typename R::Number* x, const typename R::Number* g, int64_t count,
                           int64_t in, int64_t inputs, int64_t width, typename R::Sum* sums) {
  for (; in + M <= inputs; in += M) {
    outer<R, M, N>(x + in, g, count, inputs, width, sums + in * width);
  }
  if constexpr (M > 1) outers<R, M / 2, N>(x, g, count, in, inputs, width, sums);
}

// Rows of one tensor, copied side by side as R multiplies them: read where they lie, each tile would
// wait for them anew.
template <class R, class T>
struct Side {
  using X = typename R::Number;
  const T* data;
  int64_t stride, channels, width;  // width: of a copy, in Numbers, filled up with zeros

  int64_t copied() const { return (kChunk / R::kDepth) * width; }

  GEONORM_INLINE void copy(const int32_t* rows, int64_t count, X* to) const {
    for (int64_t p = 0; p < count; p += R::kDepth, to += width) {
      const T* row = data + rows[p] * stride;
      if constexpr (R::kDepth == 1) {
        over_channels<R::kBytes, X, 1>(channels, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
          const auto v = read<X, decltype(w)::value>(row + c);
          __builtin_memcpy(to + c, &v, sizeof(v));
        });
      } else {
        interleave(row, p + 1 < count ? data + rows[p + 1] * stride : nullptr, to);
      }
      std::fill(to + channels, to + width, X(0));
    }
  }

  // The channels of two rows in turn; of one row and zeros where there is no other.
  GEONORM_INLINE void interleave(const T* row, const T* other, X* to) const {
    over_channels<R::kBytes, X, 1>(channels, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value;
      auto both = convert<Vec<X, W>>(raw<Vec<uint16_t, W>>(row + c));
      if (other) both |= convert<Vec<X, W>>(raw<Vec<uint16_t, W>>(other + c)) << 16;
      __builtin_memcpy(to + c, &both, sizeof(both));
    });
  }
};

template <class R, class T>
struct Gradient {
  using A = typename R::Sum;
  using X = typename R::Number;
  const Pairs pairs;
  Side<R, T> features, grads;

  int64_t size() const { return features.channels * grads.width; }
  bool straight() const { return std::is_same_v<T, A> && grads.width == grads.channels; }

  GEONORM_INLINE void run(const Segment& segment, A* sums) const {
    const Scratch<X> x(features.copied()), g(grads.copied());
    std::fill_n(sums, size(), A(0));
    for (int64_t p = segment.begin; p < segment.end; p += kChunk) {
      const int64_t count = std::min(kChunk, segment.end - p);
      features.copy(pairs.source + p, count, x.data());
      grads.copy(pairs.target + p, count, g.data());
      over_vectors<R>(grads.width / R::kWidth, [&](auto n, int64_t v) GEONORM_LAMBDA {
        constexpr int N = decltype(n)::value;
        outers<R, kRowsOf<R, N>, N>(x.data(), g.data() + v * R::kWidth,
                                    (count + R::kDepth - 1) / R::kDepth, 0, features.channels,
                                    grads.width, sums + v * R::kWidth);
      });
    }
  }

  // Adds up the sums of one offset's segments, `count` of them, and writes its gradient.
  GEONORM_INLINE void finish(A* const* sums, int64_t count, T* out) const {
    for (int64_t s = 1; s < count; ++s) {
      for (int64_t i = 0; i < size(); ++i) sums[0][i] += sums[s][i];
    }
    if (straight()) return;
    for (int64_t r = 0; r < features.channels; ++r) {
      over_channels<R::kBytes, A, 1>(grads.channels, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
        constexpr int W = decltype(w)::value;
        write<W>(out + r * grads.channels + c, raw<Vec<A, W>>(sums[0] + r * grads.width + c));
      });
    }
  }
};

template <class T>
void weight_gradient(const Pairs& pairs, const Tensor& features, const Tensor& grad, Tensor& out) {
  multiplying<T>([&](auto r) {
    using R = decltype(r);
    using A = typename R::Sum;
    const auto side = [](const Tensor& x, int64_t width) {
      return Side<R, T>{x.const_data_ptr<T>(), x.stride(0), x.size(1), width};
    };
    const int64_t padded = (grad.size(1) + R::kWidth - 1) / R::kWidth * R::kWidth;
    const Gradient<R, T> work{pairs, side(features, features.size(1)), side(grad, padded)};
    T* result = out.mutable_data_ptr<T>();
    const int64_t whole = features.size(1) * grad.size(1);
    const auto segments = segments_of(pairs);
    const int64_t count = segments.size(), inside = work.straight() ? pairs.count : 0;
    const Scratch<A> scratch((count - inside) * work.size());
    std::vector<A*> sums;        // of each segment
    std::vector<int64_t> firsts;  // segments of the offsets
    for (int64_t s = 0, outside = 0; s < count; ++s) {
      const bool first = segments[s].first(pairs);
      if (first) firsts.push_back(s);
      sums.push_back(first && inside ? reinterpret_cast<A*>(result) + segments[s].k * whole
                                     : scratch.data() + outside++ * work.size());
    }
    firsts.push_back(count);
    by_tasks(count, [&](int64_t s) {
      compiled<R>([&](auto) GEONORM_LAMBDA { work.run(segments[s], sums[s]); });
    });
    by_tasks(pairs.count, [&](int64_t k) {
      compiled<R>([&](auto) GEONORM_LAMBDA {
        work.finish(sums.data() + firsts[k], firsts[k + 1] - firsts[k], result + k * whole);
      });
    });
  });
}

}  // namespace

Tensor sparse_conv_weight(const Tensor& features_, const Tensor& grad_, const Tensor& pairs_,
                          const Tensor&, const Tensor& offsets_) {
  const Tensor features = side_by_side(features_), grad = side_by_side(grad_);
  const Tensor pairs = pairs_.contiguous(), offsets = offsets_.contiguous();
  const Pairs list = pairs_of(pairs, offsets, features.size(0), grad.size(0));
  Tensor out = at::empty({list.count, features.size(1), grad.size(1)}, features.options());
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, features.scalar_type(),
                                  "sparse_conv_weight",
                                  [&] { weight_gradient<scalar_t>(list, features, grad, out); });
  return out;
}

}  // namespace geonorm
