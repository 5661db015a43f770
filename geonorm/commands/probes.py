"""Try each kernel and engine on something tiny; doctor does so in a process for each.

  python -m geonorm.commands.probes NAME
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

import geonorm
from geonorm.training.noise import silence

INDEX = torch.tensor([0, 1, 0, 1, 1, 0, 2])
TOLERANCE = 1e-5


def _expect(actual: Tensor, expected: Tensor) -> None:
    """Refuse a result that is not the expected one.

    Raises:
        ValueError: it differs.
    """
    actual, expected = actual.detach().cpu().double(), expected.double()
    error = ((actual - expected).norm() / expected.norm()).item()
    if not error < TOLERANCE:
        raise ValueError(f"the result is wrong, by {error:.1e} of its norm")


def _instance_norm(rows: Tensor, index: Tensor) -> Tensor:
    """Return rows without the mean and scale of their instance, by the formula in float64."""
    rows = rows.detach().cpu().double()
    out = torch.empty_like(rows)
    for instance in index.unique():
        mine = rows[index == instance]
        out[index == instance] = (mine - mine.mean(0)) / (mine.var(0, correction=0) + 1e-5).sqrt()
    return out


def _kernels(backend: str, device: str = "cpu") -> str:
    """Run a norm of rows and a norm of clips on a backend."""
    geonorm.force_backend(backend)
    rows, clips = torch.randn(7, 5), torch.randn(2, 3, 4, 5, 6)
    normed = geonorm.functional.instance_norm(rows.to(device), INDEX.to(device), 3)
    _expect(normed, _instance_norm(rows, INDEX))
    expected = torch.nn.functional.instance_norm(clips.double())
    _expect(geonorm.SpatioTemporalInstanceNorm(3).to(device)(clips.to(device)), expected)
    return f"a norm of rows and one of clips are right on {device}"


def _minkowski() -> str:
    import MinkowskiEngine as ME

    torch.manual_seed(0)
    places = torch.cat([INDEX[:, None], torch.arange(7)[:, None].expand(-1, 3)], 1).int()
    devices = ["cpu"]
    if ME.is_cuda_available() and torch.cuda.is_available():
        devices.append("cuda")
    for device in devices:
        x = ME.SparseTensor(torch.randn(7, 2).to(device), places.to(device))
        conv = ME.MinkowskiConvolution(2, 3, kernel_size=3, dimension=3).to(device)
        y = conv(x)
        _expect(
            geonorm.SparseInstanceNorm(3).to(device)(y).F, _instance_norm(y.F, y.C[:, 0].cpu())
        )
        y.F.square().sum().backward()
        if not conv.kernel.grad.isfinite().all() or not conv.kernel.grad.any():
            raise ValueError(f"the gradient of a convolution on {device} is zero or not finite")
    return f"a convolution, its gradient and a norm are right on {' and '.join(devices)}"


def _spconv() -> str:
    import spconv.pytorch as spconv

    places = torch.cat([INDEX[:, None], torch.arange(7)[:, None].expand(-1, 3)], 1).int()
    x = spconv.SparseConvTensor(torch.randn(7, 2), places, [8, 8, 8], 3)
    with torch.no_grad():
        y = spconv.SubMConv3d(2, 3, 3)(x)
    _expect(geonorm.InstanceNorm(3)(y).features, _instance_norm(y.features, INDEX))
    return "a convolution and a norm are right on cpu"


def _geometric() -> str:
    from torch_geometric.data import Batch, Data

    graphs = [Data(x=torch.randn(count, 3)) for count in (3, 4)]
    y = geonorm.InstanceNorm(3)(Batch.from_data_list(graphs))
    index = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    _expect(y.x, _instance_norm(torch.cat([graph.x for graph in graphs]), index))
    return "a norm is right on cpu"


def _open3d() -> str:
    import numpy as np
    import open3d as o3d

    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(np.eye(3)))
    if len(cloud.points) != 3:
        raise ValueError("a cloud of three points does not hold three")
    return "imports"


def _av() -> str:
    import av

    codec = av.codec.Codec("h264", "r")
    return f"decodes {codec.name}, with FFmpeg's libavcodec {av.library_versions['libavcodec'][0]}"


PROBES: dict[str, Callable[[], str]] = {
    "reference": lambda: _kernels("reference"),
    "cpp": lambda: _kernels("cpp"),
    # On the CPU where TRITON_INTERPRET=1 says so.
    "triton": lambda: _kernels("triton", "cuda" if torch.cuda.is_available() else "cpu"),
    "MinkowskiEngine": _minkowski,
    "spconv": _spconv,
    "torch_geometric": _geometric,
    "open3d": _open3d,
    "av": _av,
}

if __name__ == "__main__":
    silence()
    print(PROBES[sys.argv[1]]())
