# shellcheck shell=sh
# What the scripts have in common: they talk to pktgen by its files, and to the user.
# A script defines `flows DEVICE INDEX`, which sets the sources of a thread, and calls `run`.

PKTGEN=/proc/net/pktgen

# fail STATUS MESSAGE: the end.
fail() {
    status=$1
    shift
    echo "${0##*/}: $*" >&2
    exit "$status"
}

# note MESSAGE: shown with -v.
note() {
    if [ -n "$VERBOSE" ]; then
        echo "$*" >&2
    fi
}

# Ends where there is no pktgen.
need_pktgen() {
    [ -d "$PKTGEN" ] || modprobe -q pktgen 2>/dev/null || :
    [ -d "$PKTGEN" ] ||
        fail 1 "this kernel has no pktgen; send with: balancer-flood --interface DEV SCENARIO.toml"
}

# tell FILE COMMAND: has a file of pktgen obey.
tell() {
    file=$1
    shift
    note "$file: $*"
    { printf '%s\n' "$*" >"$PKTGEN/$file"; } 2>/dev/null ||
        fail 1 "pktgen refuses \"$*\" of $file"
}

# value KEY FILE: what a file of `key = value` says; nothing where it does not.
value() {
    awk -v key="$1" '
        { sub(/^[ \t]+/, "") }
        index($0, key) != 1 { next }
        {
            rest = substr($0, length(key) + 1)
            if (rest !~ /^[ \t]*=/) next
            sub(/^[ \t]*=[ \t]*/, "", rest)
            if (sub(/^"/, "", rest)) {
                sub(/".*$/, "", rest)
            } else {
                sub(/[ \t]*(#.*)?$/, "", rest)
                gsub(/_/, "", rest)
            }
            print rest
            exit
        }' "$2"
}

# first RANGE, last RANGE: the ends of `A-B`, or of `A` alone.
first() {
    echo "${1%%-*}" | tr -d ' '
}
last() {
    echo "${1##*-}" | tr -d ' '
}

# number ADDRESS: an IPv4 address as a number.
number() {
    echo "$1" | {
        IFS=. read -r a b c d
        echo $(((a << 24) + (b << 16) + (c << 8) + d))
    }
}

# common_divisor A B: the greatest.
common_divisor() {
    a=$1 b=$2
    while [ "$b" -gt 0 ]; do
        set -- "$b" $((a % b))
        a=$1 b=$2
    done
    echo "$a"
}

# ports DEVICE FIRST COUNT: the source ports, one after the other. pktgen's own bound is the port behind the last.
ports() {
    tell "$1" "udp_src_min $2"
    if [ "$3" -gt 1 ]; then
        tell "$1" "udp_src_max $(($2 + $3))"
    else
        tell "$1" "udp_src_max $2"
    fi
}

# addresses DEVICE FIRST LAST: the source addresses, one after the other.
addresses() {
    if [ -n "$IP6" ]; then
        tell "$1" "src6 $2"
    else
        tell "$1" "src_min $2"
        tell "$1" "src_max $3"
    fi
}

# What all threads send, but for its sources.
prepare() {
    device=$1
    tell "$device" "count $COUNT"
    tell "$device" "pkt_size $PKT_SIZE"
    tell "$device" "delay $DELAY"
    tell "$device" "clone_skb $CLONE_SKB"
    if [ "$BURST" -gt 1 ]; then
        tell "$device" "burst $BURST"
    fi
    tell "$device" "dst_mac $DST_MAC"
    if [ -n "$SRC_MAC" ]; then
        tell "$device" "src_mac $SRC_MAC"
    fi
    if [ -n "$IP6" ]; then
        tell "$device" "dst6 $DEST_IP"
    else
        tell "$device" "dst_min $DEST_IP"
        tell "$device" "dst_max $DEST_IP"
    fi
    port=$(last "$DST_PORT")
    tell "$device" "udp_dst_min $(first "$DST_PORT")"
    if [ "$port" != "$(first "$DST_PORT")" ]; then
        port=$((port + 1))
    fi
    tell "$device" "udp_dst_max $port"
    tell "$device" "flag UDPCSUM"
}

# Sends, and tells what was sent.
run() {
    tell pgctrl reset
    devices=
    index=0
    while [ "$index" -lt "$THREADS" ]; do
        cpu=$((F_THREAD + index))
        [ -e "$PKTGEN/kpktgend_$cpu" ] || fail 2 "pktgen has no thread on CPU $cpu"
        device="$DEV@$cpu"
        tell "kpktgend_$cpu" "add_device $device"
        prepare "$device"
        flows "$device" "$index"
        devices="$devices $PKTGEN/$device"
        index=$((index + 1))
    done
    # The write returns when all is sent; a signal to it ends the threads.
    trap : INT TERM
    { echo start >"$PKTGEN/pgctrl"; } 2>/dev/null || :
    trap - INT TERM
    # shellcheck disable=SC2086 # one word a device
    report $devices
    tell pgctrl reset
}

# report FILES: the sum of what their threads did.
report() {
    if [ -n "$VERBOSE" ]; then
        cat "$@" >&2
    fi
    awk -v name="${0##*/}" '
        / pkts-sofar:/ { for (i = 1; i < NF; i++) if ($i == "pkts-sofar:") sent += $(i + 1) }
        /^ *[0-9]+pps / { pps += $1; errors += $NF }
        END {
            printf "%s: sent %d, errors %d, pps %d\n", name, sent, errors, pps
            exit sent == 0
        }' "$@" || fail 1 "nothing was sent; see dmesg"
}
