"""The functions on rows: every refusal says what was expected, what came and what to do."""

import inspect
from functools import partial

import pytest
import torch
from conftest import relative_error

import geonorm
from geonorm import Rows, checks, functional
from geonorm.functional import (
    axis_instance_norm,
    divisive_norm,
    group_norm,
    instance_norm,
    layer_norm,
    retinex_norm,
)

ROWS = torch.randn(6, 4)
INDEX = torch.tensor([0, 1, 0, 1, 1, 0])
BY_INDEX = {"batch_index": INDEX, "num_instances": 2}
META = torch.zeros(6, device="meta")


def normalized(features, batch_index=None, num_instances=None, offsets=None, **options):
    """Return the features of instance norm on a container of rows."""
    rows = Rows(features, batch_index, offsets=offsets, num_instances=num_instances)
    return instance_norm(rows, **options).features


BAD = {
    "features a list": ({**BY_INDEX, "features": [[1.0]]}, TypeError, r"tensor \(N, C\); got list"),
    "features 1-D": ({**BY_INDEX, "features": ROWS[:, 0]}, ValueError,
                     r"features must be \(N, C\) with C ≥ 1; got shape \(6,\)"),
    "features 3-D": ({**BY_INDEX, "features": ROWS[None]}, ValueError, r"got shape \(1, 6, 4\)"),
    "no channels": ({**BY_INDEX, "features": ROWS[:, :0]}, ValueError, r"got shape \(6, 0\)"),
    "integer features": ({**BY_INDEX, "features": ROWS.long()}, TypeError,
                         r"floating point; got torch.int64. Convert them: features.float\(\)"),
    "complex features": ({**BY_INDEX, "features": ROWS.cfloat()}, TypeError, "got torch.complex64"),
    "both": ({**BY_INDEX, "offsets": torch.tensor([0, 6])}, ValueError,
             "exactly one of batch_index and offsets; got both"),
    "neither": ({}, ValueError, "exactly one of batch_index and offsets; got neither"),
    "index a list": ({"batch_index": [0] * 6}, TypeError, "batch_index must be a tensor"),
    "index too short": ({"batch_index": INDEX[:5]}, ValueError,
                        "one entry for each of the 6 rows; got 5"),
    "index too long": ({"batch_index": torch.zeros(7).long()}, ValueError,
                       "one entry for each of the 6 rows; got 7"),
    "index far below": ({"batch_index": INDEX - 5}, ValueError,
                        r"in \[0, 0\), num_instances being 0; it goes from -5 to -4"),
    "index 2-D": ({"batch_index": INDEX[:, None]}, ValueError, r"one dimension; got .*\(6, 1\)"),
    "index float": ({"batch_index": INDEX.float()}, TypeError, "int64 or int32; got torch.float32"),
    "index elsewhere": ({"batch_index": META.long()}, ValueError,
                        "batch_index is on meta, the features on cpu; move one"),
    "index negative": ({"batch_index": INDEX - 1}, ValueError,
                       r"must lie in \[0, 1\), num_instances being 1; it goes from -1 to 0"),
    "index too large": ({"batch_index": INDEX, "num_instances": 1}, ValueError,
                        r"must lie in \[0, 1\).*goes from 0 to 1"),
    "index of scans not counted": ({"batch_index": torch.tensor([0, 1, 10**12, 0, 0, 1])},
                                   ValueError, r"reaches 1000000000000 for 6 rows; expected inst"),
    "num_instances negative": ({"batch_index": INDEX, "num_instances": -1}, ValueError,
                               "integer ≥ 0; got -1"),
    "num_instances a truth": ({"batch_index": INDEX, "num_instances": True}, ValueError,
                              "integer ≥ 0; got True"),
    "num_instances a float": ({"batch_index": INDEX, "num_instances": 2.0}, ValueError, "got 2.0"),
    "offsets fall": ({"offsets": torch.tensor([0, 4, 3, 6])}, ValueError,
                     "must not decrease; they go from 4 to 3 at entry 2"),
    "offsets end early": ({"offsets": torch.tensor([0, 2, 5])}, ValueError,
                          "end at 6, the number of rows; they start at 0 and end at 5"),
    "offsets end late": ({"offsets": torch.tensor([0, 2, 7])}, ValueError,
                         "they start at 0 and end at 7"),
    "offsets of no batch": ({"offsets": torch.tensor([0, 6]), "num_instances": 0}, ValueError,
                            "got 2 entries and num_instances=0"),
    "offsets start late": ({"offsets": torch.tensor([1, 6])}, ValueError, "they start at 1"),
    "offsets empty": ({"offsets": INDEX[:0]}, ValueError, r"instances \+ 1,\).*got 0 entries"),
    "offsets of another batch": ({"offsets": torch.tensor([0, 6]), "num_instances": 3}, ValueError,
                                 "got 2 entries and num_instances=3"),
    "offsets float": ({"offsets": torch.tensor([0.0, 6.0])}, TypeError, "offsets must be int64"),
    "offsets elsewhere": ({"offsets": META.long()}, ValueError, "offsets is on meta"),
    "weights negative": ({**BY_INDEX, "point_weights": torch.tensor([1, 1, -2, 1, 1, 1.0])},
                         ValueError, r"finite and not negative; they go from -2\.0 to 1\.0"),
    "weights NaN": ({**BY_INDEX, "point_weights": torch.full((6,), torch.nan)}, ValueError,
                    "finite and not negative"),
    "weights infinite": ({**BY_INDEX, "point_weights": torch.full((6,), torch.inf)}, ValueError,
                         "finite and not negative"),
    "weights all zero": ({**BY_INDEX, "point_weights": (INDEX == 0).float()}, ValueError,
                         "all zero in instance 1"),
    "weights too many": ({**BY_INDEX, "point_weights": torch.ones(7)}, ValueError,
                         "one entry for each of the 6 rows; got 7"),
    "weights too few": ({**BY_INDEX, "point_weights": torch.ones(5)}, ValueError,
                        "one entry for each of the 6 rows; got 5"),
    "weights zero of a lone row": ({"batch_index": torch.tensor([0, 1, 0, 0, 0, 0]),
                                    "point_weights": torch.tensor([1, 0, 1, 1, 1, 1.0])},
                                   ValueError, "all zero in instance 1"),
    "weights zero twice": ({**BY_INDEX, "point_weights": torch.zeros(6)}, ValueError,
                           "all zero in instance 0"),
    "weights 2-D": ({**BY_INDEX, "point_weights": torch.ones(6, 1)}, ValueError,
                    "point_weights must have one dimension"),
    "weights complex": ({**BY_INDEX, "point_weights": torch.ones(6).cfloat()}, TypeError,
                        "must be real"),
    "weights a parameter": ({**BY_INDEX, "point_weights": torch.ones(6, requires_grad=True)},
                            TypeError, r"are counts and get no gradient.*detach\(\)"),
    "weights elsewhere": ({**BY_INDEX, "point_weights": META}, ValueError, "weights is on meta"),
    "weight of another size": ({**BY_INDEX, "weight": torch.ones(5)}, ValueError,
                               r"weight must be \(C,\) = \(4,\) or \(B, C\) = \(2, 4\); got"),
    "bias of another batch": ({**BY_INDEX, "bias": torch.ones(3, 4)}, ValueError, r"got \(3, 4\)"),
    "weight elsewhere": ({**BY_INDEX, "weight": torch.ones(4, device="meta")}, ValueError,
                         "weight is on meta"),
    "weight in double": ({**BY_INDEX, "weight": torch.ones(4).double()}, TypeError,
                         "must be torch.float32 for torch.float32 features; got torch.float64"),
    "weight alone in double": (
        {**BY_INDEX, "weight": torch.ones(4).double(), "bias": torch.ones(4)}, TypeError,
        "weight must be torch.float32"),
    "bias alone in double": (
        {**BY_INDEX, "weight": torch.ones(4), "bias": torch.ones(4).double()}, TypeError,
        "bias must be torch.float32"),
    "weight alone too long": ({**BY_INDEX, "weight": torch.ones(5), "bias": torch.ones(4)},
                              ValueError, r"weight must be .* got \(5,\)"),
    "bias alone too long": ({**BY_INDEX, "weight": torch.ones(4), "bias": torch.ones(5)},
                            ValueError, r"bias must be .* got \(5,\)"),
    "weight alone elsewhere": ({**BY_INDEX, "weight": META[:4], "bias": torch.ones(4)}, ValueError,
                               "weight is on meta"),
    "bias alone elsewhere": ({**BY_INDEX, "weight": torch.ones(4), "bias": META[:4]}, ValueError,
                             "bias is on meta"),
    "eps zero": ({**BY_INDEX, "eps": 0.0}, ValueError, "eps must be positive; got 0.0"),
    "eps NaN": ({**BY_INDEX, "eps": float("nan")}, ValueError, "eps must be positive; got nan"),
    "activation": ({**BY_INDEX, "activation": "gelu"}, ValueError, "got 'gelu'"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case):
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message):
        normalized(**{"features": ROWS, **arguments})
    if "batch_index" in arguments and "offsets" not in arguments:  # without a container too
        arguments = {"x": ROWS, **arguments}
        arguments["x"] = arguments.pop("features", ROWS)
        with pytest.raises(error, match=message if case != "features a list" else "list has its"):
            instance_norm(**arguments)


def test_the_same_input_without_the_mistake_passes():
    out = instance_norm(ROWS, INDEX, 2, weight=torch.ones(4), bias=torch.ones(2, 4),
                               point_weights=torch.tensor([1, 0, 2, 1, 1, 1]))
    assert out.isfinite().all()


def test_parameters_may_lie_apart_in_memory():
    wide = torch.randn(4, 3)
    weight, bias = wide[:, 0], wide[:, 2]
    expected = instance_norm(ROWS, INDEX, weight=weight.clone(), bias=bias.clone())
    for each in ({"weight": weight, "bias": bias}, {"weight": weight.clone(), "bias": bias},
                 {"weight": weight, "bias": bias.clone()}):  # fmt: skip
        assert torch.equal(instance_norm(ROWS, INDEX, **each), expected)
    x = torch.randn(2, 4, 9)
    apart = axis_instance_norm(x, axes=2, weight=weight.clone(), bias=bias)
    together = axis_instance_norm(x, axes=2, weight=weight.clone(), bias=bias.clone())
    assert torch.equal(apart, together)
    assert torch.equal(axis_instance_norm(x, axes=2, weight=weight, bias=bias.clone()), together)


def test_weights_of_points_beside_an_instance_without_any():
    weights = torch.tensor([1.0, 0, 2, 1, 1, 1])
    found = instance_norm(ROWS, INDEX, 3, point_weights=weights)
    assert torch.equal(found, instance_norm(ROWS, INDEX, point_weights=weights))
    assert instance_norm(ROWS.half(), INDEX, point_weights=weights).dtype == torch.float16


def test_what_a_dense_tensor_can_be_told():
    x = torch.randn(2, 3, 4)
    assert torch.equal(instance_norm(x, num_instances=2), instance_norm(x))
    with pytest.raises(TypeError, match="point_weights weigh rows; a dense tensor has none"):
        instance_norm(x, point_weights=torch.ones(2))


def test_how_many_instances_an_index_may_name_by_itself():
    most, rows = 2**20, torch.zeros(2, 1)
    assert checks.batch_index(torch.tensor([0, most - 1]), None, rows)[1] == most
    assert checks.batch_index(torch.tensor([0, most]), most + 1, rows)[1] == most + 1
    with pytest.raises(ValueError, match=f"reaches {most} for 2 rows"):
        checks.batch_index(torch.tensor([0, most]), None, rows)
    index, rows = torch.zeros(2**17, dtype=torch.int64), torch.zeros(2**17, 1)
    index[5] = 2 * most - 1
    assert checks.batch_index(index, None, rows)[1] == 2 * most
    index[5] += 1
    with pytest.raises(ValueError, match=f"reaches {2 * most} for {2**17} rows"):
        checks.batch_index(index, None, rows)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_index_and_offsets_say_the_same(dtype):
    rows, sizes = torch.randn(9, 4), torch.tensor([0, 4, 0, 5, 0])
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    index = torch.arange(5).repeat_interleave(sizes)
    bias = torch.arange(20.0).view(5, 4)
    found = normalized(rows, offsets=offsets.to(dtype), bias=bias)
    expected = instance_norm(rows, index.to(dtype), 5, bias=bias)
    assert torch.equal(found, expected)
    assert not torch.equal(found, instance_norm(rows, index.flip(0), 5))


def test_no_rows_and_no_instances():
    rows = torch.zeros(0, 4)
    assert instance_norm(rows, INDEX[:0]).shape == (0, 4)
    assert instance_norm(rows, INDEX[:0], point_weights=torch.zeros(0)).shape == (0, 4)
    assert instance_norm(rows, INDEX[:0], 0).shape == (0, 4)
    assert normalized(rows, offsets=torch.tensor([0])).shape == (0, 4)
    assert normalized(rows, offsets=torch.tensor([0, 0, 0])).shape == (0, 4)


def test_num_instances_is_counted_on_the_cpu_only():
    rows = torch.randn(6, 4, device="meta")
    with pytest.raises(ValueError, match=r"pass num_instances: .* batch_index on meta"):
        instance_norm(rows, META.long())
    assert instance_norm(rows, META.long(), 2).shape == (6, 4)


def test_half_parameters_of_half_features():
    rows = ROWS.bfloat16()
    weight = torch.rand(4, dtype=torch.bfloat16, requires_grad=True)
    out = instance_norm(rows, INDEX, weight=weight)
    out.sum().backward()
    assert out.dtype == weight.grad.dtype == torch.bfloat16
    exact = instance_norm(rows.double(), INDEX, weight=weight.detach().double())
    assert relative_error(out, exact) < 2**-8
    both = instance_norm(rows, INDEX, weight=weight, bias=weight)
    weight = weight.detach().double()
    exact = instance_norm(rows.double(), INDEX, weight=weight, bias=weight)
    assert relative_error(both, exact) < 2**-8


# A compiled function meets the checks of shapes but not those of values, which would break it.
@pytest.mark.parametrize("given", ["batch_index", "offsets"])
def test_compiles_into_one_graph(given):
    torch.compiler.reset()
    weights = torch.ones(6)

    def function(rows, index):
        which = {"num_instances": 2} if given == "batch_index" else {}
        return normalized(rows, **which, **{given: index}, point_weights=weights)

    index = INDEX if given == "batch_index" else torch.tensor([0, 2, 6])
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert relative_error(compiled(ROWS, index), function(ROWS, index)) < 1e-6


def test_validate_is_asked_for_and_taken_back():
    rows, index = torch.randn(6, 4, device="meta"), META.long()
    assert instance_norm(rows, index, 2).shape == (6, 4)
    geonorm.validate(True)
    try:
        with pytest.raises(RuntimeError, match="meta"):  # values are read, and there are none
            instance_norm(rows, index, 2)
    finally:
        geonorm.validate(False)
    assert instance_norm(rows, index, 2).shape == (6, 4)


def test_defaults_are_those_of_torch():
    found = {}
    for name, function in vars(functional).items():
        if inspect.isfunction(function) and function.__module__ == functional.__name__:
            for parameter in inspect.signature(function).parameters.values():
                given = parameter.default is not parameter.empty
                if given and parameter.name in ("eps", "negative_slope"):
                    found[name, parameter.name] = parameter.default
    assert {default for (_, name), default in found.items() if name == "eps"} == {1e-5}
    assert {default for (_, name), default in found.items() if name != "eps"} == {0.01}
    assert ("divisive_norm", "eps") in found
    assert ("instance_norm", "negative_slope") in found


@pytest.mark.parametrize(
    ("name", "options"), [("instance_norm", {}), ("axis_instance_norm", {"axes": (2, 3)})]
)
def test_there_must_be_positions_and_need_not_be_instances(name, options):
    norm = getattr(functional, name)
    with pytest.raises(ValueError, match=r"nothing to normalize along axis 3: .* \(2, 3, 4, 0\)"):
        norm(torch.ones(2, 3, 4, 0), **options)
    assert norm(torch.ones(0, 3, 4, 5), **options).shape == (0, 3, 4, 5)


def test_residuals_and_slopes_that_are_refused():
    options = {"batch_index": INDEX, "num_instances": 2}
    with pytest.raises(ValueError, match="residual is on meta, the features on cpu; move one"):
        instance_norm(ROWS, **options, residual=ROWS.to("meta"))
    with pytest.raises(ValueError, match=r"negative_slope must be at least 0 .*; got -0\.1"):
        instance_norm(ROWS, **options, residual=ROWS, activation="leaky_relu", negative_slope=-0.1)
    flat = instance_norm(ROWS, **options, residual=ROWS, activation="leaky_relu", negative_slope=0)
    assert torch.equal(flat, instance_norm(ROWS, **options, residual=ROWS, activation="relu"))
    fallen = instance_norm(ROWS, **options, activation="leaky_relu", negative_slope=-0.1)
    assert (fallen >= 0).all()  # without a residual any slope will do
    x, falling = torch.randn(2, 4, 5), {"activation": "leaky_relu", "negative_slope": -0.1}
    for norm, given in ((group_norm, (x, 2)), (group_norm, (ROWS, 2, INDEX)),
                        (partial(axis_instance_norm, axes=2), (x,))):  # fmt: skip
        assert (norm(*given, **falling) >= 0).all()
        with pytest.raises(ValueError, match=r"negative_slope must be at least 0 .*; got -0\.1"):
            norm(*given, **falling, residual=given[0])


@pytest.mark.parametrize("kind", ["rows", "dense"])
def test_a_residual_of_another_dtype_is_added_as_torch_adds_it(kind):
    dense = kind == "dense"
    x = torch.randn(2, 3, 5) if dense else ROWS
    given = {} if dense else {"batch_index": INDEX, "num_instances": 2}
    residual = torch.randn(x.shape, dtype=torch.float64)
    found = instance_norm(x, **given, residual=residual)
    assert found.dtype == torch.float64
    expected = instance_norm(x.double(), **given) + residual
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("norm", "options", "message"), [
    (layer_norm, {"eps": 0.0}, "eps must be positive; got 0.0"),
    (layer_norm, {"weight": torch.ones(5)}, r"weight must be \(C,\) = \(4,\) or .*; got \(5,\)"),
    (layer_norm, {"bias": torch.ones(4).double()}, "bias must be torch.float32 for torch.float32"),
    (layer_norm, {"activation": "gelu"}, "activation must be one of .*; got 'gelu'"),
    (divisive_norm, {"eps": -1.0}, "eps must be positive; got -1.0"),
    (divisive_norm, {"kernel_size": 4}, "kernel_size must be odd, or None for all; got 4"),
    (divisive_norm, {"exponent": 0.5}, "exponent must be 1 or more; got 0.5"),
    (divisive_norm, {"semi_saturation": -0.1}, "semi_saturation must be 0 or more; got -0.1"),
    (divisive_norm, {"bias": torch.ones(3)}, r"bias must be \(C,\) = .*; got \(3,\)"),
    (retinex_norm, {"surround": None, "eps": -5.0}, "eps must be positive; got -5.0"),
    (retinex_norm, {"surround": None, "floor": 0.0}, "floor must be positive; got 0.0"),
    (retinex_norm, {"surround": None, "weight": torch.ones(3, 4)}, r"\(2, 4\); got \(3, 4\)"),
])  # fmt: skip
def test_functions_refuse_what_their_modules_refuse(norm, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        norm(torch.ones(2, 4, 7), **options)


@pytest.mark.parametrize("norm", [
    layer_norm, partial(divisive_norm, kernel_size=None), partial(retinex_norm, surround="mean"),
])  # fmt: skip
@pytest.mark.parametrize("dense", [False, True])
def test_parameters_of_each_instance(norm, dense):
    weight, bias = torch.randn(2, 4), torch.randn(2, 4)
    x = torch.rand(2, 4, 5) if dense else Rows(ROWS.abs(), INDEX)
    found = norm(x, weight=weight, bias=bias)
    mixed = norm(x, weight=weight, bias=bias[1])
    plain = norm(x)
    if dense:
        torch.testing.assert_close(found, plain * weight[..., None] + bias[..., None])
        torch.testing.assert_close(mixed, plain * weight[..., None] + bias[1][:, None])
    else:
        each = weight[INDEX], bias[INDEX]
        torch.testing.assert_close(found.features, plain.features * each[0] + each[1])
        torch.testing.assert_close(mixed.features, plain.features * each[0] + bias[1])


def test_a_matrix_without_an_index_is_one_instance():
    weight = torch.randn(1, 4)
    torch.testing.assert_close(layer_norm(ROWS, weight=weight), layer_norm(ROWS) * weight)
    with pytest.raises(ValueError, match=r"\(B, C\) = \(1, 4\); got \(2, 4\)"):
        layer_norm(ROWS, weight=torch.randn(2, 4))


def test_a_logarithm_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"above -floor = -0\.5; the smallest is -0\.5\."):
        retinex_norm(torch.full((1, 2, 3), -0.5), surround=None, floor=0.5)


def test_groups_and_axes_that_are_refused():
    with pytest.raises(ValueError, match="num_groups must divide the 4 channels; got 3"):
        group_norm(ROWS, 3, INDEX)
    with pytest.raises(ValueError, match="num_groups must divide the 4 channels; got 0"):
        group_norm(ROWS, 0, INDEX)
    with pytest.raises(TypeError, match=r"x must be floating point; got torch\.int64"):
        axis_instance_norm(torch.ones(2, 3, 4).long(), axes=2)
    with pytest.raises(ValueError, match=r"as its first axis, 2; got num_instances=3"):
        instance_norm(torch.ones(2, 3, 4), num_instances=3)
