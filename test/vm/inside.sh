#!/bin/busybox sh
# The virtual machine's second part, as process 1 of the shared root: what an init would set up, then the tests.
export PATH="$1/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname tbuild-vm
# As systemd does: the session is two levels down, and what is above it gives no CPU controller.
cd /sys/fs/cgroup || exit
echo '+memory +cpu +pids' >cgroup.subtree_control
mkdir -p user.slice/session.scope
echo '+memory +pids' >user.slice/cgroup.subtree_control
echo $$ >user.slice/session.scope/cgroup.procs

cd "$1" || exit
echo "tbuild-vm: Linux $(uname -r), cgroup $(/usr/bin/stat -f -c %T /sys/fs/cgroup), node $(node --version), $(nproc) processors"
mounted=$(wc -l </proc/self/mountinfo)
set --
while read -r argument; do set -- "$@" "$argument"; done </run/arguments
CI=true setsid node --experimental-vm-modules --disable-warning=ExperimentalWarning node_modules/jest/bin/jest.js "$@" 2>&1
status=$?
[ "$(wc -l </proc/self/mountinfo)" = "$mounted" ] || { echo 'tbuild-vm: the tests left mounts'; status=1; }
echo "tbuild-vm: up $(cut -d ' ' -f 1 /proc/uptime) s"
echo "tbuild-vm: exit $status"
sync
poweroff -f
