#!/usr/bin/env bash
# Start and stop SLURM's daemons on this machine, for tests: one node, one partition `debug`, no accounting.
# Needs root and Debian's packages: apt-get install -y --no-install-recommends slurm-wlm slurm-client munge
#   slurm.sh start FOLDER   keeps configuration, state and logs in FOLDER; then: export SLURM_CONF=FOLDER/slurm.conf
#   slurm.sh stop FOLDER
set -euo pipefail
command=${1:?start or stop}
folder=$(realpath -m "${2:?a folder for configuration, state and logs}")

start() {
    trap '[ $? -eq 0 ] || stop' EXIT
    mkdir -p "$folder/state" "$folder/spool" "$folder/log" "$folder/bin"
    local host cpus memory
    host=$(hostname -s)
    cpus=$(nproc)
    memory=$(($(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo) - 512))
    cat >"$folder/slurm.conf" <<EOF
ClusterName=icm
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobs.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory Gres=gpu:1
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
    # A device that any machine can make stands for the GPU, so that requests for one are scheduled as on a cluster.
    [ -e "$folder/gpu0" ] || mknod "$folder/gpu0" c 1 3
    echo "NodeName=$host Name=gpu File=$folder/gpu0" >"$folder/gres.conf"
    # Without accounting `sacct` knows nothing; submitit asks it whether a job still runs.
    cat >"$folder/bin/sacct" <<'EOF'
#!/usr/bin/env bash
echo "JobID|State|NodeList"
scontrol -o show job 2>/dev/null | awk '{
    id = array = task = state = nodes = ""
    for (i = 1; i <= NF; i++) {
        split($i, pair, "=")
        if (pair[1] == "JobId") id = pair[2]
        if (pair[1] == "ArrayJobId") array = pair[2]
        if (pair[1] == "ArrayTaskId") task = pair[2]
        if (pair[1] == "JobState") state = pair[2]
        if (pair[1] == "NodeList") nodes = pair[2]
    }
    print (array == "" ? id : array "_" task) "|" state "|" nodes
}'
EOF
    chmod +x "$folder/bin/sacct"
    install -d -o munge -g munge -m 0755 "$folder/munge"
    [ -e "$folder/munge/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/munge.key")
    chown munge:munge "$folder/munge/munge.key"
    runuser -u munge -- munged --key-file="$folder/munge/munge.key" --socket="$folder/munge/munge.socket" \
        --pid-file="$folder/munge/munged.pid" --log-file="$folder/munge/munged.log" --seed-file="$folder/munge/munged.seed"
    slurmctld -f "$folder/slurm.conf"
    slurmd -f "$folder/slurm.conf"
    for _ in $(seq 120); do
        [ "$(SLURM_CONF=$folder/slurm.conf sinfo -h -o %t 2>/dev/null)" = idle ] && exit 0
        sleep 1
    done
    echo "SLURM did not become idle within two minutes; see $folder/log" >&2
    exit 1
}

stop() {
    for pid in slurmd.pid slurmctld.pid munge/munged.pid; do
        [ -e "$folder/$pid" ] && kill "$(cat "$folder/$pid")" 2>/dev/null || true
    done
}

case $command in
start) start ;;
stop) stop ;;
*) echo "usage: slurm.sh start|stop FOLDER" >&2 && exit 2 ;;
esac
