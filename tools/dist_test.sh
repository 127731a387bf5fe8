#!/usr/bin/env bash
# Evaluate on several devices: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# On several machines run it on each, with NNODES=<their number> NODE_RANK=<0, 1, ...> MASTER_ADDR=<the first>, and
# PORT=<a free one of it, default: 29500>. On one machine a free port is found.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [options of tools/test.py]" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
ROOT=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$ROOT:${PYTHONPATH:-}
MEET=(--node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    MEET=(--rdzv_backend=c10d --rdzv_endpoint=127.0.0.1:0 --local_addr=127.0.0.1)
fi
exec python -m mmincubation.engine.torchrun --signals_to_handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    --nnodes="${NNODES:-1}" --nproc_per_node="$GPUS" "${MEET[@]}" \
    "$ROOT/tools/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
