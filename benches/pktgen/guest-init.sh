#!/bin/busybox sh
# shellcheck shell=dash
# The first process of the guest that in-guest.sh starts: sends with each script, and compares what has arrived.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec >/dev/ttyS1 2>&1

# end STATUS: says how it went, and switches the guest off.
end() {
    echo "RC $1"
    sync
    poweroff -f
}

for module in veth pktgen; do
    # The kernel may have it built in.
    insmod "/modules/$module.ko"* || :
done
# By its path: the shell has an `ip` of its own, which knows no veth.
/bin/ip link add veth0 type veth peer name veth1
/bin/ip link set veth0 address 02:00:00:00:00:01
/bin/ip link set veth1 address 02:00:00:00:00:02
/bin/ip link set lo up
/bin/ip link set veth0 up
/bin/ip link set veth1 up
# Whole checksums, and frames one by one.
ethtool -K veth0 tx off tso off gso off >/dev/null
uname -r

# arrives COUNT SCRIPT ARGUMENTS: whether so many packets are sent, and as many arrive.
arrives() {
    count=$1 script=/pktgen/$2
    shift 2
    rm -f /counted /ready
    balancer-flood --receive --interface veth1 --for 60s --count "$count" >/counted 2>/ready &
    until [ -s /ready ]; do usleep 10000; done
    "$script" "$@" || return 1
    # What is too much has a moment to arrive.
    wait $!
    cat /counted
    grep -q "^received $count," /counted
}

status=0
check() {
    arrives "$@" || {
        echo "FAILED: $*"
        status=1
    }
}
cd /pktgen || end 1
check 20000 one-flow.sh -i veth0 -n 20000 one-flow.toml
check 20000 many-flows.sh -i veth0 -n 20000 established.toml
check 20000 many-flows.sh -i veth0 -n 10000 -t 2 -s 128 -p 443 established.toml
check 20000 new-flows.sh -i veth0 -n 20000 -w 0 new.toml
check 20000 new-flows.sh -i veth0 -n 10000 -t 2 -w 0 new.toml
check 20000 new-flows.sh -6 -i veth0 -n 20000 -w 0 ipv6.toml
check 20000 ipv6.sh -i veth0 -n 20000 ipv6.toml
check 500 one-flow.sh -i veth0 -n 500 -w 1000000 -d 192.0.2.10 -m 02:00:00:00:00:02
end "$status"
