#!/usr/bin/env bash
# All that a machine with an NVIDIA GPU and no network can show, in under ten minutes, the kernels' figures
# first; the result is one JSON file, benchmarks/results/<gpu>-<date>.json, and its pictures.
#
#   benchmarks/gpu.sh [WHEELS [OUTPUT]]
#
# WHEELS is a folder with wheels of what that machine's Python lacks (make it elsewhere with
# `pip download --no-deps`); Python, torch and Triton must be there. Nothing is installed outside a
# temporary folder and this clone.
set -uo pipefail
cd "$(dirname "$0")/.."
wheels=${1:-wheels}
output=${2:-benchmarks/results}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if compgen -G "$wheels/*.whl" >/dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --target "$work/site" "$wheels"/*.whl || exit 1
fi
export PYTHONPATH="$PWD:$work/site" PYTHONUNBUFFERED=1 FASTNT_CACHE="$work/cache"
"$python" -c 'import torch; assert torch.cuda.is_available(), "torch sees no GPU"' || exit 1

# The native kernel, where there is a compiler; the GPU's figures do not need it.
if ! { cmake -S . -B "$work/build" && cmake --build "$work/build" --parallel &&
  cmake --install "$work/build" --prefix .; } >"$work/build.log" 2>&1; then
  echo "no native kernel: $(tail -n 1 "$work/build.log")"
fi

step() { # seconds, name, command...
  local limit=$1 name=$2
  shift 2
  echo "== $name"
  timeout "$limit" "$@"
  echo "$name $?" >>"$work/codes"
}
bench=("$python" -m fastnt bench --device cuda --skip kd_lib)
step 240 bench "${bench[@]}" --mode value_and_grad --output "$work/bench"
step 60 autograd "${bench[@]}" --mode autograd --shape 512x10 --shape 8192x32768 --output "$work/autograd"
# Most of it is compiling hundreds of kernels: in several processes, where pytest-xdist is there. Tests that lack
# a module here must not keep the others from running.
workers=()
if "$python" -c 'import xdist' 2>/dev/null; then workers=(-n 8); fi
step 150 pytest "$python" -m pytest -q -m gpu "${workers[@]}" --continue-on-collection-errors --junitxml "$work/pytest.xml"
step 90 train "$python" -m fastnt train --device cuda --quiet --runs-dir "$work/runs" --run digits
"$python" benchmarks/collect.py "$work" "$output"
