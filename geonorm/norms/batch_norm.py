"""Batch normalization of dense tensors and of the rows of every sparse kind."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from geonorm.convert.transfer import unwrap
from geonorm.instances import is_dense
from geonorm.sparse import features_of, with_features


class _AnyKind(_BatchNorm):
    """What `BatchNorm` and `SyncBatchNorm` share: rows of a sparse kind go in and come back."""

    def forward(self, x: Any) -> Any:
        """Return x normalized, as the kind that it is."""
        features = x if is_dense(x) else features_of(x)
        if features.ndim >= 2 and features.shape[1] != self.num_features:
            raise ValueError(
                f"features must have {self.num_features} channels; got {tuple(features.shape)}. "
                f"Did you mean {type(self).__name__}({features.shape[1]})?"
            )
        out: Tensor = super().forward(features)
        return out if is_dense(x) else with_features(x, out)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (N, C) or (B, C, …); got {tuple(input.shape)}")

    def _check_non_zero_input_channels(self, input: Tensor) -> None:
        """Leave the number of channels to `forward`, which says more."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        unwrap(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class BatchNorm(_AnyKind):
    """Normalize each channel over all positions of the whole batch, dense or sparse.

        y = (x − mean) / √(var + eps) · weight + bias

    In training, mean and biased variance are the batch's; in evaluation, the running ones. It is
    `nn.BatchNorm1d` on the rows of sparse tensors, and `nn.BatchNorm1d` to `3d` on dense ones; the
    control against which an instance norm is measured.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics; None averages all.
        affine: learn a weight and a bias per channel.
        track_running_stats: keep running statistics; without, evaluation uses the batch's too.

    Shape:
        (N, C), (B, C, …), or any sparse kind of `geonorm.sparse`; the output is of the same kind.

    Raises:
        ValueError: on call, for another number of channels, or one position per channel in
            training.
        TypeError: on call, for an input of no known kind.

    State dicts of `nn.BatchNorm1d` to `3d` and of MinkowskiBatchNorm load whole.
    `nn.SyncBatchNorm.convert_sync_batchnorm` would put a dense-only norm in its place: use
    `geonorm.SyncBatchNorm.convert_sync_batchnorm`.

    From batch normalization (Ioffe and Szegedy, 2015).

    >>> import torch
    >>> scan = torch.tensor([0, 1, 0, 1])
    >>> features, _ = BatchNorm(3)((torch.randn(4, 3), scan))
    >>> torch.allclose(features.mean(0), torch.zeros(3), atol=1e-6)
    True
    """


class SyncBatchNorm(_AnyKind, nn.SyncBatchNorm):
    """`BatchNorm` whose batch is that of all processes of a group, as in `nn.SyncBatchNorm`.

        y = (x − mean) / √(var + eps) · weight + bias

    With one process, and in evaluation, it is `BatchNorm`. With several it needs CUDA tensors, as
    torch's does.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics; None averages all.
        affine: learn a weight and a bias per channel.
        track_running_stats: keep running statistics.
        process_group: the processes to share statistics with; all by default.

    Shape:
        (N, C), (B, C, …), or any sparse kind of `geonorm.sparse`; the output is of the same kind.

    Raises:
        ValueError: on call, for another number of channels, or CPU tensors with several processes.
        TypeError: on call, for an input of no known kind.

    >>> import torch
    >>> SyncBatchNorm(3)(torch.randn(4, 3, 5)).shape
    torch.Size([4, 3, 5])
    """

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> nn.Module:
        """Return the module with every batch norm of torch's or ours in it replaced by this one.

        Parameters and statistics are the same tensors; MinkowskiBatchNorm, which holds a
        `nn.BatchNorm1d`, keeps working on sparse tensors.
        """
        if isinstance(module, _BatchNorm) and not isinstance(module, cls):
            sync = cls(
                module.num_features, module.eps, module.momentum, module.affine,
                module.track_running_stats, process_group,
            )
            for store in ("_parameters", "_buffers"):
                getattr(sync, store).update(getattr(module, store))
            return sync.train(module.training)
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module
