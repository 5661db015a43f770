"""The named edits of MinkowskiEngine's source for current Python, numpy, torch and CUDA."""

from typing import NamedTuple


class Edit(NamedTuple):
    """One change to the source: `old` must stand in `file` exactly once.

    `since` is the version from which on it is needed; earlier ones take it as well.
    """

    file: str
    old: str
    new: str
    why: str
    since: str


_MOVED_NAME = "Sequence left collections for collections.abc"
_MOVED_NAMES = (
    *(
        Edit(
            f"MinkowskiEngine/{file}.py",
            "from collections import Sequence",
            "from collections.abc import Sequence",
            _MOVED_NAME,
            "Python 3.10",
        )
        for file in (
            "MinkowskiCommon",
            "MinkowskiCoordinateManager",
            "MinkowskiTensorField",
            "utils/quantization",
        )
    ),
    Edit(
        "MinkowskiEngine/MinkowskiKernelGenerator.py",
        "from collections import Sequence, namedtuple",
        "from collections import namedtuple\nfrom collections.abc import Sequence",
        _MOVED_NAME,
        "Python 3.10",
    ),
)

_INSTANCE = (
    "an autograd function is called through its class; making an instance of it warns, and is to "
    "become an error"
)
# Where such an instance is made: what stands before and after the brackets.
_INSTANTIATED = {
    "MinkowskiBroadcast": (("self.broadcast = MinkowskiBroadcastFunction", "\n"),),
    "MinkowskiConvolution": (
        ("            MinkowskiConvolutionTransposeFunction", "\n            if is_transpose"),
        ("else MinkowskiConvolutionFunction", "\n"),
    ),
    "MinkowskiInterpolation": (("self.interp = MinkowskiInterpolationFunction", "\n"),),
    "MinkowskiNormalization": (("self.inst_norm = MinkowskiInstanceNormFunction", "\n"),),
    "MinkowskiPooling": (
        ("self.pooling = MinkowskiLocalPoolingFunction", "\n"),
        ("self.pooling = MinkowskiLocalPoolingTransposeFunction", "\n"),
        ("self.pooling = MinkowskiGlobalPoolingFunction", "\n"),
    ),
    "MinkowskiPruning": (("self.pruning = MinkowskiPruningFunction", "\n"),),
    "MinkowskiSparseTensor": (
        ("spmm = MinkowskiSPMMFunction", "\n"),
        ("spmm_avg = MinkowskiSPMMAverageFunction", "\n"),
        ("features = MinkowskiSPMMFunction", ".apply(\n"),
        ("return MinkowskiInterpolationFunction", ".apply(\n"),
    ),
    "MinkowskiTensorField": (
        ("features = MinkowskiSPMMFunction", ".apply(\n                inverse_mapping"),
        ("features = MinkowskiSPMMAverageFunction", ".apply(\n"),
        ("features = MinkowskiDirectMaxPoolingFunction", ".apply(\n"),
        ("features = MinkowskiSPMMFunction", ".apply(\n            tensor_map"),
    ),
    "MinkowskiUnion": (("self.union = MinkowskiUnionFunction", "\n"),),
}
_INSTANCES = tuple(
    Edit(
        f"MinkowskiEngine/{file}.py",
        f"{before}(){after}",
        f"{before}{after}",
        _INSTANCE,
        "torch 1.5",
    )
    for file, places in _INSTANTIATED.items()
    for before, after in places
)

_NUMPY_ON_TENSORS = "numpy's functions on tensors warn, and are to become errors"
_QUANTIZATION = (
    Edit(
        "MinkowskiEngine/utils/quantization.py",
        "discrete_coordinates = np.floor(coordinates / quantization_size)\n        else:\n",
        "discrete_coordinates = coordinates / quantization_size  # floor follows\n        else:\n",
        _NUMPY_ON_TENSORS,
        "numpy 2.0",
    ),
    Edit(
        "MinkowskiEngine/utils/quantization.py",
        "    discrete_coordinates = np.floor(discrete_coordinates)\n",
        "    floor = np.floor if isinstance(discrete_coordinates, np.ndarray) else torch.floor\n"
        "    discrete_coordinates = floor(discrete_coordinates)\n",
        _NUMPY_ON_TENSORS,
        "numpy 2.0",
    ),
)

_SPARSE = "torch.sparse.FloatTensor and DoubleTensor are deprecated; checks are off, as with them"
_SPARSE_MATRICES = tuple(
    Edit(
        "MinkowskiEngine/sparse_matrix_functions.py",
        f"torchSparseTensor(COO, vals, size){after}",
        f"torch.sparse_coo_tensor(COO, vals, size, check_invariants=False){after}",
        _SPARSE,
        "torch 1.13",
    )
    for after in (
        "\n        result = sp.matmul(mat)\n\n    return result\n",
        "\n        result = sp.matmul(mat)\n\n    return result, COO",
    )
)

# The module holds a copy of the gradient check of torch 1.7, made of torch's own parts at the time.
_GRADCHECK = (
    Edit(
        "MinkowskiEngine/utils/gradcheck.py",
        "from torch._six import container_abcs, istuple\n",
        "",
        "torch._six is gone, and nothing here used it",
        "torch 2.0",
    ),
    Edit(
        "MinkowskiEngine/utils/gradcheck.py",
        "from torch.autograd.gradcheck import _as_tuple, _differentiable_outputs, "
        "get_analytical_jacobian, get_numerical_jacobian, iter_tensors\n",
        "",
        "these parts of torch's gradient check are gone",
        "torch 1.9",
    ),
    Edit(
        "MinkowskiEngine/utils/gradcheck.py",
        "    tupled_inputs = _as_tuple(inputs)\n",
        "    return torch.autograd.gradcheck(\n"
        "        func.apply, inputs, eps=eps, atol=atol, rtol=rtol,\n"
        "        raise_exception=raise_exception, nondet_tol=nondet_tol,\n"
        "        check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes,\n"
        "        masked=check_sparse_nnz,\n"
        "    )\n"
        "    tupled_inputs = _as_tuple(inputs)\n",
        "torch's own check of today takes the place of the copy",
        "torch 1.9",
    ),
)

EDITS = (*_MOVED_NAMES, *_INSTANCES, *_QUANTIZATION, *_SPARSE_MATRICES, *_GRADCHECK)
# The CPU's sources, compiled in two units: torch's headers, which take most of a compiler's time,
# are then read twice instead of fourteen times.
UNITS = {
    "unit_1": (
        "coordinate_map_manager",
        "quantization",
        "math_functions_cpu",
        "pruning_cpu",
        "../pybind/minkowski",
    ),
    "unit_2": (
        "convolution_cpu",
        "convolution_transpose_cpu",
        "local_pooling_cpu",
        "local_pooling_transpose_cpu",
        "global_pooling_cpu",
        "broadcast_cpu",
        "interpolation_cpu",
        "direct_max_pool",
    ),
}
_SMALLER_HEADERS = tuple(
    Edit(
        file,
        f"#include <torch/extension.h>\n{more}",
        "#include <torch/types.h>\n#include <torch/csrc/utils/pybind.h>\n",
        "torch/extension.h and script.h read all of its C++ side: networks, optimizers, scripts",
        "any torch",
    )
    for file, more in (
        ("pybind/extern.hpp", ""),
        ("pybind/minkowski.cpp", ""),
        ("src/common.hpp", ""),
        ("src/coordinate_map_cpu.hpp", ""),
        ("src/coordinate_map_manager.hpp", ""),
        ("src/pruning_cpu.cpp", ""),
        ("src/quantization.cpp", ""),
        *((f"src/{name}.cpp", "") for name in UNITS["unit_2"] if name != "direct_max_pool"),
        ("src/direct_max_pool.cpp", "#include <torch/script.h>\n"),
    )
)
CPU_EDITS = (
    *_SMALLER_HEADERS,
    Edit(
        "setup.py",
        "SRC_FILES = SOURCE_SETS[target][1]\n",
        f"SRC_FILES = {[f'{name}.cpp' for name in UNITS]}\n",
        "two units compile in a third of the time of the files one by one",
        "any torch",
    ),
    Edit(
        "setup.py",
        "BIND_FILES = SOURCE_SETS[target][2]\n",
        "BIND_FILES = []\n",
        "the binding is in a unit",
        "any torch",
    ),
)
# What else CUDA needs is in HEADER, which leaves the source as it is.
CUDA_EDITS = (
    Edit(
        "src/3rdparty/concurrent_unordered_map.cuh",
        "return std::unique_ptr<Self, std::function<void(Self*)>>{",
        "return std::shared_ptr<Self>{",
        "its only user makes a shared_ptr of it, a conversion for which libstdc++ asks "
        "std::__to_address of a pointer with a std::function as its deleter: ambiguous with CCCL 3",
        "CUDA 13.0",
    ),
)
