//! How often senders are told: so often in all, and so often each.
//!
//! An answer goes to whoever the packet says that it comes from. Unlimited, that would be a way to have us send to
//! others (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4 (f)).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Answers a second in all, and how many may come at once.
pub const TOTAL: u32 = 1000;

/// Answers a second to one source, an IPv4 address or an IPv6 network of 64 bits, and how many may come at once.
pub const SOURCE: u32 = 50;

/// How many sources are known at a time, at most. Before there are more, those that were quiet for a second are forgotten: they have
/// their whole share again. That makes room: each of the others had an answer within the last 1.02 seconds, in which there are 2,020.
const SOURCES: usize = 8192;

/// A token bucket, which is full after a second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    size: u32,
    left: f64,
    at: Instant,
}

impl Bucket {
    const fn new(size: u32, at: Instant) -> Self {
        Self {
            size,
            left: size as f64,
            at,
        }
    }

    fn fill(&mut self, now: Instant) {
        let size = f64::from(self.size);
        let time = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + time * size).min(size);
        self.at = now;
    }

    fn is_empty(&self) -> bool {
        self.left < 1.0
    }
}

/// The limits.
#[derive(Debug)]
pub struct Limits {
    total: Bucket,
    sources: HashMap<IpAddr, Bucket>,
}

impl Limits {
    /// Of nobody yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            total: Bucket::new(TOTAL, now),
            sources: HashMap::new(),
        }
    }

    /// Whether a source may be told now; counts it if so.
    pub fn allow(&mut self, source: IpAddr, now: Instant) -> bool {
        const QUIET: Duration = Duration::from_secs(1);
        self.total.fill(now);
        if self.total.is_empty() {
            return false;
        }
        if self.sources.len() >= SOURCES {
            self.sources
                .retain(|_, bucket| now.saturating_duration_since(bucket.at) < QUIET);
        }
        let bucket = self.sources.entry(network(source));
        let bucket = bucket.or_insert_with(|| Bucket::new(SOURCE, now));
        bucket.fill(now);
        if bucket.is_empty() {
            return false;
        }
        bucket.left -= 1.0;
        self.total.left -= 1.0;
        true
    }
}

/// Who counts as one: hosts have a /64 of IPv6 to choose from.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    fn count(limits: &mut Limits, source: &str, times: u32, now: Instant) -> u32 {
        let source: IpAddr = source.parse().unwrap();
        (0..times)
            .map(|_| u32::from(limits.allow(source, now)))
            .sum()
    }

    #[test]
    fn a_source_has_its_share() {
        let now = Instant::now();
        let mut limits = Limits::new(now);
        assert_eq!(count(&mut limits, "192.0.2.1", 100, now), SOURCE);
        assert_eq!(count(&mut limits, "192.0.2.2", 100, now), SOURCE);
        let later = now + Duration::from_millis(500);
        assert_eq!(count(&mut limits, "192.0.2.1", 100, later), SOURCE / 2);
    }

    #[test]
    fn hosts_of_a_network_count_as_one() {
        let now = Instant::now();
        let mut limits = Limits::new(now);
        assert_eq!(count(&mut limits, "2001:db8::1", 40, now), 40);
        assert_eq!(count(&mut limits, "2001:db8::2", 40, now), SOURCE - 40);
        assert_eq!(count(&mut limits, "2001:db8:0:1::2", 1, now), 1);
    }

    #[test]
    fn many_sources_have_the_total() {
        let now = Instant::now();
        let mut limits = Limits::new(now);
        let told: u32 = (0..20_000_u32)
            .map(|host| {
                let source = IpAddr::from((0x0a00_0000 + host).to_be_bytes());
                u32::from(limits.allow(source, now))
            })
            .sum();
        assert_eq!(told, TOTAL);
    }

    #[test]
    fn sources_are_forgotten() {
        let mut now = Instant::now();
        let mut limits = Limits::new(now);
        let mut hosts = (0x0a00_0000_u32..).map(|host| IpAddr::from(host.to_be_bytes()));
        for round in 0..320 {
            // New ones each time: all are told that the total has an answer for.
            let told = hosts.by_ref().take(TOTAL as usize);
            let told = told.filter(|&host| limits.allow(host, now)).count();
            let all = if round == 0 { TOTAL } else { TOTAL / 8 };
            assert_eq!(told, all as usize, "round {round}");
            assert!(limits.sources.len() <= SOURCES);
            now += Duration::from_millis(125);
        }
        assert_eq!(count(&mut limits, "192.0.2.1", 1, now), 1);
    }
}
