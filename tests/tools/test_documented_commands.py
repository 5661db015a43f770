"""Every command line and every piece of Python in the documentation runs, with short limits.

The commands are looked up in the documentation itself, so a new one is run without a change here.
`make` has its own proof, tools/bare_machine.sh.
"""

import ast
import json
import os
import re
import runpy
import shlex
import shutil
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from geonorm.__main__ import COMMANDS
from geonorm.__main__ import main as geonorm_command
from geonorm.training.cli import CONFIGS
from geonorm.training.threads import VARIABLES
from helpers.action_runs import QUICK, layout
from helpers.scan_trees import WRITERS
from helpers.scan_writers import rows, write
from helpers.video_files import encode, numbered_film

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    "train_seg", "train_action", "evaluate_shift", "verify_invariance", "install_minkowski",
    "study",
)  # fmt: skip
COMMAND = re.compile(
    r"(?:python tools/(\w+)\.py|(?:^ *|/|`)geonorm ([a-z]+[a-z-]*))([^#`\n]*)", re.MULTILINE
)
# The script in tools that does what a subcommand of geonorm does.
SAME = {"train-seg": "train_seg", "train-action": "train_action",
        "evaluate-shift": "evaluate_shift"}  # fmt: skip
TRAINER = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.num_workers=0",
           "--trainer.enable_progress_bar=false"]  # fmt: skip
# What keeps a run short, by the tool, its subcommand, and the configuration it names.
LIMITS = {
    ("train_seg", "fit"): [*TRAINER, "--trainer.max_steps=2", "--data.voxel_size=0.8"],
    ("train_seg", "streets"): ["--data.train.init_args.num_scans=2",
                               "--data.val.init_args.num_scans=1"],
    # Of every configuration of data on a disk.
    ("train_seg", "data"): ["--model.name=MinkUNetSlim", "--data.batch_size=2",
                            "--trainer.check_val_every_n_epoch=1"],
    ("train_action", "fit"): [*QUICK, *TRAINER, "--trainer.check_val_every_n_epoch=1"],
    ("train_action", "actions"): ["--data.train.init_args.num_videos=12",
                                  "--data.val.init_args.num_videos=6"],
    ("train_action", "ucf101"): ["--model.weights=null"],
}  # fmt: skip
OF_SECONDS = {"fit", "test", "write-shards", "predict", "share", "export", "--cpu"}
pytestmark = pytest.mark.filterwarnings("default")


def documented():
    """Return every command of the tools and of geonorm in the documentation, as its words."""
    texts = [path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))]
    scripts = [ROOT / "tools" / f"{tool}.py" for tool in TOOLS]
    scripts += [*(ROOT / "geonorm/commands").glob("*.py"), ROOT / "geonorm/minkowski/install.py"]
    texts += [ast.get_docstring(ast.parse(script.read_text())) for script in scripts]
    found = {
        # Two spaces end the command and begin what is said of it.
        (SAME.get(command, command or tool), *shlex.split(re.split(r"\s{2,}", words.rstrip())[0]))
        for text in texts
        for tool, command, words in COMMAND.findall(text)
        if tool in TOOLS or command in COMMANDS
    }
    return sorted(found)


def commands(chosen):
    """Return the commands of the chosen tools, marked by the time they take: seconds or minutes."""
    found = []
    for command in documented():
        words, marks = {*command}, ()
        if command[0].startswith("verify") or ("study" in words and "list" not in words):
            marks = pytest.mark.long
        elif "--help" not in words and words & OF_SECONDS:
            marks = pytest.mark.slow
        if chosen(command[0]):
            found.append(pytest.param(command, marks=marks, id=" ".join(command)))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with all that the commands name."""
    folder = tmp_path_factory.mktemp("documented")
    (folder / "tools").symlink_to(ROOT / "tools")
    for name in ("a.bin", "b.ply", "c.pcd", "d.npy"):
        write(folder / name, rows(2000))
    write(folder / "scan.bin", rows(500))  # of few points, whose statistics move by their weights
    (folder / "drive").mkdir()
    for number in range(4):
        write(folder / "drive" / f"{number}.bin", rows(500, seed=number))
    for name in ("a.mp4", "b.avi", "film.mp4"):
        encode(folder / name, numbered_film(20))
    for config, write_tree in WRITERS.items():
        (folder / "data" / config).mkdir(parents=True)
        write_tree(folder / "data" / config)
    (folder / "made").mkdir()
    films, lists = layout(folder / "made", "ucf101")
    films.rename(folder / "data/ucf101")
    lists.rename(folder / "data/ucfTrainTestlist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEONORM_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        for tool in ("train_seg", "train_action"):
            run_tool(tool, [], f"runs/{tool}/001")
    shutil.copytree(folder / "runs/train_seg/001", folder / "runs/train_seg/002")
    (folder / "predictions").mkdir()
    np.full(2000, 40, "<u4").tofile(folder / "a.label")
    np.full(2000, 10, "<u4").tofile(folder / "predictions/a.label")
    (folder / "predictions/classes.json").write_text('{"road": 40, "car": 10}')
    views = [{"from": 0, "to": 1, "scores": {"wave": 0.75, "jump": 0.25}}]
    (folder / "predictions/a.scores.json").write_text(json.dumps({"views": views}))
    for name in ("scores.csv", "base.csv"):
        (folder / name).write_text("corruption,level,score\nclean,,0.8\nfog,,0.4\n")
    return folder


def run_tool(tool, words, folder):
    """Run a training tool in this process, within its limits, in a run folder."""
    has_name = words and not words[0].startswith("-")
    subcommand = words[0] if has_name else "fit"
    limits = []
    if subcommand == "fit" and "--help" not in words:
        default = {"train_seg": "streets", "train_action": "actions"}[tool]
        named = config_of(words) or default
        kind = "data" if named in WRITERS else named
        limits = LIMITS[tool, "fit"] + LIMITS.get((tool, kind), [])
    place = [] if {"--help", "check-data", "add-folds"} & {*words} else [f"--run_dir={folder}"]
    import_module(tool).main([*words, *limits, *place])


def run_as_program(monkeypatch, tool, words):
    """Run a script of tools or a command of geonorm in this process; return what it exits with."""
    for name, value in VARIABLES.items():  # else it would start this process again
        monkeypatch.setenv(name, os.environ.get(name, value))
    monkeypatch.setattr(sys, "argv", [f"tools/{tool}.py", *words])
    try:
        if tool not in TOOLS:
            return geonorm_command([tool, *words])
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        return ended.code
    return 0


def config_of(words):
    """Return the name after --config, None where there is none."""
    return next((after for word, after in pairwise(words) if word == "--config"), None)


def test_the_documentation_has_commands():
    assert len(documented()) >= 12
    assert {command[0] for command in documented()} >= {*TOOLS, "predict", "install-minkowski"}


def test_every_configuration_of_data_is_documented_and_run():
    """Each has a tree that is written here, and a command on the page that is run on it."""
    of_scans = {"streets", *WRITERS}
    configs = {file.stem for file in CONFIGS.glob("*.yaml") if "MinkUNet" in file.read_text()}
    assert configs == of_scans
    run = {config_of(words) for tool, *words in documented() if tool == "train_seg"}
    assert run - {None} == {*WRITERS}
    page = (ROOT / "docs/training_scans.md").read_text()
    assert [name for name in of_scans if f"`{name}`" not in page] == []


@pytest.mark.parametrize("command", commands(lambda tool: tool.startswith("train_")))
def test_commands_of_the_training_tools(place, monkeypatch, tmp_path, command):
    tool, *words = command
    monkeypatch.chdir(place)
    monkeypatch.setenv("GEONORM_CACHE", str(place / "cache"))
    own = {"FILE.ckpt": f"runs/{tool}/001/checkpoints/last.ckpt",
           "FOLDER": f"data/{config_of(words)}"}  # fmt: skip
    words = [own.get(word, word) for word in words]
    if words == ["--help"]:
        run_tool(tool, words, tmp_path)
        return
    if "--help" in words:
        with pytest.raises(SystemExit, match=r"^0$"):
            run_tool(tool, words, tmp_path)
        return
    if not {"check-data", "add-folds"} & {*words}:  # the runs of `place` draw
        words.append("--num_pictures=0")
    run_tool(tool, words, tmp_path)


@pytest.mark.parametrize("command", commands(lambda tool: tool == "predict"))
def test_commands_that_predict(place, monkeypatch, tmp_path, command):
    words = command[1:]
    monkeypatch.chdir(place)
    tool = "train_action" if words[-1].endswith((".mp4", ".avi")) else "train_seg"
    checkpoint = f"runs/{tool}/001/checkpoints/last.ckpt"
    words = ["1" if word == "60" else word for word in words]  # seconds to watch
    assert not geonorm_command(["predict", checkpoint, *words[1:], f"--out={tmp_path}"])
    assert len(list(tmp_path.iterdir())) >= len(words)


# On small data verify_invariance.py is run by its own tests; here on the built-in scans. CI itself
# runs all studies, as quick as they are here. `geonorm doctor` is run by test_doctor.py, `geonorm
# submit` by test_submit.py; test_export_command.py exports a smaller network and test_sharing.py
# shares it.
@pytest.mark.parametrize(
    "command",
    commands(lambda tool: not tool.startswith(("train_", "predict", "doctor", "submit"))),
)
def test_commands_of_the_other_tools(place, monkeypatch, capfd, command):
    tool, *words = command
    monkeypatch.chdir(place)
    if "--cuda" in words:  # half an hour of compiling; here only its options are read
        words.append("--help")
    if tool == "study" and words != ["list"]:
        own = {"NAME": "affine", "FOLDER": "data"}
        words = [own.get(word, word) for word in words if word != "--quick"] + ["--quick"]
    if tool == "evaluate_shift" and "--summarize" not in words:
        words += ["--corruptions", "fog", "snow"]
    fails = "batch" in words or ("cuda" in words and not torch.cuda.is_available())
    assert bool(run_as_program(monkeypatch, tool, words)) == fails, capfd.readouterr()


@pytest.mark.slow
def test_python_that_predicts(place, monkeypatch):
    monkeypatch.chdir(place)
    write(place / "a.ply", rows(500))
    page = (ROOT / "docs/predicting.md").read_text()
    scans, videos = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found = {}
    exec(scans, found)
    kinds = len(found["predictor"].classes)
    assert len(np.fromfile(place / "a.label", "<u4")) == len(found["numbers"]) == 500
    assert {*found["numbers"]} <= {*range(kinds)}
    exec(videos, found)
    assert found["scores"].shape == (len(found["predictor"].classes),) == (12,)
    assert found["scores"].sum() == pytest.approx(1)


@pytest.mark.slow
def test_python_of_the_documentation(tmp_path, monkeypatch):
    """Run README and pages, but for what needs a checkpoint, which the test above runs.

    Tutorials and the pages of the norms are run by test_documentation_pages.py, one by one.
    """
    pages = {*(ROOT / "docs").glob("*.md")} - {ROOT / "docs/index.md"}
    blocks = [block for path in (ROOT / "README.md", *sorted(pages))
              for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
              if "Predictor" not in block]  # fmt: skip
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})
