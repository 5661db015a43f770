"""Which input row meets which output row at each offset of a convolution's kernel.

MinkowskiEngine works these lists out; they are read from its coordinate manager once per pair of
coordinate keys and kernel, and kept with the manager, as the layouts of `geonorm.inputs` are. The
engine itself is not imported.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class KernelMap(NamedTuple):
    """The pairs of rows that a kernel joins.

    Attributes:
        pairs: int32 (2, P), input rows above output rows, offset after offset of the kernel, those
            of an offset by ascending output row.
        back: the same pairs upside down, output rows above input rows, by ascending input row.
        offsets: int64 (K + 1,) on the CPU: where each offset's pairs begin, and P.
        num_in, num_out: input and output rows.
    """

    pairs: Tensor
    back: Tensor
    offsets: Tensor
    num_in: int
    num_out: int

    def transposed(self) -> "KernelMap":
        """Return the map of the transposed convolution, from output to input."""
        return KernelMap(self.back, self.pairs, self.offsets, self.num_out, self.num_in)


def kernel_map(joined: Sequence[Tensor], num_in: int, num_out: int) -> KernelMap:
    """Make a kernel map of each offset's pairs.

    Args:
        joined: for each offset of the kernel its pairs in any order, input rows above output rows,
            integers (2, P_k); an offset may have none.
        num_in, num_out: input and output rows.

    Raises:
        ValueError: no offset, pairs of another shape, or rows that are not there.

    >>> kernel_map([torch.tensor([[0, 1], [2, 0]]), torch.tensor([[1], [1]])], 2, 3).pairs
    tensor([[1, 0, 1],
            [0, 2, 1]], dtype=torch.int32)
    """
    if not joined:
        raise ValueError("a kernel must have one offset or more; got none")
    for k, pairs in enumerate(joined):
        if pairs.dim() != 2 or pairs.shape[0] != 2 or pairs.is_floating_point():
            raise ValueError(
                f"the pairs of offset {k} must be integers (2, P), input rows above output rows; "
                f"got {pairs.dtype} {tuple(pairs.shape)}"
            )
    counts = torch.tensor([0, *(pairs.shape[1] for pairs in joined)])
    pairs = torch.cat([pairs.to(torch.int32) for pairs in joined], 1)
    for name, rows, count in (("input", pairs[0], num_in), ("output", pairs[1], num_out)):
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < count:
            raise ValueError(
                f"{name} rows must be in [0, {count}); got {int(rows.min())} to {int(rows.max())}"
            )
    offset = torch.arange(len(joined), device=pairs.device).repeat_interleave(
        counts[1:].to(pairs.device))
    return KernelMap(_ordered(pairs, offset, num_out), _ordered(pairs.flip(0), offset, num_in),
                     counts.cumsum(0), num_in, num_out)


def _ordered(pairs: Tensor, offset: Tensor, targets: int) -> Tensor:
    """Return pairs by ascending target, offset after offset."""
    place = offset * targets + pairs[1]
    if targets * (int(offset[-1]) + 1 if len(offset) else 0) < 2**31:
        place = place.int()  # sorted in less than half the time
    order = torch.sort(place, stable=True).indices
    return torch.stack([rows.index_select(0, order) for rows in pairs])


def of_minkowski(manager: Any, in_key: Any, out_key: Any, generator: Any, transposed: bool
                 ) -> KernelMap:
    """Read a kernel map from MinkowskiEngine, or find the one read before.

    Args:
        manager: the engine's coordinate manager, with which the map is kept.
        in_key, out_key: its keys of the input's and the output's coordinates.
        generator: its kernel generator: size, stride, dilation and region.
        transposed: whether the convolution is.
    """
    maps = manager.__dict__.setdefault("geonorm_kernel_maps", {})
    places = tuple(str(key.get_key()) for key in (in_key, out_key))
    kernel = tuple(tuple(each) for each in (
        generator.kernel_size, generator.kernel_stride, generator.kernel_dilation
    )), str(generator.region_type)
    if (known := maps.get((*places, kernel, transposed))) is not None:
        return known  # type: ignore[no-any-return]
    if transposed and (known := maps.get((*places[::-1], kernel, False))) is not None:
        found: KernelMap = known.transposed()  # the engine does the same
    else:
        sizes = manager.size(in_key), manager.size(out_key)
        lists = {} if 0 in sizes else manager.kernel_map(  # without rows the engine would crash
            in_key, out_key, generator.kernel_stride, generator.kernel_size,
            generator.kernel_dilation, generator.region_type, generator.region_offsets, transposed,
            False)
        none = torch.empty(2, 0, dtype=torch.int32)
        found = kernel_map([lists.get(k, none) for k in range(generator.kernel_volume)], *sizes)
    maps[(*places, kernel, transposed)] = found
    return found
