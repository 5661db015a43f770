"""`geonorm export` of a checkpoint of videos."""

import json

import pytest
import torch

pytest.importorskip("onnxruntime", reason="pip install 'geonorm[export]'")
import onnxruntime as ort
from train_action import main as train

from geonorm.__main__ import main
from geonorm.training import ClipPredictor
from helpers.action_runs import FILMS, QUICK

pytestmark = pytest.mark.filterwarnings("default")  # as users run it


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return a checkpoint of one step."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEONORM_CACHE", str(folder / "cache"))
        patch.setenv("GEONORM_RUN_DIR", "")
        train(["fit", *FILMS, *QUICK, f"--run_dir={folder / 'run'}", "--num_pictures=0",
               "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"])  # fmt: skip
    return folder / "run/checkpoints/last.ckpt"


def clips(frames):
    return torch.randn(3, 3, frames, 32, 32, generator=torch.Generator().manual_seed(0))


def expected(checkpoint, video):
    with torch.no_grad():
        scores = ClipPredictor(checkpoint).module.model(video)
    assert scores.std() > 1e-3  # the last layer starts at zero
    return scores


@pytest.mark.slow  # 9 s
def test_onnx_with_what_its_users_must_know(checkpoint, tmp_path, capsys):
    path = tmp_path / "new" / "a.onnx"
    assert main(["export", str(checkpoint), str(path)]) is None
    said = capsys.readouterr().out
    assert "takes clips (batch, 3, frames, 32, 32) in [0, 1], less the mean (" in said
    session = ort.InferenceSession(path)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == ClipPredictor(checkpoint).classes
    assert (told["frames"], len(json.loads(told["mean"]))) == ("4", 3)
    (found,) = session.run(None, {session.get_inputs()[0].name: clips(20).numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected(checkpoint, clips(20)))


@pytest.mark.slow
def test_a_program_without_our_operators(checkpoint, tmp_path):
    path = tmp_path / "a.pt2"
    assert main(["export", str(checkpoint), str(path)]) is None
    program = torch.export.load(path)
    assert not any("geonorm" in str(node.target) for node in program.graph.nodes)
    found = program.module()(clips(24))
    torch.testing.assert_close(found, expected(checkpoint, clips(24)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt2"]


@pytest.mark.slow
def test_a_compiled_package(checkpoint, tmp_path):
    path = tmp_path / "a.pt2"
    assert main(["export", str(checkpoint), str(path), "--compile=true"]) is None
    found = torch._inductor.aoti_load_package(path)(clips(24))
    torch.testing.assert_close(found, expected(checkpoint, clips(24)))


@pytest.mark.parametrize(("words", "message"), [
    (["a.pt"], "expected a file that ends in .onnx or .pt2; got a.pt"),
    (["a.onnx", "--compile=true"], "--compile is of .pt2; leave it out or name another file"),
])  # fmt: skip
def test_bad_input(checkpoint, words, message):
    assert main(["export", str(checkpoint), *words]) == f"geonorm export: {message}"
