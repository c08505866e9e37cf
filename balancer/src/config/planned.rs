//! Sections the daemon refuses for now. They stand in the schema, so that their names are taken.

use super::key::{Key, Section, Sections, Table};
use super::kind::Later;

pub(super) static LIMIT: Key<Section> = Key::optional(
    "limit",
    Section(&Table {
        header: "limit",
        keys: &[
            &Key::required(
                "rate",
                Later::Text,
                "How many in a second, minute, hour or day.",
            )
            .not_yet(),
            &Key::optional("burst", Later::Integer, "How many at once.").not_yet(),
            &Key::optional("per", Later::Text, "What is counted together.").not_yet(),
        ],
    }),
    "The rate of new connections or packets.",
)
.not_yet();

pub(super) static CONNECTIONS: Key<Section> = Key::optional(
    "connections",
    Section(&Table {
        header: "connections",
        keys: &[
            &Key::required(
                "above",
                Later::Integer,
                "How many are allowed at the same time.",
            )
            .not_yet(),
            &Key::optional("per", Later::Text, "What is counted together.").not_yet(),
        ],
    }),
    "The number of connections at the same time.",
)
.not_yet();

pub(super) static HEALTH: Key<Section> = Key::optional(
    "health",
    Section(&Table {
        header: "[service.health]",
        keys: &[
            &Key::required(
                "check",
                Later::Words(&["tcp", "http", "udp", "icmp"]),
                "How a backend is asked.",
            )
            .not_yet(),
            &Key::optional("path", Later::Text, "The path an HTTP check asks for.").not_yet(),
            &Key::optional(
                "expect",
                Later::Text,
                "The HTTP status codes of a healthy backend.",
            )
            .not_yet(),
            &Key::default(
                "interval",
                r#""2s""#,
                Later::Text,
                "The time between two checks.",
            )
            .not_yet(),
            &Key::default(
                "timeout",
                r#""1s""#,
                Later::Text,
                "How long an answer may take.",
            )
            .not_yet(),
            &Key::default(
                "rise",
                "2",
                Later::Integer,
                "After how many good answers a backend is up.",
            )
            .not_yet(),
            &Key::default(
                "fall",
                "3",
                Later::Integer,
                "After how many failures a backend is down.",
            )
            .not_yet(),
            &Key::default(
                "on_down",
                r#""keep""#,
                Later::Words(&["keep", "reset", "reassign"]),
                "What known connections to a dead backend get.",
            )
            .not_yet(),
        ],
    }),
    "Health checks.",
)
.not_yet();

pub(super) static FIREWALL: Key<Section> = Key::optional(
    "firewall",
    Section(&Table {
        header: "[firewall]",
        keys: &[
            &Key::default(
                "input",
                r#""accept""#,
                Later::Words(&["accept", "drop"]),
                "Policy for packets to the box.",
            )
            .not_yet(),
            &Key::default(
                "forward",
                r#""accept""#,
                Later::Words(&["accept", "drop"]),
                "Policy for packets through it.",
            )
            .not_yet(),
            &Key::default(
                "output",
                r#""accept""#,
                Later::Words(&["accept", "drop"]),
                "Policy for packets from it.",
            )
            .not_yet(),
            &Key::optional("rule", Sections(&FIREWALL_RULE), "The rules, in order.").not_yet(),
        ],
    }),
    "The packet filter.",
)
.not_yet();

static FIREWALL_RULE: Table = Table {
    header: "[[firewall.rule]]",
    keys: &[
        &Key::required("name", Later::Text, "The rule's name.").not_yet(),
        &Key::required(
            "chain",
            Later::Words(&["input", "forward", "output"]),
            "Which packets it sees.",
        )
        .not_yet(),
        &Key::optional(
            "protocol",
            Later::TextOrInteger,
            "The protocol; left out: all.",
        )
        .not_yet(),
        &Key::optional("source", Later::List, "Source networks.").not_yet(),
        &Key::optional("destination", Later::List, "Destination networks.").not_yet(),
        &Key::optional("source_port", Later::List, "Source ports and ranges.").not_yet(),
        &Key::optional(
            "destination_port",
            Later::List,
            "Destination ports and ranges.",
        )
        .not_yet(),
        &Key::optional("in_interface", Later::Text, "Where the packet came in.").not_yet(),
        &Key::optional("out_interface", Later::Text, "Where the packet goes out.").not_yet(),
        &Key::optional("state", Later::List, "The states of its connection.").not_yet(),
        &LIMIT,
        &CONNECTIONS,
        &Key::required(
            "action",
            Later::Words(&["accept", "drop", "reject", "log"]),
            "What happens to it.",
        )
        .not_yet(),
        &Key::optional(
            "reject_with",
            Later::Text,
            "What a rejected sender is told.",
        )
        .not_yet(),
        &Key::optional(
            "log",
            Section(&Table {
                header: "log",
                keys: &[
                    &Key::optional("prefix", Later::Text, "What stands before the packet.")
                        .not_yet(),
                    &Key::optional("level", Later::Text, "The level of the message.").not_yet(),
                ],
            }),
            "How action `log` writes.",
        )
        .not_yet(),
    ],
};

pub(super) static ROUTER: Key<Section> = Key::optional(
    "router",
    Section(&Table {
        header: "[router]",
        keys: &[&Key::default(
            "enabled",
            "false",
            Later::Boolean,
            "Forward by the kernel's routing table.",
        )
        .not_yet()],
    }),
    "Forwarding of other packets in XDP.",
)
.not_yet();

pub(super) static ROUTER_SOURCE_NAT: Key<Sections> = Key::optional(
    "source_nat",
    Sections(&Table {
        header: "[[source_nat]]",
        keys: &[
            &Key::required(
                "source",
                Later::List,
                "The networks whose packets are rewritten.",
            )
            .not_yet(),
            &Key::optional("out_interface", Later::Text, "Where the packet goes out.").not_yet(),
            &Key::default(
                "to",
                r#""masquerade""#,
                Later::Text,
                "The new source address.",
            )
            .not_yet(),
        ],
    }),
    "Source NAT for what the box forwards, in order.",
)
.not_yet();
