#!/bin/sh
# FLOWS flows in turn, over IPv6.
exec "$(dirname "$0")/many-flows.sh" -6 "$@"
