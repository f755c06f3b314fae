#!/usr/bin/env bash
# A real Slurm on this one machine, in namespaces of its own: each node has an address, a host name,
# a process table, a local disk at /tmp, and eight GPUs that only Slurm believes in. /srv is the
# file system that all share. Every process, and what is written outside /srv, ends with this one.
#
# Usage: unshare --mount --net --pid --uts --fork --kill-child --mount-proc \
#          bash slurm_room.sh NODES SHARED_FOLDER KEPT_PATH
# KEPT_PATH stays visible on the nodes if it lies below /tmp (a checkout there, with its Python).
set -euo pipefail
nodes=$1 shared=$2 kept=$3

own_tmp() {
  # Not by way of an open file: mount(8) would take its name, which is hidden by then.
  mkdir -p /run/kept
  mount --bind "$kept" /run/kept
  mount -t tmpfs tmpfs /tmp
  [[ $kept != /tmp/* ]] || { mkdir -p "$kept" && mount --bind /run/kept "$kept"; }
}

if [[ ${NODE:-} ]]; then # the same script, once more inside a node
  hostname "$NODE"
  ip link set lo up
  ip address add "$ADDRESS/24" dev eth0
  ip link set eth0 up
  own_tmp
  mount -t tmpfs tmpfs /dev/shm
  slurmd -D -N "$NODE" >"/srv/log/$NODE.log" 2>&1 &
  wait
  exit
fi

mount --make-rprivate /
mount --bind "$shared" /srv
mkdir -p /srv/log
for private in /run /etc/slurm /etc/munge; do mount -t tmpfs tmpfs "$private"; done
mkdir -p /run/munge /run/slurm

names=() hosts="127.0.0.1 localhost"$'\n'"10.77.0.1 control"$'\n'
for ((n = 1; n <= nodes; n++)); do
  names+=("node$n")
  mkdir -p "/run/slurm/node$n"
  hosts+="10.77.0.$((10 + n)) node$n"$'\n'
done
printf %s "$hosts" >/run/hosts
mount --bind /run/hosts /etc/hosts
cluster=$(IFS=,; echo "${names[*]}")

hostname control
ip link set lo up
ip link add bridge type bridge
ip address add 10.77.0.1/24 dev bridge
ip link set bridge up

(umask 077 && head -c 128 /dev/urandom >/etc/munge/munge.key)
munged --foreground --force --key-file=/etc/munge/munge.key --seed-file=/run/munge/seed \
  --log-file=/srv/log/munged.log --pid-file=/run/munge/pid >/srv/log/munged.out 2>&1 &

# linuxproc, since cgroups are not to be had everywhere: it knows a job's processes by their parents
# and so loses Ray's daemons, which the sbatch file must stop by itself.
# KillWait: a loaded machine may need more than Slurm's thirty seconds for that. The scheduler looks
# every second, not only twice a minute, for a requeued job.
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=room
SlurmctldHost=control
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
CredType=cred/munge
MpiDefault=none
StateSaveLocation=/run/slurm/state
SlurmdSpoolDir=/run/slurm/%n
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
GresTypes=gpu
MailProg=/bin/true
ReturnToService=2
KillWait=120
SchedulerParameters=bf_interval=1,sched_interval=1
NodeName=$cluster CPUs=8 RealMemory=4000 Gres=gpu:8 State=UNKNOWN
PartitionName=gpu Nodes=$cluster Default=YES MaxTime=INFINITE State=UP
CONF
echo "CgroupPlugin=cgroup/v1" >/etc/slurm/cgroup.conf
echo "AutoDetect=off" >/etc/slurm/gres.conf
echo "NodeName=$cluster Name=gpu File=/run/slurm/gpu[0-7]" >>/etc/slurm/gres.conf
mkdir -p /run/slurm/state
touch /run/slurm/gpu{0..7}
slurmctld -D >/srv/log/slurmctld.log 2>&1 &

for ((n = 1; n <= nodes; n++)); do
  ip netns add "node$n"
  ip link add "port$n" type veth peer name eth0 netns "node$n"
  ip link set "port$n" master bridge up
  NODE=node$n ADDRESS=10.77.0.$((10 + n)) ip netns exec "node$n" \
    unshare --mount --pid --uts --fork --kill-child --mount-proc bash "$0" "$@" &
done
wait
