"""Batch normalization of dense tensors and of the rows of every sparse kind."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from geonorm.functional import Activation, read_positions
from geonorm.norms.base import Device, Dtype, Norm


class _AnyKind(Norm, _BatchNorm):
    """Base of `BatchNorm` and `SyncBatchNorm`: takes and returns rows of every sparse kind."""

    has_running_statistics = True

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x normalized, as the kind that it is.

        Args:
            x: a dense tensor, rows (N, C) or any sparse kind.
            batch_index, num_instances: as of `InstanceNorm`; nothing depends on them.
            residual: is added before the activation: of x's kind, or features of its shape.
        """
        given = read_positions(x, batch_index, num_instances, self)
        out: Tensor = _BatchNorm.forward(self, given.features)
        return self.finish(given, out, residual, inplace=True)

    def _check_input_dim(self, input: Tensor) -> None:
        """Leave the shape to `forward`, which says more."""

    def _check_non_zero_input_channels(self, input: Tensor) -> None:
        """Leave the number of channels to `forward`, which says more."""

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"{_BatchNorm.extra_repr(self)}{self._activation_repr()}"


class BatchNorm(_AnyKind):
    """Normalize each channel over all positions of the whole batch, dense or sparse.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    In training, mean and biased variance are the batch's; in evaluation, the running ones. It is
    `nn.BatchNorm1d` on the rows of sparse tensors, and `nn.BatchNorm1d` to `3d` on dense ones; the
    control against which an instance norm is measured.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        affine: learn a weight and a bias per channel.
        momentum: weight of the newest batch in the running statistics; None averages all.
        track_running_stats: keep running statistics; without, evaluation uses the batch's too.
        activation: what follows: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (N, C), (B, C, …), or any sparse kind that `InstanceNorm` takes; the output is of the same
        kind.

    Raises:
        ValueError: on call, for another number of channels, or one position per channel in
            training.
        TypeError: on call, for an input of no known kind.

    State dicts of `nn.BatchNorm1d` to `3d` and of MinkowskiBatchNorm load whole.
    `nn.SyncBatchNorm.convert_sync_batchnorm` would put a dense-only norm in its place: use
    `geonorm.SyncBatchNorm.convert_sync_batchnorm`.

    From batch normalization (Ioffe and Szegedy, 2015).

    >>> import torch
    >>> torch.allclose(BatchNorm(3)(torch.randn(4, 3)).mean(0), torch.zeros(3), atol=1e-6)
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        momentum: float | None = 0.1,
        track_running_stats: bool = True,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        _BatchNorm.__init__(
            self, num_features, eps, momentum, affine, track_running_stats, device, dtype
        )
        self.set_activation(activation, negative_slope)


class SyncBatchNorm(_AnyKind, nn.SyncBatchNorm):
    """`BatchNorm` whose batch is that of all processes of a group, as in `nn.SyncBatchNorm`.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    With one process, and in evaluation, it is `BatchNorm`. With several it needs CUDA tensors, as
    torch's does.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        affine: learn a weight and a bias per channel.
        momentum: weight of the newest batch in the running statistics; None averages all.
        track_running_stats: keep running statistics.
        process_group: the processes to share statistics with; all by default.
        activation: what follows: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (N, C), (B, C, …), or any sparse kind that `InstanceNorm` takes; the output is of the same
        kind.

    Raises:
        ValueError: on call, for another number of channels, or CPU tensors with several processes.
        TypeError: on call, for an input of no known kind.

    >>> import torch
    >>> SyncBatchNorm(3)(torch.randn(4, 3, 5)).shape
    torch.Size([4, 3, 5])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        momentum: float | None = 0.1,
        track_running_stats: bool = True,
        process_group: Any = None,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        nn.SyncBatchNorm.__init__(
            self, num_features, eps, momentum, affine, track_running_stats, process_group, device,
            dtype,
        )
        self.set_activation(activation, negative_slope)

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x normalized, as the kind that it is; arguments as of `BatchNorm`."""
        given = read_positions(x, batch_index, num_instances, self)
        out: Tensor = nn.SyncBatchNorm.forward(self, given.features)
        return self.finish(given, out, residual, inplace=True)

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> nn.Module:
        """Return the module with every batch norm of torch's or ours in it replaced by this one.

        Parameters and statistics are the same tensors; MinkowskiBatchNorm, which holds a
        `nn.BatchNorm1d`, keeps working on sparse tensors.

        Raises:
            ValueError: a norm whose forward is not a batch norm's, such as one with an activation
                of its own that cannot be carried over (naming it).
        """
        from geonorm.convert.sources import batch_norm_as

        if isinstance(module, _BatchNorm) and not isinstance(module, cls):
            return batch_norm_as(cls, module, process_group=process_group)
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module
