"""Export models to ONNX, and to programs that run without geonorm.

torch.export works on models with norms of this library as it is. It leaves the library's operators
in the program; `decomposed` replaces them by torch's own, which every runtime knows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram, default_decompositions, export

from geonorm.files import written_whole
from geonorm.modes import in_evaluation
from geonorm.ops import axis_norm, segment_norm


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """Return a program in which torch's operators stand for those of this library.

    The result can be saved, lowered and run where geonorm is not installed. It is for inference:
    statistics are computed by the reference's formulas.

    Args:
        program: what `torch.export.export` returned.

    >>> import geonorm
    >>> norm = geonorm.InstanceNorm(3)
    >>> program = decomposed(torch.export.export(norm, (torch.randn(2, 3, 8),)))
    >>> any("geonorm" in str(node.target) for node in program.graph.nodes)
    False
    """
    ours = {
        torch.ops.geonorm.axis_norm.default: axis_norm.forward,
        torch.ops.geonorm.segment_norm.default: segment_norm.forward,
        torch.ops.geonorm.segment_stats.default: segment_norm._reference_stats,
        torch.ops.aten.empty_permuted.default: _in_any_layout,
    }
    plain: ExportedProgram = program.run_decompositions({**default_decompositions(), **ours})
    return plain


def _in_any_layout(
    size: Sequence[int], physical_layout: Sequence[int], dtype: Any = None, layout: Any = None,
    device: Any = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    """Stand for an operator that ONNX has no name for; strides are no part of its tensors."""
    return torch.empty(size, dtype=dtype, device=device)


def to_onnx(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    dynamic: Sequence[int] = (0, 2),
    tolerance: float = 1e-4,
    notes: Mapping[str, str] | None = None,
) -> float:
    """Write a model of one input and one output as ONNX, checked by onnxruntime against torch.

    The file has standard operators only. It is checked on the example and on an input that is twice
    as large along the dynamic axes; without agreement nothing is written. The model is exported as
    in inference.

    Args:
        model: gives one tensor for one tensor.
        example: an input of it on the CPU; see `exported`.
        path: the file, which ends in .onnx.
        dynamic: axes of the input that may have another size in each call: for clips
            (B, C, T, H, W) by default the batch and time.
        tolerance: largest difference of the outputs, as a share of the largest value.
        notes: what a user of the file must know; it is kept as the file's metadata.

    Returns:
        The largest difference that was found, as such a share.

    Raises:
        ValueError: the output is not one tensor, an axis does not exist or cannot be dynamic, or
            onnxruntime computes something else.
        ModuleNotFoundError: `pip install 'geonorm[export]'` was not run.
    """
    import onnxruntime

    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"expected a file that ends in .onnx; got {path}")
    program = decomposed(exported(model, example, dynamic))
    written: Any = torch.onnx.export(program, dynamo=True, verbose=False)
    for name, value in (notes or {}).items():
        written.model.metadata_props[name] = value
    data = written.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    worst = 0.0
    for x in (example, _twice(example, dynamic)):
        with in_evaluation(model.modules()), torch.no_grad():
            expected = model(x)
        try:
            (found,) = session.run(None, {given.name: x.numpy()})
        except Exception as error:  # onnxruntime's own have no common base
            raise ValueError(
                f"onnxruntime cannot run the model on {tuple(x.shape)}: {error}. Nothing was "
                "written. Give an example that is larger along the dynamic axes"
            ) from error
        difference = (torch.from_numpy(found) - expected).abs().max()
        worst = max(worst, (difference / expected.abs().max().clamp(min=1e-30)).item())
    if not worst <= tolerance:
        raise ValueError(
            f"onnxruntime's output differs from torch's by {worst:.1e} of the largest value; "
            f"expected at most {tolerance:.1e}. Nothing was written"
        )
    with written_whole(path) as aside:
        aside.write_bytes(data)
    return worst


def exported(model: nn.Module, example: Tensor, dynamic: Sequence[int] = ()) -> ExportedProgram:
    """Return torch's program of a model of one input and one output, as in inference.

    Args:
        model: gives one tensor for one tensor.
        example: an input of it. torch takes for fixed what has one element: a dynamic axis must
            have two or more, in the example and wherever it is shortened within the network.
        dynamic: axes of the input that may have another size in each call.

    Raises:
        ValueError: the output is not one tensor, an axis does not exist, or it cannot be dynamic.
    """
    if not all(0 <= axis < example.ndim and example.shape[axis] > 1 for axis in dynamic):
        raise ValueError(
            "dynamic axes must be some of the example's, with two elements or more; got "
            f"{[*dynamic]} and the sizes {tuple(example.shape)}"
        )
    with in_evaluation(model.modules()):
        with torch.no_grad():
            out = model(example)
        if not isinstance(out, Tensor):
            raise ValueError(f"expected a model that gives one tensor; got {type(out).__name__}")
        shapes = (dict.fromkeys(dynamic, Dim.DYNAMIC),)
        try:
            return export(model, (example,), dynamic_shapes=shapes)
        except UserError as error:
            raise ValueError(
                f"this model's axes {[*dynamic]} cannot be dynamic: {error}"
            ) from error


def _twice(example: Tensor, dynamic: Sequence[int]) -> Tensor:
    """Return an input that is twice as large along the dynamic axes, with other values."""
    sizes = [2 * size if axis in dynamic else size for axis, size in enumerate(example.shape)]
    return torch.randn(sizes, generator=torch.Generator().manual_seed(0)).to(example.dtype)
