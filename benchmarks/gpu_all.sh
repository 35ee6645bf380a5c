#!/usr/bin/env bash
# Everything that needs a GPU, in one command of under 8 minutes: versions, tests, the cost of a meeting, the benchmark
# grid, compute-sanitizer, a profile, and the goals one by one.
#
#   benchmarks/gpu_all.sh [FOLDER [PYTHON]]       default: benchmarks/results, and python3
#   DRY_RUN=1 benchmarks/gpu_all.sh ...           print the steps, run none
#
# Each step writes FOLDER/gpu-STEP.txt; how it ended stands in FOLDER/gpu-steps.txt, and whatever that was, the next one
# runs. The package is used from this checkout; nothing is installed. Exit status: 0 if no step failed, 1 if one did, 2 if
# the backend cannot run here: then nothing was run, and nothing written.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:-$root/benchmarks/results}
python=${2:-python3}
dry=${DRY_RUN:-}

command -v "$python" >/dev/null || { echo "no such python: $python" >&2; exit 2; }
case $python in */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;; esac
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset NUMBA_ENABLE_CUDASIM NUMBA_DISABLE_CUDA NVIDIA_TF32_OVERRIDE

able='
import sys
from scratchrnn import backends
reason = backends.REGISTRY["cuda"].why_unavailable()
sys.exit(reason and f"nothing was run: {reason}")'
[ -n "$dry" ] || "$python" -c "$able" || exit 2

mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
cd "$root" || exit 2
rows=$out/gpu.jsonl
steps=$out/gpu-steps.txt

step() { # NAME SECONDS COMMAND...: run it for at most so long; status 77 says that it had nothing to run
    local name=$1 seconds=$2 status began=$SECONDS log=$out/gpu-$1.txt
    shift 2
    if [ -n "$dry" ]; then
        printf '%-12s %4s s  %s\n' "$name" "$seconds" "$(tr -s '\n ' ' ' <<<"$*")"
        return
    fi
    echo "== $name (at most $seconds s)"
    timeout --kill-after=5 "$seconds" "$@" >"$log" 2>&1 </dev/null
    status=$?
    case $status in
        0) echo "$name: succeeded in $((SECONDS - began)) s" ;;
        77) echo "$name: NOT RUN: $(tail -n 1 "$log")" ;;
        124 | 137) echo "$name: STOPPED after $seconds s" ;;
        *) echo "$name: FAILED with $status after $((SECONDS - began)) s" ;;
    esac | tee -a "$steps"
    case $status in
        0 | 77) ;;
        *) tail -n 15 "$log" ;;
    esac
}

versions='
    nvidia-smi
    "$0" --version
    "$0" -m pip list 2>/dev/null | grep -i -E "numba|cuda|torch|cupy|numpy|cublas|cudnn|nvvm|pytest|hypothesis"
    "$0" -m scratchrnn info'

# pytest that tells what failed so far when its time is over
pytest='import signal, sys, pytest
signal.signal(signal.SIGTERM, signal.default_int_handler)
sys.exit(pytest.main())'

# both tools at once: most of their time is compiling
sanitizer='
    found=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
    [ -n "$found" ] || { echo "compute-sanitizer is not on the path, nor under /usr/local/cuda*"; exit 77; }
    for tool in memcheck racecheck; do
        "$found" --tool "$tool" --error-exitcode 9 "$0" -m tests.cuda.sanitize lstm &
        running="${running:-} $!"
    done
    for process in $running; do wait "$process" || worst=$?; done
    exit "${worst:-0}"'

[ -n "$dry" ] || echo "gpu_all.sh at $(git rev-parse --short=12 HEAD 2>/dev/null || echo 'no commit'), $(date -u +%FT%TZ)" >"$steps"

step info 25 bash -c "$versions" "$python"
# side by side: most of their time is compiling
step tests-cuda 130 "$python" -c "$pytest" -q --maxfail=8 -W default -p no:cacheprovider -m gpu tests/cuda &
[ -z "$dry" ] || wait
step tests-engine 130 "$python" -c "$pytest" -q --maxfail=8 -W default -p no:cacheprovider -m gpu tests --ignore=tests/cuda &
wait
step barrier 30 "$python" benchmarks/cuda_barrier.py --out "$rows"
step grid 160 "$python" benchmarks/run.py --device cuda --seconds 145 --out "$rows"
step sanitizer 60 bash -c "$sanitizer" "$python"
step profile 30 "$python" benchmarks/cuda_profile.py --out "$rows"
step compare 10 "$python" benchmarks/cuda_predict.py "$rows"
step summary 10 "$python" benchmarks/cuda_summary.py "$rows"

if [ -z "$dry" ]; then
    echo
    cat "$steps"
    echo
    cat "$out/gpu-summary.txt"
    ! grep -q -E ': (FAILED|STOPPED) ' "$steps"
fi
