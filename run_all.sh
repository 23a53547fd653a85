#!/usr/bin/env bash
# The whole kit with one command: ./run_all.sh --help explains.
set -euo pipefail

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
  --gpus N         how many GPUs to train and predict on (default: all there are, or the CPU)
  --from STAGE     start with this notebook: 01 to 06, or its name (03_train)
  --to STAGE       stop after this notebook
  --set KEY=VALUE  one parameter of one notebook, 03_train.max_iter=100; may be repeated
  --force          run stages again that are finished

A finished stage is skipped, an interrupted one goes on where it was.

Set-up needs Python 3.10 or newer with venv and pip, gcc, a network, and about 9 GB of disk. It makes .venv with the
versions of constraints.txt, once. Where the active environment (a conda environment made from environment.yml, say)
has all that is needed, that is used as it is and no .venv is made.
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

# What .venv is made from; where this changes, it is brought up to date.
recipe() {
    (cd "$root" && { pwd -P && cat constraints.txt pyproject.toml kitlib/kaggle/{detectron2_wheel,wheel}.py; } | cksum)
}

runs() { "$venv/bin/python" -c '' >/dev/null 2>&1; }

is_ready() { [[ -f $stamp && "$(<"$stamp")" == "$(recipe)" ]] && runs; }

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
    *Connection*Error* | *Timeout* | *NameResolution* | *"etwork is unreachable"* | *ProxyError* | *SSLError*)
        die "the package index cannot be reached; check the network or 'pip config list', then run this again" ;;
    *) die "the set-up failed for the reason above; run this again once it is mended" ;;
    esac
}

make_venv() {
    local python
    python="$(find_python '(3, 13)' || find_python '(3, 99)')" ||
        die "no Python from 3.10 on with venv and pip is on PATH; install one (on Debian: apt install python3-venv)"
    say "setting up .venv with $("$python" --version), once; this takes a few minutes and about 9 GB"
    rm -rf "$venv"
    part "$python" -m venv "$venv"
}

install() {
    # Compiling every file takes longer than the rest; Python compiles those that are used.
    local pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt)
    part "${pip[@]}" --upgrade pip
    "$venv/bin/python" -m kitlib.kaggle.detectron2_wheel "$venv/wheels" # says by itself what fails
    part "${pip[@]}" --find-links "$venv/wheels" --editable ".[detectron2,coco,dev]"
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
    if [[ -f $stamp ]] && runs; then
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
    if [[ -n $python && ! "$(dirname "$python")" -ef "$venv/bin" ]]; then
        lacking="$(cd "$root" && "$python" -m kitlib.environment 2>/dev/null)" && return
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
    cd "$root" && exec "$python" -m pytest -n auto --maxprocesses 4 --dist loadfile "${@:2}"
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
