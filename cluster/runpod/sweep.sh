#!/usr/bin/env bash
# A sweep on RunPod: on one pod of 8 GPUs, or on each pod of an Instant Cluster.
#
# Usage, on the pod, or on every pod of the cluster at the same time:
#   git clone … && cd pgolf-sweep && make install && .venv/bin/pgolf-sweep data prepare   # up
#   cluster/runpod/sweep.sh sweeps/baseline.yaml [OPTIONS OF launch]                      # launch
#   runpodctl stop pod "$RUNPOD_POD_ID"      # down: one pod; a cluster ends in RunPod's console
# The same command again resumes. notes.md beside this file has the whole way.
#
# Assumes: 8 GPUs a pod; the checkout and the data at the same path on each pod; runs/ of the first
# pod on its own disk; on a cluster RunPod's PRIMARY_ADDR, NUM_NODES, NODE_RANK and NUM_TRAINERS.
#
# Ports: expose none of Ray's (6379, 8265, 10001); the pods of a cluster reach each other by their
# private network. With RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN on each pod (as a RunPod
# secret) Ray asks for it besides.
#
# Costs: 8xH100 SXM were 21.50 dollars an hour a pod on Community Cloud (2.69 a GPU) and 32 on
# Secure Cloud (3.99), as read from runpod.io/pricing on 2026-11-09. A pod costs until it is
# stopped, and its disk until it is removed, whether or not the sweep has ended.
#
# Tested by hand, once, on two nodes in network namespaces with RunPod's variables; in CI as shell
# alone. Not run: RunPod itself.
set -euo pipefail
sweep=${1:?usage: cluster/runpod/sweep.sh SWEEP.yaml [OPTIONS OF launch]}
shift
cd "$(dirname "$0")/../.."
export PATH=$PWD/.venv/bin:$PATH

if ((${NUM_NODES:-1} == 1)); then
  exec pgolf-sweep launch "$sweep" "$@"
fi

address=${PRIMARY_ADDR:?RunPod sets PRIMARY_ADDR on the pods of an Instant Cluster}:6379
noted=$(mktemp)
trap 'rm -f "$noted"' EXIT
export noted RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# symmetric-run exits with 0 where Ray does not start, so the first pod notes launch's own code. The
# other pods find out by a timeout of two minutes that the first is gone.
# shellcheck disable=SC2016 # expanded by the inner shell
ray symmetric-run --address "$address" --min-nodes "$NUM_NODES" --num-gpus "${NUM_TRAINERS:-8}" \
  --disable-usage-stats \
  -- bash -c 'code=0; pgolf-sweep launch "$@" || code=$?; echo "$code" >"$noted"; exit "$code"' \
  launch "$sweep" --address "$address" "$@" || true
[[ ${NODE_RANK:-0} != 0 ]] || exit "$(grep . "$noted" || echo 3)"
