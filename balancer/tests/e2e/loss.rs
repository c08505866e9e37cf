//! Links that lose, repeat, reorder and damage frames, by netem, which not every kernel has.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use balancer_lab::{Host, Need, TcpEcho};

use crate::site::{SOON, Shape, Site};

/// How many bytes go each way.
const LENGTH: usize = 1 << 20;

/// How long nothing may come: retransmissions wait ever longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the links do to frames.
const BAD: [&str; 12] = [
    "delay",
    "2ms",
    "1ms",
    "reorder",
    "20%",
    "loss",
    "2%",
    "duplicate",
    "2%",
    "corrupt",
    "1%",
    "limit",
];

/// Makes a host's link a bad one; says whether it can.
fn worsen(host: &Host) -> bool {
    let netem = ["qdisc", "add", "dev", "eth0", "root", "netem"];
    let arguments = netem.iter().chain(&BAD).chain(&["10000"]);
    match host.run("tc", arguments) {
        Ok(_) => true,
        Err(error) => {
            let reason = format!("this kernel has no netem ({error})");
            Need::Modules.leave_out("loss", &reason);
            false
        }
    }
}

#[test]
fn connections_survive_bad_links() {
    let Some(mut site) = Site::new("loss", Shape::Links, 1) else {
        return;
    };
    if !worsen(&site.client) || !worsen(&site.backends[0]) {
        return;
    }
    let echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.start(&site.both_families("tcp", 7));
    let sent: Vec<u8> = (0..LENGTH).map(|index| (index % 251) as u8).collect();
    for to in ["192.0.2.10:7", "[2001:db8::10]:7"] {
        let to: SocketAddr = to.parse().unwrap();
        let mut stream = site.client.connect(to, None, 10 * SOON).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let received = thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&sent).unwrap());
            let mut byte = [0];
            while byte != *b"\n" {
                stream.read_exact(&mut byte).unwrap();
            }
            let mut received = vec![0; LENGTH];
            stream.read_exact(&mut received).unwrap();
            received
        });
        assert!(received == sent, "{to}: other bytes came back");
    }
    assert_eq!(
        echo.peers().len(),
        2,
        "each frame went to its own connection"
    );
}
