#!/usr/bin/env bash
# Turn minutes on a GPU into figures: bench/gpu.sh [--dry] [STAGE...]
#
# Stages, in order of worth (default: all but depth and suite):
#   smoke  train, resume, test, predict: each task, bf16, eager and compiled       about  90 s
#   steps  training steps of ViT-B, L, H, Mask R-CNN, UperNet; syncs and kernels   about 200 s
#   gpu    the tests that skip without a GPU                                        about  40 s
#   data   JPEG to device, images a second                                          about  40 s
#   depth  is there a depth gap? needs DATA, a folder with Arrow sets train and val about 240 s
#   suite  all tests, without the GPU, on this machine's Python and torch           about 240 s
#
# Each stage writes into $OUT (default work_dirs/gpu) while it runs; one that fails or runs out of time does not stop the
# next. Wheels in .whl are installed first, into work_dirs/site (not with --dry). SECONDS_STEPS and SECONDS_DEPTH bound two stages,
# FIRST is the first job of bench/gpu_steps.py, and TASKS those of bench/gpu_smoke.py.
# --dry: the same with small models on the CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=$(mkdir -p "${OUT:-work_dirs/gpu}" && cd "${OUT:-work_dirs/gpu}" && pwd)
DRY=
[[ ${1:-} == --dry ]] && DRY=--dry && shift
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 KINETO_LOG_LEVEL=99
if [[ -z $DRY ]] && compgen -G '.whl/*.whl' > /dev/null; then
    SITE=$PWD/work_dirs/site
    [[ -e $SITE/done ]] || { $PYTHON -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$SITE" .whl/*.whl && touch "$SITE/done"; } || exit
    export PYTHONPATH=$SITE:$PWD
fi

stage() {  # NAME SECONDS COMMAND...
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    echo "== $name"
    timeout --signal=TERM --kill-after=10 "$limit" "$@" > "$OUT/$name.log" 2>&1
    local rc=$?
    echo "$name rc=$rc seconds=$((SECONDS - start))" | tee -a "$OUT/stages.txt"
    tail -c 1500 "$OUT/$name.log"
}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2> /dev/null | tee "$OUT/stages.txt"
STAGES=${*:-smoke steps gpu data}
for name in $STAGES; do
    case $name in
    smoke) stage smoke 170 $PYTHON bench/gpu_smoke.py "$OUT/smoke.jsonl" ${TASKS:+--tasks $TASKS} $DRY ;;
    steps) stage steps $((${SECONDS_STEPS:-200} + 40)) \
        $PYTHON bench/gpu_steps.py "$OUT/steps.jsonl" --seconds "${SECONDS_STEPS:-200}" --first "${FIRST:-0}" $DRY ;;
    gpu) stage gpu 100 $PYTHON -m pytest -q -rs -n 4 -k 'what_waits_is or a_gpu or no_step_waits_for_the_guard' \
        tests/incubation/test_modes.py tests/engine/test_no_waits.py tests/benchmark/test_benchmark.py \
        tests/recovery/test_divergence.py ;;
    data) stage data 90 $PYTHON bench/gpu_data.py "$OUT/data.json" $DRY ;;
    depth) stage depth $((${SECONDS_DEPTH:-170} + 90)) $PYTHON bench/gpu_depth.py "${DATA:-data/photographs}" \
        "$OUT/depth.jsonl" --seconds "${SECONDS_DEPTH:-170}" $DRY ;;
    suite) stage suite 280 env CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $PYTHON -m pytest -q -n 14 --dist worksteal -rf ;;
    *) echo "unknown stage $name: smoke, steps, gpu, data, depth, suite" >&2 ;;
    esac
done
cat "$OUT/stages.txt"
