"""Compile every Triton kernel for sm_90, as the operators launch it; this needs no GPU.

A driver that only names its target stands in for CUDA's, and every launch stops at the machine
code. So the signatures, constants and specializations are those of real calls, on tensors whose
values are never read. Prints for each compiled kernel its name and what the assembler reports.
"""

import itertools
import re
import subprocess
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from geonorm.ops.triton import axis_norm as axis
from geonorm.ops.triton import segment_norm as segment

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ACTIVATIONS = ("none", "relu", "leaky_relu")
TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
compiled = {}


class Target:
    """A driver that answers the questions of Triton's compiler."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


launched = JITFunction.run


def compile_only(self, *args, grid, warmup, **options):
    kernel = launched(self, *args, grid=grid, warmup=True, **options)
    compiled.setdefault(kernel.hash, (self.fn.__name__, kernel))


def segments(dtype, activation, channels, groups, weighted, affine, instances, count=300,
             added=False):
    wide = torch.promote_types(dtype, torch.float32)
    rows, index = torch.zeros(count, channels, dtype=dtype), torch.zeros(count, dtype=torch.long)
    weights = torch.ones(count, dtype=wide) if weighted else None
    weight = bias = None if affine is None else torch.ones((instances, channels)[affine:],
                                                           dtype=wide)
    stats = (torch.zeros(instances, groups, dtype=wide) for _ in range(3))
    segment.segment_norm(rows, index, instances, weights, weight, bias, groups, 1e-5, activation,
                         0.1, rows if added else None)
    segment.segment_norm_backward(rows, rows, index, *stats, weights, weight, bias, groups,
                                  activation, 0.1)


def clips(dtype, activation, shape, axes, memory_format, affine, added=False):
    wide = torch.promote_types(dtype, torch.float32)
    x = torch.zeros(shape, dtype=dtype).to(memory_format=memory_format)
    weight = bias = None if affine is None else torch.ones(shape[affine:2], dtype=wide)
    stats = axis.axis_norm(x, axes, weight, bias, 1e-5, activation, 0.1, x if added else None)[1:]
    axis.axis_norm_backward(x, x, *stats, axes, weight, bias, activation, 0.1)


def main():
    triton.runtime.driver.set_active(Target())
    JITFunction.run = compile_only
    for dtype, activation, added in itertools.product(DTYPES, ACTIVATIONS, (False, True)):
        segments(dtype, activation, 32, 32, False, 1, 4, added=added)
        clips(dtype, activation, (2, 64, 4, 8, 8), [2, 3, 4], torch.contiguous_format, 1, added)
        clips(dtype, activation, (2, 64, 16, 16, 16), [2, 3, 4], torch.channels_last_3d, 1, added)
    for dtype in DTYPES:
        segments(dtype, "none", 96, 96, True, 0, 100)
        segments(dtype, "relu", 6, 2, True, None, 3)
        segments(dtype, "none", 1, 1, False, None, 1)
        clips(dtype, "none", (3, 5, 4, 6, 7), [2, 4], torch.contiguous_format, 0)
        clips(dtype, "none", (1, 3, 2, 200, 200), [3, 4], torch.contiguous_format, None)
    for name, kernel in compiled.values():
        path = Path(f"{name}.cubin")
        path.write_bytes(kernel.asm["cubin"])
        said = subprocess.run([TOOL, "--dump-resource-usage", path], capture_output=True, text=True,
                              check=True).stdout
        print(name, *re.findall(r"(?:REG|STACK|SHARED|LOCAL):\d+", said))


if __name__ == "__main__":
    main()
