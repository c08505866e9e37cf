#!/bin/sh
# Each packet a new flow. pktgen goes on to the next address and the next port at once, so that all pairs come when the
# numbers of both have no common divisor. With -6 there is one source address, and a flow for each of its ports.
set -eu
here=$(dirname "$0")
# shellcheck source=functions.sh
. "$here/functions.sh"
# shellcheck source=parameters.sh
. "$here/parameters.sh"

[ "$CLONE_SKB" -eq 0 ] || fail 2 "-c $CLONE_SKB: a clone is of the same flow"
from=$(first "$SOURCE")
to=$from
hosts=1
if [ -z "$IP6" ]; then
    to=$(last "$SOURCE")
    hosts=$(($(number "$to") - $(number "$from") + 1))
fi
begin=$(first "$SOURCE_PORTS")
end=$(last "$SOURCE_PORTS")
# pktgen's bound lies behind the last port, and is a port itself.
[ "$end" -lt 65535 ] || end=65534
# Each thread has ports of its own.
share=$(((end - begin + 1) / THREADS))
while [ "$share" -gt 1 ] && [ "$(common_divisor "$hosts" "$share")" -gt 1 ]; do
    share=$((share - 1))
done
[ "$share" -gt 0 ] || fail 2 "there are fewer source ports than threads"
[ "$COUNT" -le $((hosts * share)) ] ||
    fail 2 "$hosts addresses and $share ports are not enough for $COUNT flows of a thread"

flows() {
    addresses "$1" "$from" "$to"
    ports "$1" $((begin + $2 * share)) "$share"
}

run
