"""Norms that keep apart what comes from different sensors or data sets."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.convert.transfer import RUNNING, unwrap
from geonorm.functional import Activation, instance_norm
from geonorm.inputs import Input, read
from geonorm.norms.base import Device, Dtype, Norm
from geonorm.norms.batch_norm import BatchNorm
from geonorm.ops.backends import checks_values

Domain = int | Sequence[int] | Tensor


class _DomainNorm(Norm):
    """Base of both norms: the domain of one call, and that of the following calls."""

    num_domains: int
    domain: Domain | None = None

    def _check_domains(self) -> None:
        if self.num_domains < 1:
            raise ValueError(f"num_domains must be 1 or more; got {self.num_domains}")

    def _ids(self, domain: Domain | None, given: Input) -> tuple[Domain, Tensor]:
        """Return the domain, and that of every instance, int64 (B,), known to be in range."""
        instances, device = given.num_instances, given.features.device
        domain = self.domain if domain is None else domain
        if domain is None:
            raise ValueError(
                f"{type(self).__name__} needs the domain of its input: pass domain=, or call "
                "geonorm.set_domain(model, domain) first"
            )
        ids = torch.as_tensor(domain, device=device)
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise TypeError(f"domain must hold integers; got {ids.dtype}")
        if ids.ndim > 1 or (ids.ndim == 1 and len(ids) != instances):
            raise ValueError(
                f"domain must be one id, or one for each of the {instances} instances; got shape "
                f"{tuple(ids.shape)}"
            )
        # An id out of range on CUDA would be an assertion inside a kernel, or another's statistics.
        known = not isinstance(domain, Tensor) or checks_values(ids.device)
        if known and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_domains:
            raise ValueError(
                f"domain must lie in [0, {self.num_domains}); got {ids.flatten().tolist()}"
            )
        return domain, ids.long().expand(instances)


def set_domain(model: nn.Module, domain: Domain | None) -> AbstractContextManager[Any]:
    """Tell every domain norm of a model where its next inputs come from.

    As a context manager it brings back at its end what each norm was told before.

    Args:
        model: holds a `DomainBatchNorm` or a `DomainInstanceNorm` or several, anywhere.
        domain: one id, or one for each instance of the batch; None forgets it.

    Raises:
        ValueError: the model has no such norm.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), DomainBatchNorm(4, num_domains=2))
    >>> with set_domain(model, 1):
    ...     out = model(torch.randn(2, 3, 8, 8))
    >>> out.shape, model[1].domain
    (torch.Size([2, 4, 6, 6]), None)
    """
    norms = [module for module in model.modules() if isinstance(module, _DomainNorm)]
    if not norms:
        raise ValueError(f"{type(model).__name__} holds no domain norm to tell the domain")
    before = [(norm, norm.domain) for norm in norms]
    for norm in norms:
        norm.domain = domain

    def restore() -> None:
        for norm, earlier in before:
            norm.domain = earlier

    context = ExitStack()
    context.callback(restore)
    return context


class DomainInstanceNorm(_DomainNorm):
    """Instance norm with a weight and a bias per domain, such as a sensor or a data set.

        y = act((x − mean) / √(var + eps) · weight[domain] + bias[domain] + residual)

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        num_domains: number of domains D.
        activation: what follows in the same pass: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (B, C, …), or any sparse kind that `InstanceNorm` takes; the output is of the same kind.
        Weight and bias are (D, C).

    Raises:
        ValueError: on call, for no domain, one outside [0, D), another number of channels or ids.
        TypeError: on call, for ids that are not integers, or another kind of input.

    State dicts of a norm with one weight and one bias load into every domain.

    After domain-specific batch norm (Chang et al., 2019).

    >>> norm = DomainInstanceNorm(4, num_domains=3)
    >>> norm(torch.randn(2, 4, 8), domain=[0, 2]).shape
    torch.Size([2, 4, 8])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        num_domains: int,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__()
        self.num_features, self.num_domains, self.eps = num_features, num_domains, eps
        self.set_activation(activation, negative_slope)
        self._check_domains()
        shape = (num_domains, num_features)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every weight to one and every bias to zero."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        domain: Domain | None = None,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x normalized, as the kind that it is.

        Args:
            x: a dense tensor, rows or any sparse kind.
            batch_index: the instance of each row, for rows alone.
            domain: one id, or one for each instance; by default what `set_domain` said.
            num_instances: instances in the batch; needed for rows on CUDA.
            residual: is added before the activation: of x's kind, or features of its shape.
        """
        given = read(x, batch_index, num_instances, self)
        _, ids = self._ids(domain, given)
        return instance_norm(
            given, weight=self.weight[ids], bias=self.bias[ids], residual=residual, eps=self.eps,
            activation=self.activation, negative_slope=self.negative_slope,
        )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"{super().extra_repr()}, num_domains={self.num_domains}"

    def split_state(self, state: dict[str, Any], prefix: str) -> None:
        """Rewrite one weight and one bias as those of every domain."""
        unwrap(state, prefix)
        for name in ("weight", "bias"):
            value = state.get(prefix + name)
            if value is not None and value.numel() == self.num_features:
                state[prefix + name] = value.expand(self.num_domains, -1)


class DomainBatchNorm(_DomainNorm):
    """Batch norm with statistics, weight and bias per domain, such as a sensor or a data set.

        y = (x − mean[domain]) / √(var[domain] + eps) · weight[domain] + bias[domain]

    and then act(y + residual).

    In training, the instances of each domain are normalized among themselves, and update that
    domain's running statistics alone; in evaluation each takes its domain's.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        num_domains: number of domains D.
        momentum: weight of the newest batch in the running statistics; None averages all.
        activation: what follows: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (B, C, …), or any sparse kind that `InstanceNorm` takes; the output is of the same kind.

    Raises:
        ValueError: on call, for no domain, one outside [0, D), another number of channels or ids,
            or one position per channel in training.
        TypeError: on call, for ids that are not integers, or another kind of input.

    On CUDA one id per instance costs synchronizations; an int costs none. The state dict of a plain
    batch norm loads into every domain.

    From domain-specific batch norm (Chang et al., 2019).

    >>> norm = DomainBatchNorm(4, num_domains=3)
    >>> norm(torch.randn(6, 4, 8), domain=[0, 2, 2, 0, 2, 2]).shape
    torch.Size([6, 4, 8])
    """

    has_running_statistics = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        num_domains: int,
        momentum: float | None = 0.1,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__()
        self.num_features, self.num_domains, self.eps = num_features, num_domains, eps
        self.set_activation(activation, negative_slope)
        self._check_domains()
        self.norms = nn.ModuleList(
            BatchNorm(num_features, eps, momentum=momentum, device=device, dtype=dtype)
            for _ in range(num_domains)
        )

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        domain: Domain | None = None,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x normalized, as the kind that it is.

        Args:
            x: a dense tensor, rows or any sparse kind.
            batch_index: the instance of each row, for rows alone.
            domain: one id, or one for each instance; by default what `set_domain` said.
            num_instances: instances in the batch; needed for rows on CUDA.
            residual: is added before the activation: of x's kind, or features of its shape.
        """
        given = read(x, batch_index, num_instances, self)
        features, index = given.features, given.instance
        told, ids = self._ids(domain, given)
        present = sorted({*torch.as_tensor(told).flatten().tolist()})
        if len(present) == 1 and features.numel():
            return self.finish(given, self.norms[present[0]](features), residual)
        row_ids = ids if index is None else ids[index]
        out = torch.empty_like(features)
        for one in present:
            mine = (row_ids == one).nonzero().flatten()
            if len(mine):
                out = out.index_copy(0, mine, self.norms[one](features[mine]))
        return self.finish(given, out, residual)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"{super().extra_repr()}, num_domains={self.num_domains}"

    def split_state(self, state: dict[str, Any], prefix: str) -> None:
        """Rewrite the entries of a norm without domains as those of every domain."""
        unwrap(state, prefix)
        for name in ("weight", "bias", *RUNNING):
            value = state.pop(prefix + name, None)
            for number in range(self.num_domains if value is not None else 0):
                state[f"{prefix}norms.{number}.{name}"] = value
