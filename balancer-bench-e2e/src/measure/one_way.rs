//! Closed loop, one way: the frames come back beside the box.

use super::{Bench, Value, figure, rounds};
use crate::contender::Contender;
use crate::ends::Way;
use crate::results::{Better, Figure};

pub fn figures() -> Vec<Figure> {
    vec![figure(
        "one-way",
        "Packets one way through the box, on one CPU, far ends included",
        "Mpps",
        Better::More,
        Some("flows"),
    )]
}

pub fn sample(bench: &Bench, contender: Contender) -> anyhow::Result<Vec<Value>> {
    let times = rounds::measure(bench, contender, Way::One)?;
    Ok(times
        .into_iter()
        .map(|(at, time)| (0, at, 1e3 / time))
        .collect())
}
