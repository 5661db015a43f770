"""What else could be done about shift than choosing another norm, in training and at the test.

At the test, on a network with batch norm:
  test batch  batch norm with the statistics of the test's batch (Nado et al., "Evaluating
              Prediction-Time Batch Normalization for Robustness under Covariate Shift", 2020)
  adabn       its statistics are those of all items of the test (Li et al., "Revisiting Batch
              Normalization for Practical Domain Adaptation", 2016)
  tent        besides, the affine parameters lower the entropy of the answers, one step for each
              batch in turn (Wang et al., "Tent: Fully Test-Time Adaptation by Entropy
              Minimization", ICLR 2021)
In training:
  mixstyle      `MixStyle`
  intensity     instance norm of the intensity alone, before the network
  standardized  each channel of the input standardized by the training data's statistics
  augmented     random intensities and missing beams, or random colours
  unstrided     the last two stages keep the positions of the one before: an instance of a clip has
                fifty there, not nine and four
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from geonorm.inputs import read
from geonorm.style import style_statistics

TENT_LR = 1e-3  # Adam's, as the authors have it

Logits = Callable[[nn.Module, Sequence[Any]], list[Tensor]]


def without_strides(network: nn.Module, stages: Sequence[str]) -> None:
    """Give the convolutions of some stages a stride of 1.

    Args:
        network: a 3D-ResNet.
        stages: their names, such as "layer4".
    """
    for stage in stages:
        for module in network.get_submodule(stage).modules():
            if isinstance(module, nn.Conv3d):
                module.stride = (1, 1, 1)


class MixStyle(nn.Module):
    """Gives each instance, in training, a mean of its own style and another one's.

    With the means μ and deviations σ of the instances per channel, a permutation π of the
    instances and λ drawn from Beta(α, α) for each of them,

        y = (λ σ + (1 − λ) σ_π) (x − μ) / σ + λ μ + (1 − λ) μ_π,

    the statistics taken as constants.

    Args:
        probability: of mixing a batch; others stay as they are.
        alpha: parameter of the Beta distribution.

    Shape:
        - Input: dense (B, C, …), or anything sparse that tells its instances.
        - Output: the same kind.

    Source: Zhou et al., "Domain Generalization with MixStyle", ICLR 2021.
    """

    def __init__(self, probability: float = 0.5, alpha: float = 0.1) -> None:
        super().__init__()
        self.probability, self.alpha = probability, alpha

    def forward(self, x: Any) -> Any:
        """Return x in mixed styles."""
        if not self.training or torch.rand(()) >= self.probability:
            return x
        given = read(x)
        with torch.no_grad():
            style = style_statistics(x)
            count = len(style.mean)
            weight = torch.distributions.Beta(self.alpha, self.alpha).sample((count, 1))
            other = torch.randperm(count)
            std = weight * style.std + (1 - weight) * style.std[other]
            mean = weight * style.mean + (1 - weight) * style.mean[other]
            scale, shift = std / style.std, mean - style.mean * std / style.std
        if given.instance is None:
            shape = (*scale.shape, *[1] * (given.features.ndim - 2))
            return given.rebuild(given.features * scale.view(shape) + shift.view(shape))
        return given.rebuild(given.features * scale[given.instance] + shift[given.instance])


def mix_styles_after(network: nn.Module, names: Sequence[str]) -> None:
    """Let `MixStyle` follow some modules of a network.

    Args:
        network: what is trained.
        names: of its modules.
    """
    for name in names:
        mix = MixStyle()

        def after(module: nn.Module, inputs: Any, out: Any, mix: MixStyle = mix) -> Any:
            return mix.train(module.training)(out)

        network.get_submodule(name).register_forward_hook(after)


class Adapted:
    """A trained network with batch norm, adapted to each test as a rival has it.

    Every test begins with the network as it was trained; it is seen as a whole, in batches in
    order, when its first item is asked for.

    Args:
        rival: one of `grid.cells.AT_TEST`.
        network: what was trained; it is left as it is.
        logits: returns of a network and some inputs the logits of each, (…, K).
        inputs: returns the inputs of the samples of a test, by item; None where there is none.
        answer: returns of logits what the network says.
        batch: inputs in a batch, as in training.

    Raises:
        ValueError: the network has no batch norm.
    """

    def __init__(
        self,
        rival: str,
        network: nn.Module,
        logits: Logits,
        inputs: Callable[[Sequence[Any]], list[Any]],
        answer: Callable[[Tensor], Any],
        batch: int,
    ) -> None:
        if not batch_norms(network):
            raise ValueError(f"{rival} changes batch norms, and the network has none")
        self.rival, self.network, self.logits = rival, network, logits
        self.inputs, self.answer, self.batch = inputs, answer, batch
        self._answers: dict[int, list[Any]] = {}

    def __call__(self, samples: Sequence[Any], item: int, given: Any) -> Any:
        """Return what the adapted network says of an item of a test."""
        if id(samples) not in self._answers:
            with torch.inference_mode(False), torch.enable_grad():  # whatever the task is in
                self._answers[id(samples)] = self._all(samples)
        return self._answers[id(samples)][item]

    def _all(self, samples: Sequence[Any]) -> list[Any]:
        there = [(item, each) for item, each in enumerate(self.inputs(samples)) if each is not None]
        network = copy.deepcopy(self.network).eval()
        batches = [
            [each for _, each in there[first : first + self.batch]]
            for first in range(0, len(there), self.batch)
        ]
        see = {"test batch": by_batch, "adabn": by_test, "tent": by_entropy}[self.rival]
        found = [self.answer(logits) for logits in see(network, self.logits, batches)]
        answers: list[Any] = [None] * len(samples)
        for (item, _), answer in zip(there, found, strict=True):
            answers[item] = answer
        return answers


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms in a network."""
    return [norm for norm in network.modules() if isinstance(norm, _BatchNorm)]


def _use_batch(network: nn.Module, momentum: float | None) -> None:
    for norm in batch_norms(network):
        norm.train()
        norm.momentum = momentum


@torch.no_grad()
def by_batch(network: nn.Module, logits: Logits, batches: Sequence[Sequence[Any]]) -> list[Tensor]:
    """Return the logits of each input, batch norms using the statistics of its batch."""
    _use_batch(network, 0.0)
    return [each for batch in batches for each in logits(network, batch)]


@torch.no_grad()
def by_test(network: nn.Module, logits: Logits, batches: Sequence[Sequence[Any]]) -> list[Tensor]:
    """Return the logits of each input, batch norms using the mean statistics of all batches."""
    for norm in batch_norms(network):
        norm.reset_running_stats()
    _use_batch(network, None)  # all batches weigh the same
    for batch in batches:
        logits(network, batch)
    network.eval()
    return [each for batch in batches for each in logits(network, batch)]


def by_entropy(
    network: nn.Module, logits: Logits, batches: Sequence[Sequence[Any]]
) -> list[Tensor]:
    """Return the logits of each input, the network having learned from the batches before it."""
    _use_batch(network, 0.0)
    network.requires_grad_(False)
    affine = [parameter for norm in batch_norms(network) for parameter in norm.parameters()]
    for parameter in affine:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(affine, TENT_LR)
    found = []
    for batch in batches:
        each = logits(network, batch)
        log = torch.cat(each).log_softmax(-1)
        optimizer.zero_grad()
        (-(log.exp() * log).sum(-1).mean()).backward()
        optimizer.step()
        found += [one.detach() for one in each]
    return found
