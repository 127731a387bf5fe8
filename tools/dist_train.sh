#!/usr/bin/env bash
# Train on several devices: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# On several machines run it on each, with NNODES=<their number> MASTER_ADDR=<one of them>, and PORT=<a free one of it,
# default: 29500>. On one machine a free port is found, so several such commands may run side by side.
# MAX_RESTARTS=N begins again, from the newest checkpoint, after up to N failures (default: 0). SIGTERM and SIGUSR1 go to
# all ranks; they have TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds (default: 120) to write a checkpoint. Exit code: the rank's.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# What a stopped run says that goes on.
export MMINCUBATION_COMMAND=$(printf '%q ' "$0" "$@")
export PYTHONPATH=$ROOT:${PYTHONPATH:-}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}
ADDR=${MASTER_ADDR:-127.0.0.1}
MEET=$ADDR:${PORT:-29500}
if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    ADDR=127.0.0.1
    MEET=$ADDR:0
fi
# Ranks that begin again must not find the addresses of those before them: a store of their own each time.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
LOCAL=()
[ "$ADDR" != 127.0.0.1 ] || LOCAL=(--local_addr=127.0.0.1)
exec python -m mmincubation.engine.torchrun --signals_to_handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    --max_restarts="${MAX_RESTARTS:-0}" --nnodes="${NNODES:-1}" --nproc_per_node="$GPUS" \
    --rdzv_backend=c10d --rdzv_endpoint="$MEET" --rdzv_id="${PORT:-29500}" "${LOCAL[@]}" \
    "$ROOT/tools/train.py" "$CONFIG" --launcher pytorch "${@:3}"
