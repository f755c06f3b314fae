#!/usr/bin/env bash
# Machines of your own, without a scheduler: the commands that make them one Ray cluster.
#
# Usage:
#   cluster/local/node.sh head [RAY START OPTIONS]            # up: on the first machine
#   cluster/local/node.sh join HEAD_IP [RAY START OPTIONS]    #     on every other one
#   pgolf-sweep launch sweeps/baseline.yaml --address HEAD_IP:6379      # launch: on any of them
#   cluster/local/node.sh down                                # down: on each, the head last
# One machine alone needs none of it: `pgolf-sweep launch sweeps/baseline.yaml` starts Ray itself.
#
# Assumes: the same Python and the same pinned packages on each machine (a checkout with `make
# install`; this script takes its .venv), the data set at the same path, and no other Ray of the
# same user there: `down` is `ray stop`, which ends them all. Results come back through Ray to the
# machine that runs `launch`; its runs folder lies on a local disk.
#
# Ports: whoever reaches Ray's ports runs code as you. Keep them in a private network or VPN. An
# address outside one is refused, unless Ray asks for a token: the same RAY_AUTH_MODE=token and
# RAY_AUTH_TOKEN on each machine, for `launch` too. Ray also asks for one, unbidden, where a sweep
# once ran on that machine alone and left ~/.ray/auth_token: copy that file to the others.
#
# Costs: the electricity; 8 H100 draw about 6 to 10 kW with their host, some 1 to 3 dollars an hour
# (10.2 kW at most: NVIDIA's data sheet of the DGX H100).
#
# Settings, by environment: HEAD_ADDRESS (of this machine, for `head`), RAY_PORT (6379),
# WAIT_SECONDS (300: how long `join` waits for the head). No secret stands in this file.
#
# Tested (tests/cluster/test_slurm.py) on two nodes that are network namespaces of one machine.
# Not run: two machines.
set -euo pipefail
PATH=$(cd "$(dirname "$0")/../.." && pwd)/.venv/bin:$PATH
port=${RAY_PORT:-6379}

usage() {
  sed -n 's/^#   \(cluster.*\)/\1/p' "$0" >&2
  exit 2
}

require_private() {
  local vpn='100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])'
  local ranges="^(10|127|192\.168|172\.(1[6-9]|2[0-9]|3[01])|$vpn)\."
  [[ $1 =~ $ranges || ${RAY_AUTH_MODE:-} == token ]] && return
  echo "error: $1 is no address of a private network, and Ray would run anyone's code there" >&2
  echo "next: a private address, or RAY_AUTH_MODE=token with a RAY_AUTH_TOKEN on each machine" >&2
  exit 2
}

[[ $# -ge 1 ]] || usage
what=$1
shift
case $what in
  head)
    head=${HEAD_ADDRESS:-$(getent ahostsv4 "$(hostname)" | awk '$1 !~ /^127\./ {print $1; exit}')}
    if [[ ! $head ]]; then
      echo "error: $(hostname) has no address that others reach; set HEAD_ADDRESS" >&2
      exit 2
    fi
    require_private "$head"
    ray start --head --node-ip-address="$head" --port="$port" --disable-usage-stats "$@"
    echo "next: cluster/local/node.sh join $head   # on every other machine" >&2
    ;;
  join)
    [[ $# -ge 1 ]] || usage
    head=$1
    shift
    require_private "$head"
    until (exec 3<>"/dev/tcp/$head/$port") 2>/dev/null; do
      if ((SECONDS > ${WAIT_SECONDS:-300})); then
        echo "error: no Ray head answers at $head:$port; is it up, and the port open?" >&2
        exit 3
      fi
      sleep 1
    done
    ray start --address="$head:$port" --disable-usage-stats "$@"
    ;;
  down) ray stop ;;
  *) usage ;;
esac
