// What MinkowskiEngine 0.5.4 takes for granted and CUDA 12 and 13 no longer give; nvcc reads it
// before each of its files (--pre-include), so that the files themselves stay as they are.
#pragma once

#include <memory>

// The source uses at::Tensor in files that never include it.
#include <ATen/core/Tensor.h>

#include <cuda_runtime.h>

// Until CCCL 2 each of these came along with some other header of thrust.
#include <thrust/copy.h>
#include <thrust/count.h>
#include <thrust/device_vector.h>
#include <thrust/execution_policy.h>
#include <thrust/fill.h>
#include <thrust/for_each.h>
#include <thrust/host_vector.h>
#include <thrust/iterator/constant_iterator.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/discard_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <thrust/iterator/zip_iterator.h>
#include <thrust/reduce.h>
#include <thrust/remove.h>
#include <thrust/scan.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/transform.h>
#include <thrust/tuple.h>
#include <thrust/unique.h>

#if CUDART_VERSION >= 13000

// CCCL 3 (CUDA 13) removed the bases of function objects; they only ever named types.
namespace thrust {
template <typename Argument, typename Result>
struct unary_function {
  using argument_type = Argument;
  using result_type = Result;
};

template <typename First, typename Second, typename Result>
struct binary_function {
  using first_argument_type = First;
  using second_argument_type = Second;
  using result_type = Result;
};
}  // namespace thrust

// CUDA 13 takes a cudaMemLocation and flags where a device's number stood.
inline cudaError_t cudaMemPrefetchAsync(const void* pointer, size_t bytes, int device,
                                        cudaStream_t stream) {
  cudaMemLocation place = {};
  place.type = cudaMemLocationTypeDevice;
  place.id = device;
  return cudaMemPrefetchAsync(pointer, bytes, place, 0, stream);
}

#endif
