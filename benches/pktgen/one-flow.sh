#!/bin/sh
# One flow: the first source address and port.
set -eu
here=$(dirname "$0")
# shellcheck source=functions.sh
. "$here/functions.sh"
# shellcheck source=parameters.sh
. "$here/parameters.sh"

flows() {
    address=$(first "$SOURCE")
    addresses "$1" "$address" "$address"
    ports "$1" "$(first "$SOURCE_PORTS")" 1
}

run
