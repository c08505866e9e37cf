# shellcheck shell=sh
# What is sent: by the options, else the environment, else the scenario file, else as written at the end.

usage() {
    cat <<END
${0##*/} -i DEV [options] [SCENARIO.toml]
  -i DEV     interface                                   (DEV)
  -s BYTES   size of a frame, without its checksum       (PKT_SIZE)
  -d IP      destination                                 (DEST_IP)
  -m MAC     Ethernet address of the destination         (DST_MAC)
  -p PORT    destination port, or a range such as 80-89  (DST_PORT)
  -t N       threads                                     (THREADS)
  -f CPU     CPU of the first thread, from 0             (F_THREAD)
  -c N       clones of each packet                       (CLONE_SKB)
  -n N       packets to send, of each thread             (COUNT)
  -b N       packets handed to the driver at once        (BURST)
  -w NS      nanoseconds from packet to packet           (DELAY)
  -v         show all that pktgen is told and answers    (VERBOSE)
  -6         IPv6                                        (IP6)
  -h         this
Only in the environment: FLOWS, SOURCE and SOURCE_PORTS (each one, or a range A-B), SRC_MAC.
A scenario of balancer-flood gives what is not given otherwise. pktgen sends UDP, whatever it says.
END
}

while getopts "i:s:d:m:p:t:f:c:n:b:w:v6h" option; do
    case $option in
    i) DEV=$OPTARG ;;
    s) PKT_SIZE=$OPTARG ;;
    d) DEST_IP=$OPTARG ;;
    m) DST_MAC=$OPTARG ;;
    p) DST_PORT=$OPTARG ;;
    t) THREADS=$OPTARG ;;
    f) F_THREAD=$OPTARG ;;
    c) CLONE_SKB=$OPTARG ;;
    n) COUNT=$OPTARG ;;
    b) BURST=$OPTARG ;;
    w) DELAY=$OPTARG ;;
    v) VERBOSE=yes ;;
    6) IP6=6 ;;
    h)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done
shift $((OPTIND - 1))

need_pktgen

THREADS=${THREADS:-1}
if [ $# -gt 0 ]; then
    [ -r "$1" ] || fail 2 "$1 cannot be read"
    if [ "$(value family "$1")" = 6 ]; then
        IP6=${IP6:-6}
    fi
    [ -z "$(value fragment "$1")" ] || fail 2 "$1: pktgen sends whole packets"
    PKT_SIZE=${PKT_SIZE:-$(value frame_size "$1")}
    DEST_IP=${DEST_IP:-$(value destination "$1")}
    DST_MAC=${DST_MAC:-$(value destination_mac "$1")}
    SRC_MAC=${SRC_MAC:-$(value source_mac "$1")}
    DST_PORT=${DST_PORT:-$(value destination_port "$1")}
    SOURCE=${SOURCE:-$(value source "$1")}
    SOURCE_PORTS=${SOURCE_PORTS:-$(value source_ports "$1")}
    FLOWS=${FLOWS:-$(value flows "$1")}
    COUNT=${COUNT:-$(value count "$1")}
    rate=$(value rate "$1")
    if [ "${rate:-0}" -gt 0 ]; then
        DELAY=${DELAY:-$((1000000000 * THREADS / rate))}
    fi
fi
IP6=${IP6:-}
if [ -n "$IP6" ]; then
    PKT_SIZE=${PKT_SIZE:-80}
    SOURCE=${SOURCE:-2001:db8::1}
else
    PKT_SIZE=${PKT_SIZE:-60}
    SOURCE=${SOURCE:-198.18.0.1}
fi
SOURCE_PORTS=${SOURCE_PORTS:-1024-65534}
DST_PORT=${DST_PORT:-9}
SRC_MAC=${SRC_MAC:-}
FLOWS=${FLOWS:-1000}
COUNT=${COUNT:-100000}
F_THREAD=${F_THREAD:-0}
CLONE_SKB=${CLONE_SKB:-0}
BURST=${BURST:-1}
DELAY=${DELAY:-0}
VERBOSE=${VERBOSE:-}

[ -n "${DEV:-}" ] || fail 2 "no interface (-i); -h tells more"
[ -n "${DEST_IP:-}" ] || fail 2 "no destination (-d); -h tells more"
[ -n "${DST_MAC:-}" ] || fail 2 "no Ethernet address of the destination (-m); -h tells more"
[ "$COUNT" -gt 0 ] || fail 2 "-n $COUNT would never end"
