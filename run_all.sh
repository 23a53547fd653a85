#!/usr/bin/env bash
# The whole kit with one command: ./run_all.sh --help explains.
set -euo pipefail
export PYTHONUTF8=1 # names of files and folders in any locale

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
venv="$root/.venv"
stamp="$venv/set-up-is-whole" # written last: a .venv without it was interrupted, and is built anew

usage() {
    cat <<'END'
From raw images of cells to a valid submission.csv, through six notebooks.

  ./run_all.sh [OPTIONS]    set up what is missing, then run the notebooks (the main job)
  ./run_all.sh setup        set up only
  ./run_all.sh test [...]   set up, then run the tests, on up to 4 cores; what follows goes to pytest (test -k rle)
  ./run_all.sh bench [...]  set up, then run the benchmarks into outputs/bench.json (bench rle metric)
  ./run_all.sh --help       this page

Options of the main job:
  --profile NAME   demo (the default: minutes on a CPU), cpu, t4, paper or gold; see notebooks/profiles/
  --data DIR       the competition's folder; synthetic cells are made where it is left out
  --out DIR        where results go (default: outputs/NAME of the profile)
  --gpus N         how many GPUs to train and predict on (default: all there are, or the CPU); t4, paper and gold are
                   made for GPUs, and run without one only where --gpus 0 says so
  --folds-at-once N
                   trainings of folds side by side, on an equal share of the GPUs each (default: 1, on all of them)
  --from STAGE     start with this notebook: 01 to 06, or its name (03_train)
  --to STAGE       stop after this notebook
  --set KEY=VALUE  one parameter of one notebook, 03_train.max_iter=100; may be repeated
  --help-parameters STAGE
                   list the parameters of a notebook (or all): type, bounds, default, help, what a change affects
  --force          run stages again that are finished
  --engine ray     run trainings and predictions on the nodes of a Ray cluster; --data and --out are folders that all
                   nodes see, see docs/gpu-server.md
  --address HOST:PORT
                   of the Ray cluster (default: the one that was started on this host)
  --dry-run        tell what the run would take (time, memory, disk, what does not fit) and do nothing; kit plan does
                   the same, and calculates it for a GPU that is not here
  --track mlflow   keep the run in MLflow as well, which needs: .venv/bin/pip install mlflow-skinny

A finished stage is skipped, an interrupted one goes on where it was.

Set-up needs Python 3.10 or newer with venv and pip, gcc, a network, and about 9 GB of disk. It makes .venv with the
versions of constraints.txt, once. Where the active environment (a conda environment made from environment.yml, say)
has all that is needed, that is used as it is and no .venv is made.

The environment variable KIT_TORCH chooses the build of PyTorch in .venv, which is then used whatever environment is
active. Another choice builds .venv anew; without the variable it stays as it is:
  KIT_TORCH=default  PyPI's, for CUDA 13: NVIDIA driver 580 or newer, compute capability 7.5 or newer (T4, RTX 20, A100)
  KIT_TORCH=cu126    for CUDA 12.6: NVIDIA driver 525 or newer, compute capability 5.0 to 9.0 (P100, V100 and newer)
  KIT_TORCH=cpu      without CUDA, about 3 GB in all
The last two come from PyTorch's own index, https://download.pytorch.org/whl/.
END
}

say() { printf 'run_all.sh: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# The first Python on PATH from 3.10 to $1 that can make a .venv.
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if "$name" -c "import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= $1)" \
            >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    return 1
}

# The build of PyTorch: the one asked for, else that of the .venv that is there.
torch_build() {
    local chosen="${KIT_TORCH-}"
    [[ -n $chosen ]] || chosen="$(cat "$venv/torch-build" 2>/dev/null)" || chosen=default
    echo "$chosen"
}

# What pip is held to: for PyTorch's own builds their versions' suffixes, without the packages of PyPI's CUDA.
constraints() {
    local build
    build="$(torch_build)"
    if [[ $build == default ]]; then
        cat constraints.txt
    else
        sed -E -e '/^(cuda|nvidia)-/d' -e "s/^(torch|torchvision)==([^ ]+)/\\1==\\2+$build/" constraints.txt
    fi
}

# What .venv is made from; where this changes, it is brought up to date.
recipe() {
    (cd "$root" && { pwd -P && cat constraints.txt pyproject.toml kitlib/kaggle/detectron2_wheel.py; } | cksum)
}

runs() { "$venv/bin/python" -c '' >/dev/null 2>&1; }

# Whether .venv was made with the build of PyTorch that is asked for.
has_torch_build() { [[ "$(cat "$venv/torch-build" 2>/dev/null || echo default)" == "$(torch_build)" ]]; }

is_ready() { [[ -f $stamp && "$(<"$stamp")" == "$(recipe)" ]] && has_torch_build && runs; }

# Runs a part of the set-up with its output on the terminal; where it fails, says why in one sentence.
part() {
    local said
    said="$("$@" 2>&1 | show | tail -n 40)" || explain "$said"
}

# Shows what passes through it. (`tee >(cat >&2)` may do so only after the sentence that is to come last.)
show() {
    local line
    while IFS= read -r line || [[ -n $line ]]; do
        printf '%s\n' "$line" >&2
        printf '%s\n' "$line"
    done
}

explain() {
    case "$1" in
    *"No space left"* | *"Disk quota"*)
        die "the disk is full; free about 9 GB for $root and the temporary folder (TMPDIR), then run this again" ;;
    *"ermission denied"* | *"Read-only file system"*)
        die "a folder cannot be written (its name is above); change its permissions, then run this again" ;;
    *"No matching distribution found for torch"*)
        die "PyTorch's index has no such build for this Python, or it cannot be reached; see KIT_TORCH in --help" ;;
    *Connection*Error* | *Timeout* | *NameResolution* | *"etwork is unreachable"* | *ProxyError* | *SSLError*)
        die "the package index cannot be reached; check the network or 'pip config list', then run this again" ;;
    *) die "the set-up failed for the reason above; run this again once it is mended" ;;
    esac
}

make_venv() {
    local python build size=9
    build="$(torch_build)"
    [[ $build != cpu ]] || size=3
    python="$(find_python '(3, 13)' || find_python '(3, 99)')" ||
        die "no Python from 3.10 on with venv and pip is on PATH; install one (on Debian: apt install python3-venv)"
    say "setting up .venv with $("$python" --version), once; this takes a few minutes and about $size GB"
    [[ $build == cpu || -e /proc/driver/nvidia ]] ||
        say "this machine shows no NVIDIA driver; KIT_TORCH=cpu ./run_all.sh setup would spare most of that"
    rm -rf "$venv"
    part "$python" -m venv "$venv"
    echo "$build" >"$venv/torch-build"
}

install() {
    # Compiling every file takes longer than the rest; Python compiles those that are used.
    local pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-compile) build
    build="$(torch_build)"
    constraints >"$venv/constraints.txt"
    pip+=(--constraint .venv/constraints.txt)
    [[ $build == default ]] || pip+=(--extra-index-url "https://download.pytorch.org/whl/$build")
    part "${pip[@]}" --upgrade pip
    "$venv/bin/python" -m kitlib.kaggle.detectron2_wheel "$venv/wheels" # says by itself what fails
    part "${pip[@]}" --find-links "$venv/wheels" --editable ".[detectron2,coco,own,lite0,ray,optuna,dev]"
}

# In a subshell whose descriptor 9 holds a lock: it lasts until the last child is gone, so that two calls never work
# on one .venv, not even when one of them was killed and its pip lives on.
set_up() (
    cd "$root"
    if command -v flock >/dev/null && ! flock --nonblock 9; then
        say "another set-up is at work here; waiting for it to end"
        flock 9
    fi
    is_ready && exit
    if [[ -f $stamp ]] && has_torch_build && runs; then
        say "bringing .venv up to date"
        rm "$stamp"
    else
        make_venv
    fi
    install
    recipe >"$stamp"
) 9<"$root/run_all.sh"

# Sets $python to one that has everything: the active one as it is, or .venv's.
choose() {
    local lacking=""
    python="$(command -v python3 || command -v python || true)"
    if [[ -z ${KIT_TORCH-} && -n $python && ! "$(dirname "$python")" -ef "$venv/bin" ]]; then
        lacking="$(cd "$root" && "$python" -m kitlib.runtime.environment 2>/dev/null)" && return
    fi
    if ! is_ready; then
        [[ -z ${CONDA_PREFIX-} ]] || say "the active environment lacks ${lacking:-Python}; using .venv"
        set_up
    fi
    python="$venv/bin/python"
    # Compiled once, the libraries are imported in a third of the time: by some twenty processes in the main job.
    unset PYTHONDONTWRITEBYTECODE
    export VIRTUAL_ENV="$venv" PATH="$venv/bin:$PATH"
}

case "${KIT_TORCH:-default}" in
default | cu126 | cpu) ;;
*) die "KIT_TORCH is '${KIT_TORCH:0:80}', but it may be default, cu126 or cpu; see ./run_all.sh --help" ;;
esac

case "${1-}" in
-h | --help | help)
    usage
    ;;
setup)
    choose
    say "ready: $python"
    ;;
test)
    choose
    cd "$root" && exec "$python" -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "${@:2}"
    ;;
bench)
    choose
    cd "$root" && exec "$python" tests/benchmarks/run.py "${@:2}"
    ;;
"" | -*)
    choose
    exec "$python" -m kitlib.cli run "$@"
    ;;
*)
    die "unknown command '$1': it is setup, test, bench, or an option of the main job; see ./run_all.sh --help"
    ;;
esac
