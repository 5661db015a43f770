// Sums over the rows of each instance, in any order of the rows, on every thread.
//
// The rows are cut into one part per thread. A part streams its rows once into slots, one per
// instance; what it adds up is the business of a Sums class (see segment_norm.cpp):
//
//   Sums(part)              with a member `slots`, made for that part
//   enter(k, row)           slot k begins an instance
//   add(k, instance, row, count)  takes `count` rows of one instance in
//   merge(k, other, j)      takes slot j of another part's sums in
//   emit(k)                 writes the results of slot k out
//
// Where the index is sorted, three slots per part are enough: the part's first and last instance may
// go on in its neighbours and wait in slots 0 and 1 until all parts are done; any other is complete
// when its run ends and passes through slot 2. Otherwise a part has a slot for every instance in the
// range it meets. Either way the order of additions depends on the number of threads alone.
#pragma once

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "simd.h"

namespace geonorm {

constexpr int64_t kTile = 16;  // rows that are tried as one run

struct Part {
  int64_t begin, end;  // rows
  int64_t low = std::numeric_limits<int64_t>::max(), high = -1;  // instances
  bool sorted = true;
};

struct Partition {
  std::vector<Part> parts;
  bool sorted = true;
};

struct Slot {
  int64_t instance = -1, first = 0;  // the instance and its first row
  int64_t done = 0, pending = 0;     // rows in the totals, and in the running sums
  double mass = 0, pending_mass = 0;
};

// Slots with a block of raw memory each.
class Slots {
 public:
  Slots(const Part& part, bool sorted, size_t bytes)
      : low_(part.low), high_(part.high), sorted_(sorted), bytes_((bytes + 63) / 64 * 64),
        slots_(sorted ? 3 : part.high - part.low + 1),
        memory_(new char[slots_.size() * bytes_ + 64]) {}

  int64_t find(int64_t instance) const {
    if (!sorted_) return instance - low_;
    return instance == low_ ? 0 : instance == high_ ? 1 : 2;
  }
  bool holds(int64_t instance) const {
    return low_ <= instance && instance <= high_ && slots_[find(instance)].instance == instance;
  }
  Slot& operator[](int64_t k) { return slots_[k]; }
  template <class A>
  A* block(int64_t k) const {
    const auto start = (reinterpret_cast<uintptr_t>(memory_.get()) + 63) / 64 * 64;
    return reinterpret_cast<A*>(start + k * bytes_);
  }
  int64_t low() const { return low_; }
  int64_t high() const { return high_; }

 private:
  int64_t low_, high_;
  bool sorted_;
  size_t bytes_;
  std::vector<Slot> slots_;
  std::unique_ptr<char[]> memory_;
};

GEONORM_CLONES inline void scan(Part& part, const int64_t* index) {
  int64_t falls = 0;
  for (int64_t row = part.begin; row < part.end; ++row) {
    part.low = std::min(part.low, index[row]);
    part.high = std::max(part.high, index[row]);
    falls += row > part.begin && index[row] < index[row - 1];
  }
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

// Cuts the rows into parts, at most one per thread; raises IndexError for an index out of range.
inline Partition partition(const int64_t* index, int64_t rows, int64_t instances, int64_t channels) {
  constexpr int64_t kWorthAThread = 1 << 15;  // elements
  const int64_t most = std::max<int64_t>(1, rows * channels / kWorthAThread);
  const int64_t count = std::min<int64_t>({rows, at::get_num_threads(), most});
  Partition result;
  for (int64_t t = 0; t < count; ++t) {
    result.parts.push_back({rows * t / count, rows * (t + 1) / count});
  }
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) scan(result.parts[t], index);
  });
  int64_t low = 0, high = -1;
  for (const Part& part : result.parts) {
    result.sorted = result.sorted && part.sorted && high <= part.low;
    low = std::min(low, part.low);
    high = std::max(high, part.high);
  }
  TORCH_CHECK_INDEX(low >= 0 && high < instances, "index must lie in [0, ", instances,
                    "), the number of instances; got values from ", low, " to ", high);
  if (!result.sorted) join(result, rows);
  return result;
}

GEONORM_INLINE bool uniform(const int64_t* index, int64_t count) {
  int64_t differ = 0;
  for (int64_t k = 0; k < count; ++k) differ |= index[k] ^ index[0];
  return differ == 0;
}

template <class Sums>
GEONORM_INLINE void take(Sums& sums, int64_t instance, int64_t row, int64_t count) {
  const int64_t k = sums.slots.find(instance);
  Slot& slot = sums.slots[k];
  if (slot.instance != instance) {
    if (slot.instance >= 0) sums.emit(k);
    slot = Slot{instance, row};
    sums.enter(k, row);
  }
  sums.add(k, instance, row, count);
}

template <class Sums>
GEONORM_CLONES void stream(Sums& sums, const Part& part, const int64_t* index) {
  for (int64_t row = part.begin; row < part.end; row += kTile) {
    const int64_t count = std::min(kTile, part.end - row);
    if (uniform(index + row, count)) {
      take(sums, index[row], row, count);
    } else {
      for (int64_t k = 0; k < count; ++k) take(sums, index[row + k], row + k, 1);
    }
  }
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
void sum_rows(const Partition& partition, const int64_t* index, int64_t instances, Make make) {
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
  at::parallel_for(0, instances, 1, [&](int64_t begin, int64_t end) {
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

}  // namespace geonorm
