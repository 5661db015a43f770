"""Kernel maps, features and kernels, and their convolution by dense matrices in float64."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from geonorm.kernel_maps import KernelMap, kernel_map
from geonorm.ops.sparse_conv import sparse_conv


class Case(NamedTuple):
    """One convolution and the gradient of its output."""

    features: Tensor
    kernel: Tensor
    grad: Tensor
    joined: KernelMap

    def to(self, dtype: torch.dtype) -> "Case":
        return self._replace(features=self.features.to(dtype), kernel=self.kernel.to(dtype),
                             grad=self.grad.to(dtype))


def case(channels: tuple[int, int] = (5, 7), rows: tuple[int, int] = (40, 30),
         pairs: tuple[int, ...] = (30, 0, 11, 24), seed: int = 0) -> Case:
    """Return random features (N, C), kernel and upstream gradient, rounded to bfloat16.

    Args:
        channels: of input and output.
        rows: of input and output.
        pairs: how many of each offset; no row occurs twice in one.
        seed: of all of it.
    """
    generator = torch.Generator().manual_seed(seed)
    lists = [torch.stack([torch.randperm(count, generator=generator)[:number] for count in rows])
             for number in pairs]

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).bfloat16().double()

    return Case(random(rows[0], channels[0]), random(len(pairs), *channels),
                random(rows[1], channels[1]), kernel_map(lists, *rows))


def convolved(features: Tensor, kernel: Tensor, joined: KernelMap) -> Tensor:
    return sparse_conv(features, kernel, joined.pairs, joined.back, joined.offsets, joined.num_out)


def results(one: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, and the gradients of features and kernel, by autograd."""
    leaves = [one.features.detach().requires_grad_(), one.kernel.detach().requires_grad_()]
    out = convolved(*leaves, one.joined)
    return out.detach(), *torch.autograd.grad(out, leaves, one.grad)


def by_matrices(one: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same in float64, each offset a dense matrix of zeros and ones."""
    features, kernel, grad, joined = one.to(torch.float64)
    out = grad.new_zeros(joined.num_out, kernel.shape[2])
    grad_features, grad_kernel = torch.zeros_like(features), torch.zeros_like(kernel)
    for k, (begin, end) in enumerate(pairwise(joined.offsets.tolist())):
        source, target = joined.pairs[:, begin:end].long()
        ones = grad.new_zeros(joined.num_out, joined.num_in)
        ones[target, source] = 1
        out += ones @ features @ kernel[k]
        grad_features += ones.T @ grad @ kernel[k].T
        grad_kernel[k] = (ones @ features).T @ grad
    return out, grad_features, grad_kernel


def by_torch(one: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same by torch's own product and sum in the dtype of the features."""
    features, kernel = one.features.detach(), one.kernel.detach()
    grad, joined = one[2:]
    out = grad.new_zeros(joined.num_out, kernel.shape[2])
    grad_features, grad_kernel = torch.zeros_like(features), torch.zeros_like(kernel)
    for k, (begin, end) in enumerate(pairwise(joined.offsets.tolist())):
        source, target = joined.pairs[:, begin:end].long()
        out.index_add_(0, target, features[source] @ kernel[k])
        grad_features.index_add_(0, source, grad[target] @ kernel[k].T)
        grad_kernel[k] = features[source].T @ grad[target]
    return out, grad_features, grad_kernel


def largest_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest value."""
    difference = (found.double() - expected.double()).abs().max().item()
    return difference / max(expected.abs().max().item(), 1e-30)

