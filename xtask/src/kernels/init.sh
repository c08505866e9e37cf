#!/bin/busybox sh
# shellcheck shell=dash
# The first process of a guest. Runs the steps in /plan and tells their outcomes on the second serial line; the kernel
# has the first.
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs run /run
exec </dev/null >/dev/ttyS1 2>&1
echo "BOOTED $(uname -r)"

while read -r module; do
    insmod "/modules/$module.ko" || echo "module $module cannot be loaded"
done </modules/order

# step NAME COMMAND: runs it, and tells its exit status.
step() {
    name=$1
    shift
    echo "STEP $name"
    "$@"
    echo "STATUS $? $name"
}
# The kernel has nothing to complain about.
quiet() {
    ! dmesg | grep -E -A 20 'WARNING: |BUG: |Oops'
}
# shellcheck source=/dev/null
. /plan
echo DONE
poweroff -f
