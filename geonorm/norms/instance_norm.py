"""Instance normalization of whatever comes: dense tensors and every kind of sparse one."""

from typing import Any

from torch import Tensor

from geonorm.functional import normalize_instances
from geonorm.inputs import read
from geonorm.norms.base import AffineNorm


class InstanceNorm(AffineNorm):
    """Normalize each channel over the positions of each instance, dense or sparse.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    The positions are the rows of an instance, or all elements of a dense tensor's third and later
    dimensions. A gain and an offset of an instance, channel by channel, leave the output as it is.
    `SparseInstanceNorm` is another name of this class; `AxisInstanceNorm` takes other axes.

    Args:
        num_features: number of channels C.
        eps: added to the variance, in squared units of the features.
        affine: learn a weight and a bias per channel.
        activation: what follows in the same pass: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (B, C, …); rows (N, C) with batch_index (N,); `geonorm.Rows`; a MinkowskiEngine SparseTensor
        or TensorField, an spconv, torchsparse or torch_geometric tensor with features (N, C). The
        output is of the kind, dtype and memory format of the input.

    Raises:
        ValueError: on call, for another number of channels, a matrix without an index, or an index,
            weights or a residual that do not fit.
        TypeError: on call, for another kind of input, or one that is not floating point.

    An instance of one position, or of equal ones, gives the bias, and so does a global mean (a
    pooling layer) directly behind this norm, whatever the input; a batch without rows stays
    without. State dicts of torch's and MinkowskiEngine's instance norms load, if those have
    parameters (torch's have none by default; MinkowskiEngine's eps is fixed at 1e-8: ask for the
    same to get the same function), and those of batch norms without their running statistics, with
    a warning.

    From instance normalization (Ulyanov et al., 2016).

    >>> import torch
    >>> norm = InstanceNorm(4)
    >>> norm(torch.randn(2, 4, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    >>> scan = torch.tensor([0, 0, 1, 0, 1, 1])
    >>> features = norm(torch.randn(6, 4) * 3 + 7, scan)
    >>> torch.allclose(features[scan == 0].mean(0), torch.zeros(4), atol=1e-5)
    True
    """

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
        point_weights: Tensor | None = None,
    ) -> Any:
        """Return x normalized, as the kind that it is.

        Args:
            x: a dense tensor, rows or any sparse kind.
            batch_index: the instance of each row, for rows alone.
            num_instances: instances in the batch; needed for rows on CUDA.
            residual: is added before the activation: of x's kind, or features of its shape.
            point_weights: how often each row counts, (N,), ≥ 0; of rows and sparse kinds.
        """
        given = read(x, batch_index, num_instances, self)
        try:  # in a fifth of the time that self.weight takes
            weight, bias = self._parameters["weight"], self._parameters["bias"]
        except KeyError:  # parametrized
            weight, bias = self.weight, self.bias
        return normalize_instances(
            given, weight, bias, residual, point_weights, self.eps, self.activation,
            self.negative_slope,
        )


SparseInstanceNorm = InstanceNorm
