#!/usr/bin/env bash
# Check geonorm on a GPU, in under ten minutes and with no network.
#   tools/gpu_check.sh pack           with a network: put into carried/ what the machine will need
#   tools/gpu_check.sh [FOLDER]       on the machine: build, test, train, measure; results in FOLDER
# The machine needs python3 with torch and numpy, and nvcc; a repository with carried/ is brought
# there. It may lack OpenBLAS, Open3D, PyAV and jsonargparse: what needs them says that it is skipped.
# Without a GPU it rehearses on the CPU what it can, says so, and exits with 2.
#   PYTHON=python3   the interpreter that has torch       JOBS=16      compilers at a time
#   ARCH=9.0         build for this instead of the GPU    BUDGET=600   seconds for everything
#   MINKOWSKI=built  take the MinkowskiEngine that is installed
set -uo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-python3}") || { echo "gpu_check: no ${PYTHON:-python3}" >&2; exit 1; }
carried=carried

if [ "${1:-}" = pack ]; then
    set -e
    mkdir -p "$carried"
    "$python" tools/install_minkowski.py --save-sdist "$carried/MinkowskiEngine-0.5.4.tar.gz"
    "$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$carried" \
        setuptools ninja pytest-timeout jsonargparse docstring-parser typeshed-client
    du -sh "$carried"
    exit
fi

results=$(realpath -m "${1:-gpu_check_results}")
mkdir -p "$results"
: >"$results/summary.txt"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

say() { echo "$*" | tee -a "$results/summary.txt"; }
skip() { say "SKIPPED $1: $2"; }
left() { echo $((${BUDGET:-600} - SECONDS)); }

# step NAME COMMAND...: run it into NAME.log within what is left of the budget.
step() {
    local name=$1 start=$SECONDS code
    shift
    [ "$(left)" -gt 5 ] || { skip "$name" "no time left of ${BUDGET:-600} s"; return 1; }
    timeout --kill-after=10 "$(left)" "$@" >"$results/$name.log" 2>&1
    code=$?
    if [ $code -eq 0 ]; then
        say "PASSED $name in $((SECONDS - start)) s: $(tail -n 1 "$results/$name.log")"
    elif [ $code -eq 124 ] && [[ $name == bench* ]]; then  # its rows are written one by one
        say "CUT OFF $name after $((SECONDS - start)) s, when ${BUDGET:-600} s were spent"
    else
        say "FAILED $name after $((SECONDS - start)) s, status $code: see $name.log"
        tail -n 15 "$results/$name.log"
        failures=$((failures + 1))
    fi
    return $code
}

can_import() { "$run" -c "import $1" >/dev/null 2>&1; }

"$python" -c 'import torch, numpy' || { echo "gpu_check: $python needs torch and numpy" >&2; exit 1; }
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    device=cuda
else
    device=cpu
    say "NO GPU: torch sees none. This is a rehearsal on the CPU of what can be rehearsed there;"
    say "nothing below has run on a GPU."
fi
{
    "$python" -c 'import platform, sys, torch
print("python", sys.version.split()[0], platform.platform(), "torch", torch.__version__)
for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    print(torch.cuda.get_device_properties(i))'
    nvcc --version 2>&1 | tail -n 2
    nvidia-smi 2>&1 | head -n 20
    git log -1 --format=%H 2>/dev/null
} >"$results/environment.txt"

# A venv of its own on top of the interpreter's packages, which stay as they are.
"$python" -m venv --without-pip "$work/venv"
run=$work/venv/bin/python
export PATH="$work/venv/bin:$PATH"
"$python" -c 'import site, sys, sysconfig
print(*{sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *filter(
    lambda p: "-packages" in p, sys.path)}, sep="\n")' \
    >"$("$run" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/parent.pth"
pip=("$run" -m pip --disable-pip-version-check install --no-index --no-deps)
# Only what the interpreter lacks; of setuptools also what is too old for pyproject.toml.
for wheel in "$carried"/*.whl; do
    name=${wheel##*/}
    name=${name%%-*}
    needed=$([ "$name" != setuptools ] || echo '; assert int(setuptools.__version__.split(".")[0]) > 76')
    can_import "$name$needed" || [ ! -e "$wheel" ] ||
        "${pip[@]}" --quiet --no-warn-script-location "$wheel"
done

minkowski() {
    if [ $device = cpu ] || [ "${MINKOWSKI:-}" = built ]; then
        if can_import MinkowskiEngine; then
            step minkowski "$run" tools/install_minkowski.py --self-test
        else
            skip minkowski "none is installed"
        fi
        return
    fi
    local options=(--cuda --wheel-dir "$results") sdist=("$carried"/MinkowskiEngine-*.tar.gz)
    [ -z "${JOBS:-}" ] || options+=(--jobs "$JOBS")
    [ -z "${ARCH:-}" ] || options+=(--arch $ARCH)
    [ ! -e "${sdist[0]}" ] || options+=(--sdist "${sdist[0]}")
    echo '#include <cblas.h>' | c++ -E -x c++ - >/dev/null 2>&1 || options+=(--blas torch)
    step minkowski "$run" tools/install_minkowski.py "${options[@]}"
}
# It compiles beside geonorm and the tests of the kernels, which do without it.
minkowski &
beside=($!)

step geonorm env MAX_JOBS="${JOBS:-$(nproc)}" "${pip[@]}" --no-build-isolation --no-cache-dir . &&
    "$run" -P -c 'import geonorm; print(*geonorm.backends().items(), sep="\n")' |
    tee -a "$results/summary.txt"

# tests NAME FILE...: those of the files' tests that ask for a GPU.
tests() {
    local name=$1 options=(-W default)
    shift
    can_import pytest_timeout || options+=(-o "addopts=-p no:dash")
    can_import pytest || { skip "$name" "pytest is not installed"; return; }
    step "$name" "$run" -P -m pytest -m cuda -q -rs "${options[@]}" "$@"
}
tests segment_kernels tests/ops/test_segment_norm_triton.py & # hundreds of kernels to compile each
beside+=($!)
tests axis_kernels tests/ops/test_axis_norm_triton.py &
beside+=($!)
tests operators tests/ops/test_cuda_ops.py tests/ops/test_triton_cuda.py tests/ops/test_sparse_conv.py
for process in "${beside[@]}"; do
    wait "$process" || failures=$((failures + 1))
done
tests models tests/models/test_cuda_models.py

if can_import jsonargparse; then
    options=(tools/verify_invariance.py --plain true --device $device)
    step invariance "$run" "${options[@]}" --json "$results/invariance.json"
    # The control: batch norm in our place must breach.
    step control bash -c '"$@" --norm batch 2>&1 | tee /dev/stderr | grep -c BREACH' control \
        "$run" "${options[@]}"
else
    skip invariance "jsonargparse is not installed"
fi

size=()
[ $device = cuda ] || size=(--steps 3 --points 1500)
step steps "$run" tools/gpu/steps.py --device $device "${size[@]}" --csv "$results/steps.csv"

# As many scans as train_seg's configuration asks for, and one of a size to measure.
"$run" -P -c 'import sys; from pathlib import Path; sys.path.insert(0, "tools")
from geonorm.training.invariance.plain import write_semantickitti; folder = Path(sys.argv[1])
write_semantickitti(folder / "many", 8, 4000); write_semantickitti(folder / "one", 1, 120_000)' \
    "$work"

missing=$(for name in jsonargparse lightning torchmetrics matplotlib; do
    can_import $name || echo -n "$name "
done)
if [ -n "$missing" ]; then
    skip train_seg "not installed: $missing"
else
    accelerator=$([ $device = cuda ] && echo gpu || echo cpu)
    steps=$([ $device = cuda ] && echo 200 || echo 4)
    step train_seg "$run" tools/train_seg.py fit \
        --config semantickitti_one_scan --data.root "$work/many" \
        --trainer.accelerator $accelerator --trainer.devices 1 --trainer.precision bf16-mixed \
        --trainer.max_steps "$steps" --trainer.enable_progress_bar false \
        --run_dir "$results/train_seg"
fi

bench() { # SUITE OPTION...
    local suite=$1
    shift
    step "bench_$suite" "$run" tools/bench.py --suite "$suite" --csv "$results/benchmarks.csv" \
        --scans "$work/one/sequences/00/velodyne/000000.bin" "$@"
}
if ! can_import jsonargparse; then
    skip bench "jsonargparse is not installed"
elif [ $device = cpu ]; then
    bench sparse --only 20,000x32 --seconds 0.5
else
    for suite in video sparse train; do
        bench $suite --seconds 0.5
    done
fi

say "$failures failed; all of it is in $results"
[ $failures -eq 0 ] || exit 1
[ $device = cuda ] || { say "NOT A GPU CHECK: nothing of this ran on a GPU."; exit 2; }
