#!/bin/sh
# FLOWS flows in turn: as many ports of the first source address. Each thread sends all of them.
set -eu
here=$(dirname "$0")
# shellcheck source=functions.sh
. "$here/functions.sh"
# shellcheck source=parameters.sh
. "$here/parameters.sh"

[ "$CLONE_SKB" -eq 0 ] || fail 2 "-c $CLONE_SKB: a clone is of the same flow"
begin=$(first "$SOURCE_PORTS")
# pktgen's bound lies behind the last port, and is a port itself.
[ $((begin + FLOWS)) -le 65535 ] || fail 2 "from port $begin on there are fewer than $FLOWS ports"

flows() {
    address=$(first "$SOURCE")
    addresses "$1" "$address" "$address"
    ports "$1" "$begin" "$FLOWS"
}

run
