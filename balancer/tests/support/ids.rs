//! Ids of services and backends.

use balancer::config::Service;
use balancer::datapath::compile::ServiceIds;

/// Those in the order of the file.
pub fn in_order(services: &[Service]) -> Vec<ServiceIds> {
    let mut backends = 0..;
    (0..)
        .zip(services)
        .map(|(service, it)| ServiceIds {
            service,
            backends: backends.by_ref().take(it.backends.len()).collect(),
        })
        .collect()
}
