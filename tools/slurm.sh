#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh run: one task a process, by srun.
#   GPUS           processes in all (8)
#   GPUS_PER_NODE  processes a node (8, or GPUS if that is less)
#   CPUS_PER_TASK  cores a process (5)
#   GRES           of each node (gpu:$GPUS_PER_NODE); none on a partition without GPUs
#   PORT           where the processes meet on the first node (any)
#   SRUN_ARGS      more options of srun
set -euo pipefail
tool=$1 wanted=$2
shift 2

fail() {
    echo "tools/slurm_$tool.sh: error: $1" >&2
    echo "usage: tools/slurm_$tool.sh PARTITION JOB_NAME $wanted [ARGS of tools/$tool.py]" >&2
    exit 2
}

for name in PARTITION JOB_NAME $wanted; do
    [ "$#" -gt 0 ] || fail "$name is missing"
    args+=("$1")
    shift
done
number() {
    [[ ${!1} =~ ^[1-9][0-9]{0,4}$ ]] || fail "$1 must be a positive number, got '${!1}'"
}
GPUS=${GPUS:-8} && number GPUS
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))} && number GPUS_PER_NODE
CPUS_PER_TASK=${CPUS_PER_TASK:-5} && number CPUS_PER_TASK
PORT=${PORT:-$((20000 + RANDOM % 20000))} && number PORT
GRES=${GRES:-gpu:$GPUS_PER_NODE}
[ "$GRES" = none ] || gres=(--gres="$GRES")
command -v srun >/dev/null || fail 'there is no srun here; submit from a node of the cluster'

tools=$(dirname "${BASH_SOURCE[0]}")
# srun hands the environment on. SRUN_ARGS is a list of words.
# shellcheck disable=SC2086
MASTER_PORT=$PORT exec srun --partition="${args[0]}" --job-name="${args[1]}" ${gres[@]+"${gres[@]}"} \
    --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="$CPUS_PER_TASK" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash "$tools/python.sh" -u "$tools/$tool.py" "${args[@]:2}" --launcher slurm "$@"
