"""tools/gpu_check.sh names files that exist, and every test that asks for a GPU."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "gpu_check.sh"


def test_it_is_bash_and_names_files_that_exist() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    named = re.findall(r"\b(?:tools|tests)/[\w/]+\.(?:py|sh|yaml)\b", SCRIPT.read_text())
    assert len(named) >= 10
    assert [file for file in named if not (ROOT / file).is_file()] == []


def test_it_runs_every_file_with_tests_that_ask_for_a_gpu() -> None:
    asking = {
        str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"\bon_cuda\b|\btriton_device\b|mark\.cuda\b", path.read_text())
    } - {str(Path(__file__).relative_to(ROOT))}  # fmt: skip
    assert len(asking) >= 5
    assert asking <= set(re.findall(r"tests/[\w/]+\.py", SCRIPT.read_text()))


def test_without_an_interpreter_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, tmp_path], env={"PATH": "/usr/bin:/bin", "PYTHON": "python9"},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "gpu_check: no python9\n"
