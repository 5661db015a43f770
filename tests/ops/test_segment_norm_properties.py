"""Invariances of segment_norm, over 200 random batches each, with controls that must move.

Every property is a function of a norm and a batch that returns how far the outputs differ. It has a
control: another norm, or the same one misused, for which that distance is large.
"""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from conftest import TOLERANCES, relative_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.segment_norm_cases import (
    FLOAT32,
    batch,
    exact_results,
    parameters,
    results,
    segment_norm,
    upstream_of,
)

TINY = 1e-30  # eps itself is no invariant: without it the properties hold to rounding


@dataclass
class Batch:
    rows: torch.Tensor
    index: torch.Tensor
    instances: int
    generator: torch.Generator

    def rand(self, *shape):
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def times(self):
        return torch.randint(1, 6, (len(self.rows),), generator=self.generator)


def ours(rows, index, instances, row_weights=None):
    return segment_norm(rows, index, instances, row_weights=row_weights, eps=TINY)


def batch_norm(rows, index, instances, row_weights=None):
    return F.batch_norm(rows, None, None, training=True, eps=TINY)


def mean_only(rows, index, instances, row_weights=None):
    sums = torch.zeros(instances, rows.shape[1], dtype=rows.dtype).index_add(0, index, rows)
    return rows - (sums / index.bincount(minlength=instances)[:, None])[index]


def forgets_the_index(rows, index, instances, row_weights=None):
    return ours(rows, index.sort().values, instances)


def forgets_the_weights(rows, index, instances, row_weights=None):
    return ours(rows, index, instances)


def sums_instead_of_means(rows, index, instances, row_weights=None):
    sums = torch.zeros(instances, rows.shape[1], dtype=rows.dtype)
    return rows / sums.index_add(0, index, rows.square()).sqrt()[index]


def permuting_rows(norm, b):
    order = torch.randperm(len(b.rows), generator=b.generator)
    return norm(b.rows[order], b.index[order], b.instances), norm(
        b.rows, b.index, b.instances)[order]


def changing_other_instances(norm, b):
    chosen = b.index == b.index[0]
    other = torch.where(chosen[:, None], b.rows, b.rand(*b.rows.shape) * 50)
    whole = norm(b.rows, b.index, b.instances)[chosen]
    return norm(other, b.index, b.instances)[chosen], whole


def leaving_other_instances_out(norm, b):
    chosen = b.index == b.index[0]
    alone = norm(b.rows[chosen], torch.zeros(int(chosen.sum()), dtype=torch.long), 1)
    return alone, norm(b.rows, b.index, b.instances)[chosen]


def gain_and_offset(norm, b):
    gain, offset = b.rand(2, b.instances, b.rows.shape[1])
    gain, offset = 0.1 + 9 * gain, 20 * offset - 10
    changed = b.rows * gain[b.index] + offset[b.index]
    return norm(changed, b.index, b.instances), norm(b.rows, b.index, b.instances)


def duplicating_every_row(norm, b):
    twice = norm(b.rows.repeat(3, 1), b.index.repeat(3), b.instances)
    return twice, norm(b.rows, b.index, b.instances).repeat(3, 1)


def duplicating_some_rows_weighted_by_one_over_multiplicity(norm, b):
    times = b.times()
    rows, index, each = (t.repeat_interleave(times, 0) for t in (b.rows, b.index, times))
    weighted = norm(rows, index, b.instances, 1 / each.double())
    return weighted, norm(b.rows, b.index, b.instances).repeat_interleave(times, 0)


def weighting_by_multiplicity(norm, b):
    times = b.times()
    repeated = ours(b.rows.repeat_interleave(times, 0), b.index.repeat_interleave(times),
                    b.instances)
    return norm(b.rows, b.index, b.instances, times.double()).repeat_interleave(times, 0), repeated


def sorting_the_rows(norm, b):
    order = b.index.sort(stable=True).indices
    return norm(b.rows[order], b.index[order], b.instances), norm(
        b.rows, b.index, b.instances)[order]


CONTROLS = {
    permuting_rows: forgets_the_index,
    changing_other_instances: batch_norm,
    leaving_other_instances_out: batch_norm,
    gain_and_offset: mean_only,
    duplicating_every_row: sums_instead_of_means,
    duplicating_some_rows_weighted_by_one_over_multiplicity: forgets_the_weights,
    weighting_by_multiplicity: forgets_the_weights,
    sorting_the_rows: forgets_the_index,
}


@st.composite
def batches(draw):
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any))
    channels, seed = draw(st.integers(1, 5)), draw(st.integers(0, 2**31))
    interleaved, mean = draw(st.booleans()), draw(st.sampled_from([0.0, 3.0, -100.0]))
    rows, index = batch(sizes, channels, mean, torch.float64, seed, interleaved)
    return Batch(rows, index, len(sizes), torch.Generator().manual_seed(seed + 1))


# The backend is forced once for all examples, which is what is wanted.
@settings(max_examples=200, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=batches())
@pytest.mark.parametrize("leaves", CONTROLS, ids=lambda leaves: leaves.__name__)
def test_property(backend, leaves, case):
    assert relative_error(*leaves(ours, case)) < TOLERANCES["properties in float64"]


@pytest.mark.parametrize("moves", CONTROLS, ids=lambda moves: moves.__name__)
def test_control(moves):
    rows, index = batch((9, 0, 12, 4), 3, 3.0, torch.float64)
    case = Batch(rows, index, 4, torch.Generator().manual_seed(1))
    assert relative_error(*moves(CONTROLS[moves], case)) > 0.05


# Derandomized: a gradient may happen to cancel so far that no float32 can hold its digits.
@settings(max_examples=200, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.sampled_from([0, 1, 3, 4, 9, 40]), max_size=8).filter(
           lambda sizes: max(sizes, default=0) > 1),
       channels=st.integers(4, 9), seed=st.integers(0, 2**31), mean=st.sampled_from([0.0, 1e4]),
       interleaved=st.booleans(), per_instance=st.booleans())
def test_float32_output_and_gradients(
        backend, sizes, channels, seed, mean, interleaved, per_instance):
    rows, index = batch(sizes, channels, mean, torch.float32, seed, interleaved)
    weight, bias = parameters((len(sizes), channels) if per_instance else channels)
    arguments = (rows, index, len(sizes), weight, bias, upstream_of(rows))
    found, exact = results(segment_norm, *arguments), exact_results(*arguments)
    for name, one, other in zip(("out", "rows", "weight", "bias"), found, exact, strict=True):
        assert relative_error(one, other) < FLOAT32, name
