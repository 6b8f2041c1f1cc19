#!/usr/bin/env bash
# All that a machine with an NVIDIA GPU and no network can show, in under ten minutes, the kernels' figures
# first. After each step what is known so far is in two files, which are all that has to come back:
# OUTPUT/<gpu>-<date>.json with the figures, and beside it a .tar.gz with the logs and all that was measured.
# At home `python benchmarks/collect.py RESULT.json` draws the pictures.
#
#   benchmarks/gpu.sh [WHEELS [OUTPUT]]
#
# Python (or what PYTHON names), torch, Triton and NumPy must be there. WHEELS is a folder with wheels of what
# else that Python lacks, made elsewhere with `pip download --no-deps --only-binary :all: --python-version`:
#   needed         filelock typer annotated-doc shellingham rich markdown-it-py mdurl pygments tomli-w
#   the pictures   matplotlib contourpy cycler fonttools kiwisolver packaging pillow pyparsing python-dateutil six
#   the tests      pytest iniconfig packaging pluggy; several at once: pytest-xdist execnet
#   the training   safetensors scikit-learn joblib threadpoolctl scipy, and narwhals for a new scikit-learn
#   some tests     requests charset-normalizer idna urllib3 certifi platformdirs
#   native kernel  nanobind
# Nothing is installed outside a temporary folder and this clone. Of a copy without .git, FASTNT_COMMIT says
# in the results which commit it is.
set -uo pipefail
SECONDS=0
cd "$(dirname "$0")/.." || exit 1
wheels=${1:-wheels}
output=${2:-benchmarks/results}
python=$(command -v "${PYTHON:-python3}") || exit 1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

gpu=$(timeout -k 5 20 nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
if [ -z "$gpu" ]; then
  echo "nvidia-smi names no GPU"
  exit 1
fi
if compgen -G "$wheels/*.whl" >/dev/null; then
  timeout -k 10 40 "$python" -m pip install --quiet --no-index --no-deps --target "$scratch/site" \
    "$wheels"/*.whl || echo "the wheels are not installed; going on with what is there"
fi
export PYTHONPATH="$PWD:$scratch/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 FASTNT_CACHE="$scratch/cache"
# The first import of torch with CUDA can take most of a minute.
timeout -k 10 150 "$python" -c '
import filelock, matplotlib, numpy, rich.console, tomli_w, torch, triton, typer.exceptions
assert torch.cuda.is_available(), "torch sees no GPU"' || exit 1
name=$(tr -cs '[:alnum:]' - <<<"$gpu" | tr '[:upper:]' '[:lower:]')$(date +%F)
result=$output/$name.json
partial=$scratch/$name
mkdir -p "$partial" "$output"
nvidia-smi >"$partial/nvidia-smi.log" 2>&1

# A step ends at a second of the whole run: what one does not need, the next ones have.
step() { # the second, name, command...
  local left=$(($1 - SECONDS)) name=$2 code=124
  shift 2
  echo "== $name, from second $SECONDS"
  if ((left > 5)); then
    timeout -k 10 "$left" "$@" >"$partial/$name.log" 2>&1
    code=$?
    tail -n 8 "$partial/$name.log"
  fi
  echo "$name $code" | tee -a "$partial/codes"
  timeout -k 2 30 "$python" benchmarks/collect.py "$partial" "$result" || echo "not all is collected"
  tar -C "$scratch" -czf "$partial.tar.gz" "$(basename "$partial")" &&
    mv "$partial.tar.gz" "$output/"
}

bench() { # the second, name, options...
  step "$1" "$2" "$python" -m fastnt bench --device cuda --skip kd_lib --output "$partial/$2" "${@:3}"
}

large=(--skip mse --shape 8192x32768 --shape 16800x128256 --shape 512x10)
small=(--shape 128x10 --shape 1024x10 --shape 4096x100 --shape 1024x1000 --shape 256x21841 --shape 64x128256)
step 190 launches "$python" benchmarks/graph_launch.py "$partial/launches.json"
bench 260 value_and_grad --mode value_and_grad "${large[@]}"
step 340 training "$python" -m fastnt train --device cuda --quiet --runs-dir "$partial/runs" --run digits
bench 390 autograd --mode autograd "${large[@]}"
bench 440 small --mode value_and_grad "${small[@]}"

# The native kernel, where there is a compiler; the GPU's figures do not need it.
# shellcheck disable=SC2016
step 470 native bash -c 'cmake -S . -B "$1" -DPython_EXECUTABLE="$2" && cmake --build "$1" --parallel &&
  cmake --install "$1" --prefix .' native "$scratch/build" "$python"

# Most of it is compiling hundreds of kernels: in several processes, where pytest-xdist is there. The
# options of pyproject.toml would have pytest-timeout there too; and tests that lack a module must not
# keep the others from running.
workers=()
if "$python" -c 'import xdist' 2>/dev/null; then workers=(-n 8); fi
mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
step 560 tests env PYTHONPATH="$PWD/benchmarks:$PYTHONPATH" "$python" -m pytest -q -m gpu \
  -o addopts=--import-mode=importlib -p gpu_tests --outcomes "$partial/tests.jsonl" \
  --continue-on-collection-errors ${workers[@]+"${workers[@]}"} "${files[@]}"
echo "$result"
