#!/usr/bin/env bash
# On the head of an autoscaling Ray cluster: ask for nodes, sweep, let the nodes go.
#
# Usage: cluster/ray-cluster/sweep.sh NODES SWEEP.yaml [OPTIONS OF launch]
#
# Assumes a cluster of cluster/ray-cluster/aws.yaml or one like it; that file says what it costs and
# which ports stay closed. GPUS (8) is the number of GPUs of a node. Exits as `launch` does; with 3
# if no node came. However it ends, the request for nodes is taken back, and idle ones go.
#
# Tested: tests/cluster/test_ray_cluster.py.
set -euo pipefail
nodes=${1:?usage: cluster/ray-cluster/sweep.sh NODES SWEEP.yaml [OPTIONS OF launch]}
sweep=${2:?usage: cluster/ray-cluster/sweep.sh NODES SWEEP.yaml [OPTIONS OF launch]}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
PATH=$here/../../.venv/bin:$PATH

trap 'python "$here/nodes.py" 0' EXIT
python "$here/nodes.py" "$nodes" --gpus "${GPUS:-8}"
pgolf-sweep launch "$sweep" --address auto "$@"
