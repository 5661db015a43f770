"""Test the installed MinkowskiEngine: every kind of step, on each device present."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from geonorm.minkowski.running import InstallError

if TYPE_CHECKING:
    from torch import Tensor

# float32 sums of a few hundred terms in another order.
TOLERANCE = 1e-4


def self_test() -> None:
    """Run quantization, convolution, transposed convolution, local and global pooling.

    Forward and backward, on the CPU and, where torch sees one and MinkowskiEngine is built for it,
    on the GPU, whose results must be those of the CPU.

    Raises:
        InstallError: a result is wrong.
    """
    warnings.filterwarnings("ignore", message="The MinkowskiEngine was compiled with CPU_ONLY")
    import MinkowskiEngine as ME
    import torch

    devices = ["cpu"]
    if ME.is_cuda_available() and torch.cuda.is_available():
        devices += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    results = {device: _run(device) for device in devices}
    for device, tensors in results.items():
        for name, tensor in tensors.items():
            right = results["cpu"][name]
            if tensor.shape != right.shape or not tensor.isfinite().all() or not tensor.any():
                raise InstallError(f"self-test on {device}: {name} is missing, zero or not finite")
            error = ((tensor - right).norm() / right.norm()).item()
            if not error <= TOLERANCE:
                raise InstallError(f"self-test on {device}: {name} differs from the CPU by {error}")
    print(f"MinkowskiEngine {ME.__version__}: self-test passed on {', '.join(devices)}")
    if ME.is_cuda_available() and len(devices) == 1:
        print("It is built for CUDA; torch sees no GPU here, so its CUDA side has not been run.")
    elif torch.cuda.is_available() and len(devices) == 1:
        print("It is built for the CPU alone, though torch sees a GPU: --cuda builds for both.")


def _run(device: str) -> dict[str, Tensor]:
    """Return the outputs and gradients on a device, as CPU tensors of equal order."""
    import MinkowskiEngine as ME
    import torch
    from torch import nn

    torch.manual_seed(0)
    points = torch.randint(0, 12, (500, 3), dtype=torch.int32)
    kept, index = ME.utils.sparse_quantize(points.numpy(), return_index=True)
    if len(index) != len(kept) or len(kept) != len(points.unique(dim=0)):
        raise InstallError(f"self-test: quantization kept {len(kept)} of {len(points)} points")
    coordinates = ME.utils.batched_coordinates([kept, kept]).to(device)
    features = torch.randn(len(coordinates), 4).to(device).requires_grad_()
    down = ME.MinkowskiConvolution(4, 8, kernel_size=3, stride=2, dimension=3)
    pool = ME.MinkowskiMaxPooling(kernel_size=2, stride=2, dimension=3)
    mean = ME.MinkowskiAvgPooling(kernel_size=3, stride=1, dimension=3)
    up = ME.MinkowskiConvolutionTranspose(8, 8, kernel_size=2, stride=2, dimension=3)
    layers = nn.Sequential(down, mean, pool, up).to(device)
    pooled = ME.MinkowskiGlobalAvgPooling()(layers(ME.SparseTensor(features, coordinates))).F
    if pooled.shape != (2, 8):
        raise InstallError(f"self-test on {device}: expected (2, 8) pooled, got {pooled.shape}")
    inputs = [features, down.kernel, up.kernel]
    gradients = torch.autograd.grad(pooled.square().sum(), inputs)
    return {
        "the output": pooled.detach().cpu(),
        "the gradient of the features": gradients[0].cpu(),
        "the gradient of the convolution": gradients[1].cpu(),
        "the gradient of the transposed convolution": gradients[2].cpu(),
    }
