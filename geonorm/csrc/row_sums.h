// Sums over the rows of each instance, in any order of the rows, on every thread.
//
// The rows are cut into one part per thread. A part streams its rows once into slots, one per
// instance; what it adds up is the business of a Sums class (moments.h, products.h):
//
//   Sums(part)               with a member `slots`, made for that part
//   enter(k)                 slot k begins an instance
//   add<B>(k, instance, row, count)  takes `count` rows of one instance in, from `row` on, by vectors
//                                    of B bytes
//   rest(k)                  a tile of rows has ended, slot k may put its running sums away
//   merge(k, other, j)       takes slot j of another part's sums in
//   emit(k)                  writes the results of slot k out
//
// Where the index is sorted, three slots per part are enough: the part's first and last instance may
// go on in its neighbours and wait in slots 0 and 1 until all parts are done; any other is complete
// when its run ends and passes through slot 2. Otherwise a part has a slot for every instance in the
// range it meets. Either way the order of additions depends on the number of threads alone.
#pragma once

#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <vector>

#include "simd.h"

namespace geonorm {

constexpr int64_t kTile = 64;  // rows that are tried as one run

constexpr int64_t kNarrow = 32;  // channels whose sums stay in registers from row to row

// Calls f(row, count) for blocks of rows to be read column by column: one by one if they are wide.
template <class F>
GEONORM_INLINE void by_blocks(int64_t channels, int64_t row, int64_t count, F f) {
  if (channels <= kNarrow) return f(row, count);
  for (const int64_t end = row + count; row < end; ++row) f(row, 1);
}

// Fetches what a wide row's column is followed by in memory.
template <int N, class T>
GEONORM_INLINE void fetch_ahead(const T* p, int64_t channels) {
  constexpr int64_t kBytes = 1 << 10;
  if (channels > kNarrow) prefetch<N>(p + kBytes / sizeof(T));
}

struct Part {
  int64_t begin, end;          // rows
  int64_t low = 0, high = -1;  // instances
  bool sorted = true;
};

struct Partition {
  std::vector<Part> parts;
  bool sorted = true;
  bool whole = false;  // no instance goes on from one part into the next
};

struct Slot {
  int64_t instance = -1, first = -1;  // the instance and its first row that counts
  int64_t done = 0, pending = 0;      // rows in the totals, and in the running sums
  double mass = 0, pending_mass = 0;
};

// Slots with a block of raw memory each.
class Slots {
 public:
  Slots(const Part& part, bool sorted, size_t bytes)
      : low_(part.low), high_(part.high), sorted_(sorted), bytes_((bytes + 63) / 64 * 64),
        slots_(sorted ? 3 : part.high - part.low + 1),
        memory_(c10::GetCPUAllocator()->allocate(slots_.size() * bytes_)) {}

  int64_t find(int64_t instance) const {
    if (!sorted_) return instance - low_;
    return instance == low_ ? 0 : instance == high_ ? 1 : 2;
  }
  bool holds(int64_t instance) const {
    return low_ <= instance && instance <= high_ && slots_[find(instance)].instance == instance;
  }
  Slot& operator[](int64_t k) { return slots_[k]; }
  int64_t size() const { return slots_.size(); }
  template <class A>
  A* block(int64_t k) const {
    return reinterpret_cast<A*>(static_cast<char*>(memory_.get()) + k * bytes_);
  }

 private:
  int64_t low_, high_;
  bool sorted_;
  size_t bytes_;
  std::vector<Slot> slots_;
  at::DataPtr memory_;
};

GEONORM_INLINE void scan(Part& part, const int64_t* index) {
  int64_t low = index[part.begin], high = low, falls = 0;
  for (int64_t row = part.begin + 1; row < part.end; ++row) {
    low = std::min(low, index[row]);
    high = std::max(high, index[row]);
    falls += index[row] < index[row - 1];
  }
  part.low = low;
  part.high = high;
  part.sorted = falls == 0;
}

// Joins neighbouring parts until their slots weigh little beside the rows.
inline void join(Partition& partition, int64_t rows) {
  auto& parts = partition.parts;
  const auto slots = [&] {
    int64_t sum = 0;
    for (const Part& part : parts) sum += part.high - part.low + 1;
    return sum;
  };
  while (parts.size() > 1 && slots() > rows / 16) {
    for (size_t t = 0; t + 1 < parts.size(); ++t) {
      parts[t].end = parts[t + 1].end;
      parts[t].low = std::min(parts[t].low, parts[t + 1].low);
      parts[t].high = std::max(parts[t].high, parts[t + 1].high);
      parts.erase(parts.begin() + t + 1);
    }
  }
}

// Moves the cuts between sorted parts to where an instance begins, if they need not move far.
inline void align(Partition& partition, const int64_t* index, int64_t rows) {
  auto& parts = partition.parts;
  const int64_t far = rows / (16 * int64_t(parts.size()));
  std::vector<int64_t> cuts;
  for (size_t t = 1; t < parts.size(); ++t) {
    const int64_t cut = parts[t].begin;
    const int64_t moved = std::lower_bound(index, index + rows, index[cut]) - index;
    if (cut - moved > far) return;
    cuts.push_back(moved);
  }
  for (size_t t = 1; t < parts.size(); ++t) {
    parts[t - 1].end = parts[t].begin = cuts[t - 1];
    parts[t - 1].high = index[parts[t - 1].end - 1];
    parts[t].low = index[parts[t].begin];
  }
  partition.whole = true;
}

// Cuts the rows into parts, at most one per thread; raises IndexError for an index out of range.
inline Partition partition(const int64_t* index, int64_t rows, int64_t instances, int64_t channels) {
  constexpr int64_t kWorthAThread = 1 << 15;  // elements
  const int64_t most = std::max<int64_t>(1, rows * channels / kWorthAThread);
  const int64_t count = std::min<int64_t>({rows, at::get_num_threads(), most});
  Partition result;
  for (int64_t t = 0; t < count; ++t) {
    result.parts.push_back({rows * t / count, rows * (t + 1) / count});
  }
  constexpr int64_t kScan = 1 << 17;  // rows that are scanned sooner than a thread wakes up
  at::parallel_for(0, count, kScan * count / rows + 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) vectorized([&](auto) GEONORM_LAMBDA { scan(result.parts[t], index); });
  });
  int64_t low = 0, high = -1;
  for (const Part& part : result.parts) {
    result.sorted = result.sorted && part.sorted && high <= part.low;
    low = std::min(low, part.low);
    high = std::max(high, part.high);
  }
  TORCH_CHECK_INDEX(low >= 0 && high < instances, "index must lie in [0, ", instances,
                    "), the number of instances; got values from ", low, " to ", high);
  if (!result.sorted) {
    join(result, rows);
  } else {
    align(result, index, rows);
  }
  return result;
}

template <class Sums>
GEONORM_SELDOM void change(Sums& sums, int64_t k, int64_t instance) {
  if (sums.slots[k].instance >= 0) sums.emit(k);
  sums.slots[k] = Slot{instance};
  sums.enter(k);
}

template <int B, class Sums>
GEONORM_INLINE void take(Sums& sums, int64_t instance, int64_t row, int64_t count) {
  const int64_t k = sums.slots.find(instance);
  if (sums.slots[k].instance != instance) change(sums, k, instance);
  sums.template add<B>(k, instance, row, count);
}

template <int B, class Sums>
GEONORM_INLINE void stream_by(Sums& sums, const Part& part, const int64_t* index) {
  for (int64_t row = part.begin; row < part.end; row += kTile) {
    const int64_t* owner = index + row;
    const int64_t count = std::min(kTile, part.end - row);
    int64_t differ = 0;
    for (int64_t k = 1; k < count; ++k) differ |= owner[k] ^ owner[0];
    const int64_t run = differ == 0 ? count : 1;
    for (int64_t k = 0; k < count; k += run) take<B>(sums, owner[k], row + k, run);
    if (run == count) {
      sums.rest(sums.slots.find(owner[0]));
    } else if (sums.slots.size() < count) {
      for (int64_t k = 0; k < sums.slots.size(); ++k) sums.rest(k);
    } else {
      for (int64_t k = 0; k < count; ++k) sums.rest(sums.slots.find(owner[k]));
    }
  }
}

template <class Sums>
void stream(Sums& sums, const Part& part, const int64_t* index) {
  vectorized([&](auto bytes) GEONORM_LAMBDA { stream_by<bytes>(sums, part, index); });
}

// Merges the parts' slots of an instance into the first part that has one, and writes it out.
template <class Sums>
void settle(std::vector<Sums>& sums, int64_t instance, size_t from) {
  Sums& target = sums[from];
  const int64_t k = target.slots.find(instance);
  for (size_t t = from + 1; t < sums.size(); ++t) {
    if (!sums[t].slots.holds(instance)) continue;
    const int64_t j = sums[t].slots.find(instance);
    target.merge(k, sums[t], j);
    sums[t].slots[j].instance = -1;
  }
  target.emit(k);
  target.slots[k].instance = -1;
}

// Streams every part through the sums that make(part) returns; each instance with rows is emitted.
template <class Sums, class Make>
void sum_rows(const Partition& partition, const int64_t* index, int64_t instances,
              int64_t channels, Make make) {
  const int64_t count = partition.parts.size();
  std::vector<Sums> sums;
  for (const Part& part : partition.parts) sums.push_back(make(part));
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      stream(sums[t], partition.parts[t], index);
      if (partition.sorted && sums[t].slots[2].instance >= 0) sums[t].emit(2);
    }
  });
  if (partition.sorted) {
    for (int64_t t = 0; t < count; ++t) {
      for (const int64_t i : {partition.parts[t].low, partition.parts[t].high}) {
        if (sums[t].slots.holds(i)) settle(sums, i, t);
      }
    }
    return;
  }
  constexpr int64_t kSettle = 1 << 12;  // sums
  at::parallel_for(0, instances, kSettle / channels + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t t = 0; t < count; ++t) {
        if (sums[t].slots.holds(i)) {
          settle(sums, i, t);
          break;
        }
      }
    }
  });
}

// Where parts are whole: sums up one instance after the other and calls done(instance, begin, end)
// while its rows are in the cache.
template <class Sums, class Make, class Done>
void sum_instances(const Partition& partition, const int64_t* index, Make make, Done done) {
  at::parallel_for(0, partition.parts.size(), 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      Part part = partition.parts[t];
      Sums sums = make(part);
      for (const int64_t stop = part.end; part.begin < stop; part.begin = part.end) {
        const int64_t instance = index[part.begin];
        part.end = std::upper_bound(index + part.begin, index + stop, instance) - index;
        stream(sums, part, index);
        const int64_t k = sums.slots.find(instance);
        sums.emit(k);
        sums.slots[k].instance = -1;
        done(instance, part.begin, part.end);
      }
    }
  });
}

}  // namespace geonorm
