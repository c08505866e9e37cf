//! The configuration file: what it means ([`Config`]), how it is read ([`parse`]), what is wrong with it
//! ([`ConfigErrors`]), its JSON schema ([`schema()`]) and what changes from one to the next ([`diff()`]).
//!
//! `catalog` (with `planned`) holds every key once: its name, type, limits, default and meaning. Reading, the search for unknown
//! keys, and the schema are driven by it. Rules about a single value stand with the value's type (`kind`,
//! `address`, `duration`); rules about several values stand in `build`, `service` and `conflict`.

mod address;
mod build;
mod catalog;
mod conflict;
mod cursor;
mod diff;
mod duration;
mod error;
mod key;
mod kind;
mod model;
mod planned;
mod schema;
mod service;
mod source;
mod syntax;

pub use diff::{BackendChange, Change, Difference, ServiceChange, diff};
pub use duration::DurationText;
pub use error::{ConfigError, ConfigErrors, Rendering};
pub use model::{
    Backend, Config, Daemon, Datapath, Engine, FlowLookup, Listen, OnDaemonLoss, OnExit, PortRange,
    Protocol, Scheduler, Service, Share, SourceNat, Timeouts, XdpMode,
};
pub use schema::schema;

use std::sync::Arc;

use error::Errors;
use source::Source;

/// Reads a configuration. `source_name` is the file's name as it shall stand in errors.
///
/// # Errors
///
/// Everything that is wrong with it, sorted by position. Behind a syntax error that leaves the file's structure in
/// doubt only syntax errors are listed.
pub fn parse(source_name: &str, text: &str) -> Result<Config, ConfigErrors> {
    let mut errors = Errors::default();
    let (document, trust) = syntax::read(text, &mut errors);
    let config = match trust {
        syntax::Trust::Whole => build::config(document.get_ref(), text, &mut errors),
        syntax::Trust::ExceptLines(lines) => {
            let mut found = Errors::default();
            let config = build::config(document.get_ref(), text, &mut found);
            errors.append_outside(found, &lines);
            config
        }
        syntax::Trust::Nothing => None,
    };
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => Err(errors.finish(Arc::new(Source::new(source_name, text)))),
    }
}
