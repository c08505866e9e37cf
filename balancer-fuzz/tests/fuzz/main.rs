//! Fuzz targets: each takes any bytes, and fails when what must hold of them does not.
//!
//! As tests they run on the inputs in `corpus/` of this package, on seeds made from the vectors and examples, and for some seconds
//! on what chance makes of both. With feature `libfuzzer`, by `cargo xtask fuzz`, the same tests are libFuzzer's, which is guided by what
//! code an input reaches.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod bytes;
mod config;
mod control;
mod errors;
mod fragments;
mod layout;
#[cfg(feature = "libfuzzer")]
mod libfuzzer;
#[cfg(not(feature = "libfuzzer"))]
mod mutate;
mod parser;
mod pipeline;
#[path = "../../../balancer/tests/support/mod.rs"]
mod support;
#[path = "../../../balancer/tests/table/mod.rs"]
mod table;
mod target;
mod world;

use target::run;

#[test]
fn parser() {
    run("parser", parser::seeds, parser::check);
}

#[test]
fn pipeline() {
    run("pipeline", pipeline::seeds, pipeline::check);
}

#[test]
fn errors() {
    run("errors", errors::seeds, errors::check);
}

#[test]
fn fragments() {
    run("fragments", fragments::seeds, fragments::check);
}

#[test]
fn config() {
    run("config", config::seeds, config::check);
}

#[test]
fn control() {
    run("control", control::seeds, control::check);
}
