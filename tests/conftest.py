"""The tolerances of all tests and the place of real data."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, as in
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # geonorm.training.threads
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # no more threads than cores together
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import pytest
import torch

from geonorm.ops.backends import backends, force_backend
from helpers.cuda_cases import cuda_marks

if not torch.cuda.is_available():  # before anything imports triton: its kernels then run here
    os.environ.setdefault("TRITON_INTERPRET", "1")

# One row per kind of comparison: the largest relative error ‖a − r‖ / ‖r‖ that passes.
TOLERANCES = {
    "float32 against float64": 1e-5,
    "float64 against float64": 1e-12,
    "properties in float64": 1e-9,
    "gain and offset": 1e-5,
    "logits": 1e-4,
}


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ‖actual − expected‖ / ‖expected‖ in float64; NaN never passes a comparison with it."""
    actual, expected = actual.detach().double(), expected.detach().double()
    difference = (actual - expected).norm().item()
    return difference / max(expected.norm().item(), 1e-30)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what trains, so that workers share short tests at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("training", "tools"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of real recordings, or skip where there is none."""
    tried = [Path(os.environ["GEONORM_DATA"])] if "GEONORM_DATA" in os.environ else []
    tried.append(Path(__file__).resolve().parents[2] / "shared" / "data")
    for root in tried:
        if root.is_dir():
            return root
    pytest.skip(f"no real recordings; tried {', '.join(map(str, tried))} (set GEONORM_DATA)")


@pytest.fixture(params=["reference", "cpp avx512", "cpp avx2", "cpp any"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test on each backend of the CPU and its instruction sets, skipping what is missing."""
    name, _, instructions = request.param.partition(" ")
    if backends()[name] != "available":
        pytest.skip(backends()[name])
    if instructions:
        kernels = importlib.import_module("geonorm._C")
        best = kernels.instruction_set()
        try:
            kernels.instruction_set(instructions)
        except ValueError as error:
            pytest.skip(str(error))
    force_backend(name)
    yield name
    force_backend(None)
    if instructions:
        kernels.instruction_set(best)


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run a test on one thread and on three, however many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let no test depend on those before it through torch's generator."""
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=cuda_marks)])
def triton_device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Run a test on the Triton kernels, interpreted on the CPU and compiled on a GPU."""
    if backends()["triton"] != "available":
        pytest.skip(backends()["triton"])
    interpreted = importlib.import_module("triton").knobs.runtime.interpret
    if interpreted != (request.param == "cpu"):
        pytest.skip("TRITON_INTERPRET=1 runs them on the CPU and only there; it is "
                    f"{'set' if interpreted else 'not set'}")
    force_backend("triton")
    yield torch.device(request.param)
    force_backend(None)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fill memory that is allocated but never written with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
