#!/bin/sh
# Runs the scripts in a guest whose kernel has pktgen, and counts what arrives at the other end of a veth: for machines
# whose own kernel has none. The guest is qemu without KVM, so what it says of speed means nothing.
#
# Takes qemu-system-x86_64, apt-get, dpkg-deb, iproute2 and ethtool, and balancer-flood as
# `cargo build --release -p balancer-flood` leaves it. Nothing of this machine is changed but target/pktgen-guest.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
flood=${CARGO_TARGET_DIR:-$root/target}/release/balancer-flood
work=$root/target/pktgen-guest
packages="" # what has been unpacked

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

for program in qemu-system-x86_64 apt-get dpkg-deb ip ethtool; do
    command -v "$program" >/dev/null || fail "$program is missing"
done
[ -x "$flood" ] || fail "$flood is missing: cargo build --release -p balancer-flood"

# unpack PACKAGE: fetches a package of Debian and unpacks it below $work.
unpack() {
    packages="$packages $1"
    [ -d "$work/$1" ] && return
    (cd "$work" && apt-get download -q "$1" && dpkg-deb -x "$1"_*.deb "$1.part")
    mv "$work/$1.part" "$work/$1"
}

mkdir -p "$work"
kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
[ -n "$kernel" ] || fail "apt knows no linux-image-cloud-amd64"
unpack "$kernel"
unpack busybox-static

# The guest's whole file system.
guest=$work/guest
rm -rf "$guest"
mkdir -p "$guest/bin" "$guest/proc" "$guest/sys" "$guest/dev" "$guest/pktgen" "$guest/modules"
cp "$work/busybox-static/bin/busybox" "$guest/bin/"
for program in "$flood" "$(command -v ip)" "$(command -v ethtool)"; do
    cp "$program" "$guest/bin/"
    ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$guest$(dirname "$library")"
        cp -L "$library" "$guest$library"
    done
done
find "$work/$kernel" \( -name 'pktgen.ko*' -o -name 'veth.ko*' \) -exec cp {} "$guest/modules/" \;
cp "$here"/*.sh "$here"/../scenarios/*.toml "$guest/pktgen/"
cp "$here/guest-init.sh" "$guest/init"
(cd "$guest" && find . | "$work/busybox-static/bin/busybox" cpio -o -H newc >"$work/initramfs" 2>/dev/null)

# What the guest's kernel says goes to one serial line, what the scripts say to the other.
rm -f "$work/output"
timeout 300 qemu-system-x86_64 -accel tcg -cpu max,-cx16 -m 1024 -smp 2 -display none -no-reboot \
    -kernel "$work/$kernel"/boot/vmlinuz-* -initrd "$work/initramfs" \
    -append "console=ttyS0 quiet panic=-1 net.ifnames=0" \
    -serial "file:$work/console" -serial "file:$work/output" -monitor none ||
    fail "the guest did not end; see $work/console"
tr -d '\r' <"$work/output"
grep -q '^RC 0' "$work/output" || fail "failed; see $work/console"
