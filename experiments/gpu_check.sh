#!/usr/bin/env bash
# Everything that one GPU can show of the kit, in at most 12 minutes and without a network: --help explains.
set -euo pipefail
export PYTHONUTF8=1 PYTHONUNBUFFERED=1

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
carried="$root/.gpu-check"
out="${OUT:-$root/outputs/gpu-check}"
python="${PYTHON:-python3}"

usage() {
    cat <<'END'
experiments/gpu_check.sh prepare [DATA]
    With a network, in the environment of ./run_all.sh setup: fills .gpu-check/, which git ignores, with
      wheels/   what a machine with PyTorch and the usual scientific packages lacks, for Python 3.12 on x86-64 Linux
      data/     a copy of DATA, the competition's folder or a small one of its layout (default: synthetic cells)
experiments/gpu_check.sh
    On the machine with the GPU (Python 3.12, torch 2.11 or newer, torchvision, numpy, pandas, scipy, scikit-image,
    scikit-learn, opencv, pillow, matplotlib, jinja2, pyyaml, click, tqdm, tensorboard, joblib, tifffile, pytest,
    pytest-timeout, hypothesis), without a network, at most 12 minutes:
      tests     pytest -m gpu: steps, predictions and resuming as on the CPU, in fp32, bf16 and fp16; too little memory
      plan      kit plan for t4, paper and gold: training images/s, predicted frames/s, GPU memory
      training  300 iterations of r50 on the cells of .gpu-check/data, and its score on the images left out
    Results lie in $OUT, or outputs/gpu-check: tests.txt, plan-*.txt and .json, training.json. It exits with 1 if
    any part failed.
experiments/gpu_check.sh --cpu
    The same parts as far as a CPU can: the tests on the CPU, kit plan for demo, 4 iterations of tiny.
END
}

say() { printf 'gpu_check.sh: %s\n' "$*" >&2; }

# Wheels: what PyPI has as a wheel is downloaded, the rest is packed from this environment.
prepare() {
    local data="${1-}"
    mkdir -p "$carried/wheels"
    cd "$root"
    python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$carried/wheels" --constraint constraints.txt \
        annotated-types omegaconf hydra-core portalocker pycocotools pydantic pydantic-core termcolor \
        typing-extensions typing-inspection yacs
    python - "$carried/wheels" <<'END'
import sys
from importlib import metadata
from pathlib import Path

from kitlib.kaggle import detectron2_wheel, image

folder = Path(sys.argv[1])
detectron2_wheel.build(folder)
for name in ("antlr4-python3-runtime", "fvcore", "iopath"):
    found = metadata.distribution(name)
    (folder / detectron2_wheel.file_name(found.name, found.version)).write_bytes(image.repack(found))
END
    rm -rf "$carried/data"
    if [[ -n $data ]]; then
        cp -RL "$data" "$carried/data"
    else
        python -m kitlib.cli synth "$carried/data" --size 520x704 --images 20
    fi
    du -sh "$carried"/*
}

# Installs the carried wheels whose packages are missing, into a folder of their own.
install() {
    local site
    site="$(mktemp -d)"
    "$python" - "$carried/wheels" "$site" <<'END'
import importlib.metadata as metadata
import subprocess
import sys
from pathlib import Path


def is_missing(name):
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return True
    return False


folder, site = sys.argv[1:]
wheels = [str(p) for p in sorted(Path(folder).glob("*.whl")) if is_missing(p.name.split("-")[0].replace("_", "-"))]
if wheels:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", site, *wheels], check=True)
END
    export PYTHONPATH="$root:$site"
}

failed=()

# Runs one part for at most $2 seconds; its output goes to $out/$1.txt as well.
part() {
    local name="$1" seconds="$2" status=0
    shift 2
    say "$name"
    timeout "$seconds" "$@" 2>&1 | tee "$out/$name.txt" || status=$?
    ((status == 0)) || failed+=("$name ($status)")
}

check() {
    local mark="gpu" profiles="t4 paper gold" gpus=1 training=(--preset r50 --iterations 300)
    if [[ ${1-} == --cpu ]]; then
        mark="not gpu" profiles="demo" gpus=0 training=(--preset tiny --iterations 4 --cpu)
    fi
    [[ -d $carried/data ]] || { say ".gpu-check/data is missing; run experiments/gpu_check.sh prepare"; exit 1; }
    mkdir -p "$out"
    cd "$root"
    install
    part tests 170 "$python" -m pytest -q -m "$mark" -p no:cacheprovider tests/devices/test_gpu.py
    local profile
    for profile in $profiles; do
        part "plan-$profile" 100 "$python" -m kitlib.cli plan --profile "$profile" --data "$carried/data" \
            --gpus "$gpus" --out "$out/run" --json "$out/plan-$profile.json"
    done
    part training 200 "$python" experiments/gpu_check.py "$carried/data" "$out/training.json" "${training[@]}"
    ((${#failed[@]} == 0)) || { say "failed: ${failed[*]}"; exit 1; }
    say "all passed; results in $out"
}

case "${1-}" in
prepare) prepare "${2-}" ;;
"" | --cpu) check "${1-}" ;;
*) usage ;;
esac
