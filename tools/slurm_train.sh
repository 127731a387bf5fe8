#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# GPUS (default: 8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS (for sbatch and srun, e.g. '--time=24:00:00') say
# on what. Submits itself; 120 s before the time limit (SIGUSR1) or when preempted (SIGTERM) the ranks write a checkpoint
# and end with exit code 75, the job is requeued and resumes. So it is after a lost process (exit code 71, or 128 + N if
# signal N has ended one, but not Ctrl-C's 130), while it has begun anew less than MAX_RESTARTS (default: 0) times.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
PER_NODE=$((GPUS < GPUS_PER_NODE ? GPUS : GPUS_PER_NODE))
ROOT=${MMINCUBATION_ROOT:-$(cd "$(dirname "$0")/.." && pwd)} # a job runs a copy of this file, elsewhere
read -ra EXTRA <<< "${SRUN_ARGS:-}"
RESOURCES=(--partition="$PARTITION" --job-name="$JOB_NAME" --ntasks="$GPUS" --ntasks-per-node="$PER_NODE"
    --gres="gpu:$PER_NODE" --cpus-per-task="${CPUS_PER_TASK:-5}" "${EXTRA[@]}")
if [ -z "${SLURM_JOB_ID:-}" ]; then
    export MMINCUBATION_ROOT=$ROOT
    # Without B: the signal goes to the ranks themselves, not to this script.
    exec sbatch --requeue --signal=USR1@120 --open-mode=append --output="$JOB_NAME-%j.log" "${RESOURCES[@]}" \
        "$ROOT/tools/slurm_train.sh" "$@"
fi
trap : TERM USR1 # not '': srun would inherit that; bash runs it once srun has ended
# What a stopped run says that goes on.
export MMINCUBATION_COMMAND=$(printf '%q ' "$ROOT/tools/slurm_train.sh" "$@")
# Two jobs may share their first machine. Below the ports that Linux gives out by itself (32768 and up).
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
CODE=0
# --kill-on-bad-exit: a rank that dies must not leave the others waiting. --resume begins anew if there is nothing yet.
srun "${RESOURCES[@]}" --kill-on-bad-exit=1 \
    python -u "$ROOT/tools/train.py" "$CONFIG" --launcher slurm --resume "${@:4}" || CODE=$?
LOST=$((CODE == 71 || CODE >= 128 && CODE != 130))
if [ "$CODE" -eq 75 ] || { [ "$LOST" -eq 1 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_RESTARTS:-0}" ]; }; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$CODE"
