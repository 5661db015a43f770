"""A call of every public function and module of MinkowskiEngine, by its name."""

from collections.abc import Callable

import MinkowskiEngine as ME
import pytest
import torch
from MinkowskiEngine.modules import resnet_block, senet_block
from MinkowskiEngine.utils import quantization
from MinkowskiEngine.utils.gradcheck import gradcheck
from torch import Tensor, nn

Call = Callable[[], object]
PLACES = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 2, 3], [1, 0, 0], [1, 4, 4]], dtype=torch.int32)
POINTS = torch.tensor([[0.1, 0.2], [0.3, 0.1], [1.4, 2.2], [-0.5, 3.0]])
LABELS = torch.tensor([0, 1, 2, 3, 0])
NORMS, POOLS = ME.SparseTensorQuantizationMode, ("Sum", "Avg", "Max")


def rows(channels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (0.1 + 0.8 * torch.rand(len(PLACES), channels, generator=generator)).requires_grad_()


def x(channels: int = 4) -> ME.SparseTensor:
    """Return a sparse tensor of two scans with features in (0, 1)."""
    return ME.SparseTensor(rows(channels), PLACES)


def field(mode: object = NORMS.UNWEIGHTED_AVERAGE) -> ME.TensorField:
    """Return a tensor field of two scans, two rows of which share a voxel."""
    places = torch.cat([PLACES.float(), PLACES[:1] + 0.4])
    features = torch.rand(6, 4).requires_grad_()
    return ME.TensorField(features, places, quantization_mode=mode)


def module(make: Callable[..., nn.Module], *arguments: object, **options: object) -> Call:
    """Return a call of a module on a sparse tensor, and of its derivative."""
    def call() -> object:
        y = make(*arguments, **options)(x())
        (y.F if hasattr(y, "F") else y).sum().backward()
        return y

    return call


def transposed(make: Callable[..., nn.Module], *channels: int) -> Call:
    def call() -> object:
        down = ME.MinkowskiConvolution(4, 4, kernel_size=2, stride=2, dimension=2)(x())
        y = make(*channels, kernel_size=2, stride=2, dimension=2)(down)
        y.F.sum().backward()
        return y

    return call


def quantized(mode: object) -> Call:
    """Return a call that makes voxels of points that share them, and carries them back."""
    def call() -> object:
        points = field(mode)
        y = points.sparse()
        y.F.sum().backward()
        # MinkowskiEngine carries no others back.
        carried = mode in (NORMS.UNWEIGHTED_AVERAGE, NORMS.RANDOM_SUBSAMPLE)
        return y.slice(points).F if carried else y

    return call


def sparse_quantize(size: object, as_numpy: bool, **options: object) -> Call:
    points = POINTS.numpy() if as_numpy else POINTS
    return lambda: ME.utils.sparse_quantize(points, quantization_size=size, **options)


def same_places(function: Callable[..., object]) -> Call:
    return lambda: function(given := x(), given + given)


def of_two(make: Callable[..., nn.Module]) -> Call:
    def call() -> object:
        y = make()(given := x(), ME.MinkowskiGlobalAvgPooling()(given))
        y.F.sum().backward()
        return y

    return call


def loss(function: Callable[..., Tensor], target: Tensor, **options: object) -> Call:
    return lambda: function(x(), target, **options).backward()


def spmm(values: Tensor) -> Call:
    where = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    return lambda: ME.spmm(*where, values, torch.Size([2, 2]), values.new_ones(2, 3))


class Wrong(torch.autograd.Function):
    """x², with a derivative that is wrong."""

    @staticmethod
    def forward(ctx: object, given: Tensor) -> Tensor:
        return given * given

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * 3


def check_gradients() -> None:
    """Check a right derivative and a wrong one."""
    features = rows().detach().double().requires_grad_()
    given = ME.SparseTensor(features, PLACES)
    arguments = (features, ME.PoolingMode.GLOBAL_AVG_POOLING_KERNEL, given.coordinate_map_key,
                 ME.CoordinateMapKey(3), given.coordinate_manager)
    assert gradcheck(ME.MinkowskiGlobalPoolingFunction, arguments)
    values = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert not gradcheck(Wrong, (values,), raise_exception=False)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(Wrong, (values,))


ACTIVATIONS = ("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh",
               "LeakyReLU", "LogSigmoid", "LogSoftmax", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU",
               "SiLU", "Sigmoid", "Softmax", "Softmin", "Softplus", "Softshrink", "Softsign",
               "Tanh", "Tanhshrink", "Dropout", "AlphaDropout")
NEEDS_DIM = ("Softmax", "Softmin", "LogSoftmax")
F = ME.MinkowskiFunctional
CALLS: dict[str, Call] = {
    **{f"Minkowski{name}": module(getattr(ME, f"Minkowski{name}"),
                                  **({"dim": 1} if name in NEEDS_DIM else {}))
       for name in ACTIVATIONS},
    "MinkowskiThreshold": module(ME.MinkowskiThreshold, 0.5, 0.1),
    "MinkowskiSinusoidal": module(ME.MinkowskiSinusoidal, 4, 3),
    "MinkowskiConvolution": module(ME.MinkowskiConvolution, 4, 3, kernel_size=3, dimension=2),
    "MinkowskiChannelwiseConvolution": module(ME.MinkowskiChannelwiseConvolution, 4, kernel_size=3,
                                              dimension=2),
    "MinkowskiConvolutionTranspose": transposed(ME.MinkowskiConvolutionTranspose, 4, 3),
    "MinkowskiGenerativeConvolutionTranspose":
        transposed(ME.MinkowskiGenerativeConvolutionTranspose, 4, 3),
    "MinkowskiPoolingTranspose": transposed(ME.MinkowskiPoolingTranspose),
    **{f"Minkowski{name}Pooling": module(getattr(ME, f"Minkowski{name}Pooling"), kernel_size=2,
                                         stride=2, dimension=2) for name in POOLS},
    **{f"MinkowskiGlobal{name}Pooling": module(getattr(ME, f"MinkowskiGlobal{name}Pooling"))
       for name in POOLS},
    "MinkowskiGlobalPooling": module(ME.MinkowskiGlobalPooling),
    **{f"MinkowskiBroadcast{name}": of_two(getattr(ME, f"MinkowskiBroadcast{name}"))
       for name in ("", "Addition", "Multiplication", "Concatenation")},
    "MinkowskiBatchNorm": module(ME.MinkowskiBatchNorm, 4),
    "MinkowskiInstanceNorm": module(ME.MinkowskiInstanceNorm, 4),
    "MinkowskiSyncBatchNorm": lambda: ME.MinkowskiSyncBatchNorm.convert_sync_batchnorm(
        ME.MinkowskiBatchNorm(4)),
    "MinkowskiLinear": module(ME.MinkowskiLinear, 4, 3),
    "MinkowskiToFeature": module(ME.MinkowskiToFeature),
    "MinkowskiToDenseTensor": module(ME.MinkowskiToDenseTensor),
    "MinkowskiToSparseTensor": lambda: ME.MinkowskiToSparseTensor()(torch.ones(2, 3, 4, 4)),
    **{f"MinkowskiStack{name}": module(getattr(ME, f"MinkowskiStack{name}"), nn.Identity(),
                                       ME.MinkowskiReLU())
       for name in ("Cat", "Sum", "Mean", "Var")},
    "MinkowskiPruning": lambda: ME.MinkowskiPruning()(x(), LABELS > 0).F.sum().backward(),
    "MinkowskiUnion": lambda: ME.MinkowskiUnion()(
        given := x(), ME.SparseTensor(rows(), PLACES + torch.tensor([0, 1, 1], dtype=torch.int32),
                                      coordinate_manager=given.coordinate_manager)),
    "MinkowskiInterpolation": lambda: ME.MinkowskiInterpolation()(x(), PLACES.float() + 0.2),
    "features_at_coordinates": lambda: x().features_at_coordinates(PLACES.float()),
    "cat": same_places(ME.cat), "mean": same_places(ME.mean), "sum": same_places(ME.sum),
    "var": same_places(ME.var),
    "to_sparse": lambda: ME.to_sparse(torch.ones(2, 3, 4, 4)),
    "to_sparse_all": lambda: ME.to_sparse_all(torch.ones(2, 3, 4, 4)),
    "dense_coordinates": lambda: ME.dense_coordinates(torch.Size([2, 3, 4, 4])),
    "spmm": spmm(torch.ones(3)), "spmm in float64": spmm(torch.ones(3, dtype=torch.float64)),
    **{f"quantized {mode.name}": quantized(mode) for mode in (
        NORMS.UNWEIGHTED_AVERAGE, NORMS.UNWEIGHTED_SUM, NORMS.RANDOM_SUBSAMPLE,
        NORMS.MAX_POOL)},
    "splat": lambda: (points := field()).splat().interpolate(points),
    "get_kernel_volume": lambda: ME.get_kernel_volume(ME.RegionType.HYPER_CUBE, [3, 3], None, None,
                                                      2),
    **{f"region {region.name}": lambda region=region: ME.MinkowskiConvolution(
        4, 3, dimension=2, kernel_generator=ME.KernelGenerator(3, region_type=region, dimension=2)
    )(x()) for region in (ME.RegionType.HYPER_CUBE, ME.RegionType.HYPER_CROSS)},
    "convert_to_int_tensor": lambda: ME.convert_to_int_tensor(3, 2),
    "cuda_version": ME.cuda_version, "cudart_version": ME.cudart_version,
    "is_cuda_available": ME.is_cuda_available,
    "sparse_tensor_operation_mode": ME.sparse_tensor_operation_mode,
    "set_sparse_tensor_operation_mode": lambda: ME.set_sparse_tensor_operation_mode(
        ME.sparse_tensor_operation_mode()),
    "clear_global_coordinate_manager": ME.clear_global_coordinate_manager,
    "SparseTensor prints": lambda: repr(x()) + repr(field()),
    "SparseTensor to dense": lambda: x().dense(),
    "decomposed": lambda: x().decomposed_coordinates_and_features,
    "sparse_quantize of arrays": sparse_quantize(0.5, True),
    "sparse_quantize of tensors": sparse_quantize(0.5, False),
    "sparse_quantize of tensors by a list": sparse_quantize([0.5, 0.25], False),
    "sparse_quantize of arrays by a list": sparse_quantize([0.5, 0.25], True),
    "sparse_quantize of tensors without a size": sparse_quantize(None, False),
    "sparse_quantize with labels": sparse_quantize(
        0.5, False, labels=LABELS[:4], features=POINTS, return_index=True, return_inverse=True),
    "sparse_quantize of arrays with labels": sparse_quantize(
        0.5, True, labels=LABELS[:4].numpy(), return_index=True),
    "unique_coordinate_map": lambda: ME.utils.unique_coordinate_map(PLACES),
    "quantize": lambda: quantization.quantize(PLACES.numpy()),
    "quantize tensors": lambda: quantization.quantize(PLACES),
    "fnv_hash_vec": lambda: ME.utils.fnv_hash_vec(PLACES.numpy()),
    "ravel_hash_vec": lambda: ME.utils.ravel_hash_vec(PLACES.numpy()),
    "kaiming_normal_": lambda: ME.utils.kaiming_normal_(torch.empty(9, 3, 4), mode="fan_out"),
    "batched_coordinates": lambda: ME.utils.batched_coordinates([POINTS, POINTS.numpy()]),
    "sparse_collate": lambda: ME.utils.sparse_collate([POINTS], [POINTS], [LABELS[:4]]),
    "batch_sparse_collate": lambda: ME.utils.batch_sparse_collate([(POINTS, POINTS, LABELS[:4])]),
    "SparseCollation": lambda: ME.utils.SparseCollation()([(POINTS, POINTS, LABELS[:4])]),
    "summary": lambda: ME.utils.summary(
        nn.Sequential(ME.MinkowskiConvolution(4, 3, kernel_size=3, dimension=2)), x()),
    "BasicBlock": module(resnet_block.BasicBlock, 4, 4, dimension=2),
    "Bottleneck": module(resnet_block.Bottleneck, 4, 1, dimension=2),
    "SELayer": module(senet_block.SELayer, 4, reduction=2, D=2),
    "gradcheck": check_gradients,
    **{f"functional.{name}": lambda name=name: getattr(F, name)(x()).F.sum().backward()
       for name in ("celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
                    "leaky_relu", "logsigmoid", "relu", "relu6", "rrelu", "selu", "sigmoid",
                    "silu", "softplus", "softshrink", "softsign", "tanh", "tanhshrink",
                    "dropout", "alpha_dropout", "normalize")},
    **{f"functional.{name}": lambda name=name: getattr(F, name)(x(), dim=1)
       for name in ("log_softmax", "softmax", "softmin", "gumbel_softmax", "glu")},
    "functional.threshold": lambda: F.threshold(x(), 0.5, 0.1),
    "functional.prelu": lambda: F.prelu(x(), torch.ones(1)),
    "functional.linear": lambda: F.linear(x(), torch.ones(3, 4)),
    "functional.batch_norm": lambda: F.batch_norm(x(), torch.zeros(4), torch.ones(4)),
    **{f"functional.{name}": loss(getattr(F, name), LABELS)
       for name in ("cross_entropy", "nll_loss", "multi_margin_loss")},
    **{f"functional.{name}": loss(getattr(F, name), torch.full((5, 4), 0.5))
       for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits", "l1_loss",
                    "mse_loss", "smooth_l1_loss", "poisson_nll_loss", "hinge_embedding_loss",
                    "soft_margin_loss", "multilabel_soft_margin_loss")},
    "functional.kl_div": loss(F.kl_div, torch.full((5, 4), 0.25), reduction="batchmean"),
    "functional.multilabel_margin_loss": loss(F.multilabel_margin_loss,
                                              torch.tensor([[0, 1, -1, -1]] * 5)),
}  # fmt: skip
