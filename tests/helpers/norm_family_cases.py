"""Every kind of input for the tests of the norms, and every norm as a loop."""

from functools import partial

import pytest
import torch
from torch import nn

import geonorm
from geonorm.inputs import read

CHANNELS = 6
SIZES = (7, 40, 12)  # rows of each instance
DENSE = {"5-D": (3, CHANNELS, 2, 4, 5), "4-D": (3, CHANNELS, 4, 5), "3-D": (3, CHANNELS, 9)}
DOMAINS = [1, 0, 1]
CHANNEL_WEIGHTS = [1.0, 0.0, 0.5, 2.0, 3.0, 3.0]


def coordinates():
    """Return unique coordinates (N, 4) with the rows of three instances interleaved."""
    places = [(instance, n % 4, n // 4 % 4, n // 16)
              for instance, size in enumerate(SIZES) for n in range(size)]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    return torch.tensor(places)[order].int()


def rows(seed=1, mean=3.0, count=59):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, CHANNELS, generator=generator) * 2 + mean


def sparse(engine):
    """Return a sparse tensor of one engine with random features."""
    places, features = coordinates(), rows()
    if engine in ("SparseTensor", "TensorField"):
        minkowski = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
        place = places if engine == "SparseTensor" else places.float()
        return getattr(minkowski, engine)(features, place)
    if engine == "spconv":
        spconv = pytest.importorskip("spconv.pytorch", reason="pip install 'geonorm[test]'")
        return spconv.SparseConvTensor(features, places, [4, 4, 4], len(SIZES))
    if engine == "PyG":
        data = pytest.importorskip("torch_geometric.data", reason="pip install 'geonorm[test]'")
        return data.Batch.from_data_list([data.Data(x=part) for part in features.split(SIZES)])
    if engine == "offsets":
        return geonorm.Rows(features, offsets=torch.tensor([0, 7, 47, 59]))
    return geonorm.Rows(features, places[:, 0].long())


SPARSE = ("SparseTensor", "TensorField", "spconv", "PyG", "index", "offsets")
KINDS = (*SPARSE, *DENSE)


def example(kind):
    """Return an input of a kind, the features of it, and the instance of each of its rows."""
    if kind in DENSE:
        shape = DENSE[kind]
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 2 + 3
        return x, x, torch.arange(3).repeat_interleave(x[0, 0].numel())
    x = sparse(kind)
    return x, read(x).features, read(x).instance


def refill(x, features):
    """Return what x is with other features."""
    return read(x).rebuild(features)


def values(x):
    """Return the features of what a norm returned."""
    return read(x).features


def to_rows(features):
    """Return dense features as rows, instance by instance."""
    return features.movedim(1, -1).reshape(-1, features.shape[1])


def per_instance(function, features, index):
    """Apply a function to the rows of each instance."""
    out = torch.zeros_like(features)
    for instance in index.unique().tolist():
        mine = (index == instance).nonzero().flatten()
        out = out.index_put((mine,), function(features[mine], instance))
    return out


def standardized(x, dims=0, eps=1e-5):
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (var + eps).sqrt()


def instance_law(norm, x, index):
    return per_instance(lambda part, _: standardized(part), x, index) * norm.weight + norm.bias


def batch_law(norm, x, index):
    return standardized(x) * norm.weight + norm.bias


def ibn_law(norm, x, index):
    k = norm.instance.num_features
    return torch.cat([instance_law(norm.instance, x[:, :k], index),
                      batch_law(norm.batch, x[:, k:], index)], 1)


def group_law(norm, x, index):
    def function(part, _):
        grouped = part.view(len(part), norm.num_groups, -1)
        return standardized(grouped, (0, 2)).flatten(1)

    return per_instance(function, x, index) * norm.weight + norm.bias


def layer_law(norm, x, index):
    return standardized(x, 1) * norm.weight + norm.bias


def domain_instance_law(norm, x, index):
    domains = torch.tensor(DOMAINS)[index]
    plain = per_instance(lambda part, _: standardized(part), x, index)
    return plain * norm.weight[domains] + norm.bias[domains]


def domain_batch_law(norm, x, index):
    domains = torch.tensor(DOMAINS)[index]
    return per_instance(lambda part, d: batch_law(norm.norms[d], part, None), x, domains)


def divisive_law(norm, x, index):
    def function(part, _):
        z = part - part.mean(0)
        return z / (norm.eps + z.abs().pow(3).mean(0)).pow(1 / 3)

    return per_instance(function, x, index) * norm.weight + norm.bias


def divisive_group_law(norm, x, index):
    shares = torch.tensor(CHANNEL_WEIGHTS, dtype=x.dtype).view(3, 2)
    shares = shares / shares.sum(1, keepdim=True)

    def function(part, _):
        grouped = part.view(len(part), 3, 2)
        z = grouped - (grouped * shares).sum(2, keepdim=True).mean(0)
        strength = (z.square() * shares).sum(2, keepdim=True).mean(0)
        return (z / (norm.eps + (1 + 0.5**2) * strength).sqrt()).flatten(1)

    return per_instance(function, x, index) * norm.weight + norm.bias


def retinex_law(norm, x, index):
    return instance_law(norm, (x + norm.floor).log(), index)


def retinex(floor, **options):
    return geonorm.RetinexNorm(CHANNELS, surround="mean", floor=floor, **options)


def style():
    return geonorm.Rows(rows(5, 1.0, 30), torch.arange(3).repeat(10))


class Styled(nn.Module):
    """Adaptive instance norm with a fixed style, to be called as the other norms are."""

    def __init__(self, **options):
        super().__init__()
        self.norm = geonorm.AdaptiveInstanceNorm(CHANNELS, **options)

    def forward(self, x, **given):
        return self.norm(x, style(), **given)


def adaptive_law(norm, x, index):
    features, styles = style().features.double(), style().batch_index

    def function(part, instance):
        var, mean = torch.var_mean(features[styles == instance], 0, correction=0)
        return standardized(part) * (var + 1e-5).sqrt() + mean

    return per_instance(function, x, index)


def with_domain(norm):
    geonorm.set_domain(norm, DOMAINS)
    return norm


NORMS = {
    "InstanceNorm": (partial(geonorm.InstanceNorm, CHANNELS), instance_law),
    "AdaptiveInstanceNorm": (Styled, adaptive_law),
    "InstanceBatchNorm": (partial(geonorm.InstanceBatchNorm, CHANNELS, ratio=0.4), ibn_law),
    "BatchNorm": (partial(geonorm.BatchNorm, CHANNELS), batch_law),
    "SyncBatchNorm": (partial(geonorm.SyncBatchNorm, CHANNELS), batch_law),
    "DomainBatchNorm": (
        lambda **options: with_domain(
            geonorm.DomainBatchNorm(CHANNELS, num_domains=2, **options)),
        domain_batch_law),
    "DomainInstanceNorm": (
        lambda **options: with_domain(
            geonorm.DomainInstanceNorm(CHANNELS, num_domains=2, **options)),
        domain_instance_law),
    "GroupNorm": (partial(geonorm.GroupNorm, CHANNELS, num_groups=3), group_law),
    "LayerNorm": (partial(geonorm.LayerNorm, CHANNELS), layer_law),
    "DivisiveNorm": (
        partial(geonorm.DivisiveNorm, CHANNELS, kernel_size=None, exponent=3), divisive_law),
    "DivisiveNorm, groups": (
        partial(geonorm.DivisiveNorm, CHANNELS, kernel_size=None, num_groups=3,
                channel_weights=CHANNEL_WEIGHTS, semi_saturation=0.5), divisive_group_law),
    "RetinexNorm": (partial(retinex, floor=8.0), retinex_law),
}


def build(name, seed=2, **options):
    """Return a norm whose parameters are none of them their default."""
    norm = NORMS[name][0](**options)
    generator = torch.Generator().manual_seed(seed)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0, 0.5, generator=generator)
    return norm
