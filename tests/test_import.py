"""Importing geonorm imports torch and nothing heavier, and runs every example of its docstrings."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import geonorm
import geonorm.datasets
import geonorm.models

PROGRAM = """
import sys, time, torch
before, start = set(sys.modules), time.process_time()
import geonorm
seconds = time.process_time() - start
print(seconds, *sorted(set(sys.modules) - before))
"""
HEAVY = ("numpy", "lightning", "torchvision", "open3d", "triton", "torch._dynamo")


def test_import_is_light():
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        seconds, *modules = done.stdout.split()
        runs.append(float(seconds))
    assert min(runs) < 0.3
    roots = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)
    assert roots <= {"geonorm", "torch"}
    assert not [name for name in modules if name.startswith(HEAVY)]


def library_modules():
    """Return every module, those of packages that setup.py maps from elsewhere included."""
    names = {module.name for package in (geonorm, geonorm.datasets, geonorm.models)
             for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")}
    assert {"geonorm.datasets.synthetic.lidar", "geonorm.models.video_resnet"} <= names
    return sorted(names - {"geonorm._C"})


@pytest.mark.parametrize("name", library_modules())
def test_docstrings_run(name):
    if "triton" in name:
        pytest.importorskip("triton")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
