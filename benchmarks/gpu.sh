#!/usr/bin/env bash
# All that a machine with an NVIDIA GPU and no network can show, in under ten minutes, the kernels' figures in
# the first five. After each step what is known so far is in one JSON file, OUTPUT/<gpu>-<date>.json, with its
# pictures beside it. If the run itself is killed, what its last step had measured is in OUTPUT/partial, from
# which collect.py makes the file again; it is removed when all is in that file.
#
#   benchmarks/gpu.sh [WHEELS [OUTPUT]]
#
# Python (or what PYTHON names), torch, Triton and NumPy must be there. WHEELS is a folder with wheels of what
# else that Python lacks, made elsewhere with `pip download --no-deps --only-binary :all: --python-version`:
#   needed         filelock platformdirs typer annotated-doc shellingham rich markdown-it-py mdurl pygments
#   the tests      pytest iniconfig packaging pluggy; several at once: pytest-xdist execnet
#   the training   safetensors scikit-learn joblib threadpoolctl scipy, and narwhals for a new scikit-learn
#   some tests     requests charset-normalizer idna urllib3 certifi
#   the pictures   matplotlib contourpy cycler fonttools kiwisolver pillow pyparsing python-dateutil six
#   native kernel  nanobind
# Nothing is installed outside a temporary folder and this clone.
set -uo pipefail
SECONDS=0
cd "$(dirname "$0")/.." || exit 1
wheels=${1:-wheels}
output=${2:-benchmarks/results}
python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)') || exit 1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if compgen -G "$wheels/*.whl" >/dev/null; then
  timeout -k 10 40 "$python" -m pip install --quiet --no-index --no-deps --target "$scratch/site" \
    "$wheels"/*.whl || echo "the wheels are not installed; going on with what is there"
fi
export PYTHONPATH="$PWD:$scratch/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 FASTNT_CACHE="$scratch/cache"
gpu=$(timeout -k 10 40 "$python" -c '
import filelock, numpy, platformdirs, rich.console, torch, triton, typer
assert torch.cuda.is_available(), "torch sees no GPU"
print(torch.cuda.get_device_name())') || exit 1
result=$output/$(tr -cs '[:alnum:]' - <<<"$gpu" | tr '[:upper:]' '[:lower:]')$(date +%F).json
partial=$output/partial
rm -rf "$partial"
mkdir -p "$partial"

# A step ends at a second of the whole run: what one does not need, the next ones have.
step() { # the second, name, command...
  local left=$(($1 - SECONDS)) name=$2 code=124
  shift 2
  : >"$partial/$name.log"
  echo "== $name, from second $SECONDS"
  if ((left > 5)); then
    timeout -k 10 "$left" "$@" >"$partial/$name.log" 2>&1
    code=$?
  fi
  tail -n 8 "$partial/$name.log"
  echo "$name $code" | tee -a "$partial/codes"
  timeout -k 2 30 "$python" benchmarks/collect.py "$partial" "$result" && return
  echo "not all is collected"
  return 1
}

bench() { # the second, name, options...
  step "$1" "$2" "$python" -m fastnt bench --device cuda --skip kd_lib --output "$partial/$2" "${@:3}"
}

large=(--skip mse --shape 8192x32768 --shape 16800x128256 --shape 512x10)
small=(--shape 128x10 --shape 1024x10 --shape 4096x100 --shape 1024x1000 --shape 256x21841 --shape 64x128256)
step 120 launches "$python" benchmarks/graph_launch.py "$partial/launches.json"
bench 220 value_and_grad --mode value_and_grad "${large[@]}"
bench 280 autograd --mode autograd "${large[@]}"
bench 350 small --mode value_and_grad "${small[@]}"

# The native kernel, where there is a compiler; the GPU's figures do not need it.
# shellcheck disable=SC2016
step 400 native bash -c 'cmake -S . -B "$1" -DPython_EXECUTABLE="$2" && cmake --build "$1" --parallel &&
  cmake --install "$1" --prefix .' native "$scratch/build" "$python"
step 440 training "$python" -m fastnt train --device cuda --quiet --runs-dir "$partial/runs" --run digits

# Most of it is compiling hundreds of kernels: in several processes, where pytest-xdist is there. The
# options of pyproject.toml would have pytest-timeout there too; and tests that lack a module must not
# keep the others from running.
workers=()
if "$python" -c 'import xdist' 2>/dev/null; then workers=(-n 8); fi
mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
step 540 tests env PYTHONPATH="$PWD/benchmarks:$PYTHONPATH" "$python" -m pytest -q -m gpu \
  -o addopts=--import-mode=importlib -p gpu_tests --outcomes "$partial/tests.jsonl" \
  --continue-on-collection-errors "${workers[@]}" "${files[@]}" && rm -rf "$partial"
echo "$result"
