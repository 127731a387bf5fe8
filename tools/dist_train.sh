#!/usr/bin/env bash
# Train on several devices: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
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
export PYTHONPATH=$ROOT:${PYTHONPATH:-}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}
exec python -m mmincubation.compat.torchrun --signals_to_handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    --max_restarts="${MAX_RESTARTS:-0}" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$ROOT/tools/train.py" "$CONFIG" --launcher pytorch "${@:3}"
