// sparse_conv on the CPU: gathered rows times the kernel, added up where the output lies.
//
// The output is cut into blocks of rows that stay in the cache. In a block each offset of the kernel
// has one run of pairs; their input rows, read where they lie, are multiplied by the offset's matrix
// in registers and added to the output rows. An output row is the work of one thread, which takes
// the offsets in order: the bits depend on neither the blocks nor the number of threads.
#include "sparse_conv.h"

#include <ATen/ops/empty.h>

namespace geonorm {
namespace {

constexpr int64_t kBlockBytes = 1 << 18;  // of the output
constexpr int64_t kBlocks = 32;           // at least, where there are rows enough
constexpr int64_t kFewest = 64;           // rows in a block
constexpr int64_t kChunk = 120;           // rows gathered at a time

// The matrices of all offsets, group of vectors after group of vectors, input channels together as
// R takes them, the last ones filled up with zeros.
template <class R, class T>
struct Panels {
  int64_t depth, vectors;  // Numbers per column, vectors per row
  Scratch<typename R::Number> memory;

  explicit Panels(const Tensor& kernel)
      : depth((kernel.size(1) + R::kDepth - 1) / R::kDepth),
        vectors((kernel.size(2) + R::kWidth - 1) / R::kWidth),
        memory(kernel.size(0) * depth * vectors * R::kWidth) {}

  typename R::Number* of(int64_t k) const {
    return memory.data() + k * depth * vectors * R::kWidth;
  }
};

template <class T>
GEONORM_INLINE uint16_t bits16(T x) { return bits_of<uint16_t>(x); }

template <class R, class T>
GEONORM_INLINE typename R::Number packed(const T* w, int64_t next, bool second) {
  if constexpr (R::kDepth == 2) {
    return bits16(w[0]) | static_cast<uint32_t>(second ? bits16(w[next]) : 0) << 16;
  } else {
    return static_cast<typename R::Number>(w[0]);
  }
}

template <class R, class T>
GEONORM_INLINE void pack(const Tensor& kernel, int64_t k, const Panels<R, T>& panels) {
  const int64_t inputs = kernel.size(1), outputs = kernel.size(2);
  const int64_t down = kernel.stride(1), across = kernel.stride(2);
  const T* from = kernel.const_data_ptr<T>() + k * kernel.stride(0);
  auto* to = panels.of(k);
  over_vectors<R>(panels.vectors, [&](auto n, int64_t v) GEONORM_LAMBDA {
    constexpr int kAcross = decltype(n)::value * R::kWidth;
    const int64_t first = v * R::kWidth, known = std::min<int64_t>(kAcross, outputs - first);
    for (int64_t d = 0; d < panels.depth; ++d, to += kAcross) {
      const bool second = R::kDepth * d + 1 < inputs;
      const T* row = from + R::kDepth * d * down + first * across;
      if (across == 1) {
        for (int64_t c = 0; c < known; ++c) to[c] = packed<R>(row + c, down, second);
      } else {
        for (int64_t c = 0; c < known; ++c) to[c] = packed<R>(row + c * across, down, second);
      }
      std::fill(to + known, to + kAcross, typename R::Number(0));
    }
  });
}

// Adds M rows times a panel of N vectors to M rows of sums.
template <class R, int M, int N>
GEONORM_INLINE void tile(const typename R::Number* const* rows, const typename R::Number* panel,
                         int64_t depth, typename R::Sum* const* sums, int64_t at) {
  using X = typename R::Number;
  typename R::S acc[M][N] = {};
  for (int64_t d = 0; d < depth; ++d, panel += N * R::kWidth) {
    typename R::V w[N];
    GEONORM_UNROLL for (int n = 0; n < N; ++n) w[n] = raw<typename R::V>(panel + n * R::kWidth);
    GEONORM_UNROLL for (int m = 0; m < M; ++m) {
      const X x = raw<X>(rows[m] + d);
      GEONORM_UNROLL for (int n = 0; n < N; ++n) R::add(acc[m][n], x, w[n]);
    }
  }
  GEONORM_UNROLL for (int m = 0; m < M; ++m) {
    GEONORM_UNROLL for (int n = 0; n < N; ++n) {
      auto* sum = sums[m] + at + n * R::kWidth;
      const typename R::S total = raw<typename R::S>(sum) + acc[m][n];
      __builtin_memcpy(sum, &total, sizeof(total));
    }
  }
}

template <class R, int M, int N>
GEONORM_INLINE void tiles(const typename R::Number* const* rows, const typename R::Number* panel,
                          int64_t depth, typename R::Sum* const* sums, int64_t at, int64_t count) {
  int64_t i = 0;
  for (; i + M <= count; i += M) tile<R, M, N>(rows + i, panel, depth, sums + i, at);
  if constexpr (M > 1) tiles<R, M / 2, N>(rows + i, panel, depth, sums + i, at, count - i);
}

template <class R, class T>
struct Convolution {
  using A = typename R::Sum;
  using X = typename R::Number;
  const Pairs pairs;
  const T* features;
  int64_t stride, inputs, outputs;
  const Panels<R, T>& panels;
  T* out;
  int64_t rows;

  // Whether rows are multiplied where they lie, and sums added up where the output lies.
  bool in_place() const { return R::kDepth == 2 ? inputs % 2 == 0 : std::is_same_v<T, X>; }
  bool straight() const { return std::is_same_v<T, A> && outputs % R::kWidth == 0; }
  int64_t width() const { return panels.vectors * R::kWidth; }
  int64_t block() const {
    const int64_t most = kBlockBytes / (width() * sizeof(A));
    return std::max(kFewest, std::min(most, (rows + kBlocks - 1) / kBlocks));
  }

  GEONORM_INLINE const X* row(const T* from, X* copy) const {
    if (in_place()) {  // all rows of a chunk are fetched at once, not one tile after the other
      for (int64_t c = 0; c < inputs; c += 64 / sizeof(T)) __builtin_prefetch(from + c);
      return reinterpret_cast<const X*>(from);
    }
    if constexpr (R::kDepth == 2) {
      copy[panels.depth - 1] = 0;
      __builtin_memcpy(copy, from, inputs * sizeof(T));
    } else {
      over_channels<R::kBytes, X, 1>(inputs, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
        const auto v = read<X, decltype(w)::value>(from + c);
        __builtin_memcpy(copy + c, &v, sizeof(v));
      });
    }
    return copy;
  }

  GEONORM_INLINE void run(int64_t begin, int64_t end, X* copies, A* sums) const {
    const X* from[kChunk];
    A* to[kChunk];
    std::fill_n(sums, (end - begin) * width(), A(0));
    for (int64_t k = 0; k < pairs.count; ++k) {
      const int32_t* target = pairs.target;
      const auto* stop = target + pairs.end(k);
      const int64_t first = std::lower_bound(target + pairs.begin(k), stop, begin) - target;
      const int64_t last = std::lower_bound(target + first, stop, end) - target;
      for (int64_t p = first; p < last; p += kChunk) {
        const int64_t count = std::min(kChunk, last - p);
        for (int64_t i = 0; i < count; ++i) {
          from[i] = row(features + pairs.source[p + i] * stride, copies + i * panels.depth);
          to[i] = sums + (target[p + i] - begin) * width();
        }
        const X* panel = panels.of(k);
        over_vectors<R>(panels.vectors, [&](auto n, int64_t v) GEONORM_LAMBDA {
          constexpr int N = decltype(n)::value;
          tiles<R, kRowsOf<R, N>, N>(from, panel, panels.depth, to, v * R::kWidth, count);
          panel += panels.depth * N * R::kWidth;
        });
      }
    }
  }

  GEONORM_INLINE void store(int64_t begin, int64_t end, const A* sums) const {
    for (int64_t r = begin; r < end; ++r, sums += width()) {
      over_channels<R::kBytes, A, 1>(outputs, [&](auto w, auto, int64_t c) GEONORM_LAMBDA {
        constexpr int W = decltype(w)::value;
        write<W>(out + r * outputs + c, raw<Vec<A, W>>(sums + c));
      });
    }
  }
};

template <class R, class T>
GEONORM_INLINE void convolve_block(const Convolution<R, T>& work, int64_t task) {
  using A = typename R::Sum;
  const int64_t begin = task * work.block(), end = std::min(work.rows, begin + work.block());
  Scratch<typename R::Number> copies(work.in_place() ? 0 : kChunk * work.panels.depth);
  if (work.straight()) {
    auto* out = reinterpret_cast<A*>(work.out) + begin * work.outputs;
    return work.run(begin, end, copies.data(), out);
  }
  Scratch<A> sums((end - begin) * work.width());
  work.run(begin, end, copies.data(), sums.data());
  work.store(begin, end, sums.data());
}

template <class T>
void convolve(const Pairs& pairs, const Tensor& features, const Tensor& kernel, Tensor& out) {
  multiplying<T>([&](auto r) {
    using R = decltype(r);
    const Panels<R, T> panels(kernel);
    by_tasks(pairs.count, [&](int64_t k) {
      compiled<R>([&](auto) GEONORM_LAMBDA { pack<R, T>(kernel, k, panels); });
    });
    const Convolution<R, T> work{pairs, features.const_data_ptr<T>(), features.stride(0),
                                 kernel.size(1), kernel.size(2), panels,
                                 out.mutable_data_ptr<T>(), out.size(0)};
    by_tasks((work.rows + work.block() - 1) / work.block(), [&](int64_t task) {
      compiled<R>([&](auto) GEONORM_LAMBDA { convolve_block<R, T>(work, task); });
    });
  });
}

// The gradient of the kernel: of each offset Σ features[source]ᵀ grad[target].
//
// The pairs of an offset are cut into segments of a fixed length, each the work of one thread; their
// sums are added in order, so that the bits do not depend on the number of threads. Those of an
// offset's first segment are taken where the result lies, if it is of the same kind.
constexpr int64_t kSegment = 8192;  // pairs
constexpr int64_t kRead = 64;      // pairs read at a time, whose rows then are in the cache

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

  int64_t copied() const { return (kRead / R::kDepth) * width; }

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
    for (int64_t p = segment.begin; p < segment.end; p += kRead) {
      const int64_t count = std::min(kRead, segment.end - p);
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

Pairs pairs_of(const Tensor& pairs, const Tensor& offsets, int64_t sources, int64_t targets) {
  TORCH_CHECK_VALUE(pairs.scalar_type() == at::kInt && pairs.dim() == 2 && pairs.size(0) == 2,
                    "pairs must be int32 (2, P); got ", pairs.scalar_type(), " ", pairs.sizes());
  TORCH_CHECK_VALUE(offsets.scalar_type() == at::kLong && offsets.dim() == 1 && offsets.numel() > 0,
                    "offsets must be int64 (K + 1,); got ", offsets.scalar_type(), " ",
                    offsets.sizes());
  const int64_t count = offsets.numel() - 1, all = pairs.size(1);
  const auto* source = pairs.const_data_ptr<int32_t>();
  const auto* bounds = offsets.const_data_ptr<int64_t>();
  const bool ascending = bounds[0] == 0 && bounds[count] == all &&
                         std::is_sorted(bounds, bounds + count + 1);
  TORCH_CHECK_VALUE(ascending, "offsets must ascend from 0 to the number of pairs, ", all);
  const Pairs found{source, source + all, bounds, count};
  std::atomic<bool> outside{false}, unsorted{false};
  by_tasks(count, [&](int64_t k) {
    vectorized([&](auto) GEONORM_LAMBDA {
      int64_t beyond = 0, falls = 0;
      for (int64_t p = found.begin(k); p < found.end(k); ++p) {
        beyond += static_cast<uint32_t>(found.source[p]) >= static_cast<uint64_t>(sources);
        beyond += static_cast<uint32_t>(found.target[p]) >= static_cast<uint64_t>(targets);
      }
      for (int64_t p = found.begin(k) + 1; p < found.end(k); ++p) {
        falls += found.target[p] < found.target[p - 1];
      }
      if (beyond > 0) outside = true;
      if (falls > 0) unsorted = true;
    });
  });
  TORCH_CHECK_INDEX(!outside, "pairs must hold rows in [0, ", sources, ") above rows in [0, ",
                    targets, ")");
  TORCH_CHECK_INDEX(!unsorted, "the pairs of an offset must stand by ascending output row");
  return found;
}

Tensor sparse_conv(const Tensor& features_, const Tensor& kernel, const Tensor& pairs_,
                   const Tensor&, const Tensor& offsets_, int64_t rows) {
  const Tensor features = side_by_side(features_);
  const Tensor pairs = pairs_.contiguous(), offsets = offsets_.contiguous();
  const Pairs list = pairs_of(pairs, offsets, features.size(0), rows);
  Tensor out = at::empty({rows, kernel.size(2)}, features.options());
  if (out.numel() == 0 || features.size(1) == 0) return out.zero_();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, features.scalar_type(), "sparse_conv",
                                  [&] { convolve<scalar_t>(list, features, kernel, out); });
  return out;
}

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
