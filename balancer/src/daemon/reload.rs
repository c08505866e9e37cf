//! Reading the configuration again: as a whole or not at all.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::sync::Mutex;

use super::paths::Paths;
use super::shared::Shared;
use super::surroundings;
use super::tables::Tables;
use crate::chain::chain;
use crate::config::{self, Config, ConfigErrors, Difference, diff};
use crate::control::document::{Reload, ReloadResult, ReloadStatus, rfc3339};
use crate::datapath::netlink::Netlink;

/// Reads a configuration file.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path) -> Result<Config, ReadError> {
    let text = std::fs::read_to_string(path).map_err(|error| ReadError::File {
        path: path.to_owned(),
        error,
    })?;
    Ok(config::parse(&path.display().to_string(), &text)?)
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigErrors),
}

impl ReadError {
    /// Each error in one line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::File { .. } => vec![self.to_string()],
            Self::Wrong(errors) => errors.iter().map(one_line).collect(),
        }
    }
}

fn one_line(error: &config::ConfigError) -> String {
    let mut line = error.one_line();
    if let Some(help) = error.help() {
        let _ = write!(line, " ({help})");
    }
    line
}

/// How many changes of one kind are told in the log, one by one.
pub(super) const TOLD: usize = 50;

/// What reloads.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    tables: Shared<Tables>,
    paths: Paths,
    /// The outcome of the last one. Held while one is at work, so that there is one at a time.
    status: Mutex<ReloadStatus>,
}

impl Reloader {
    /// Reloads `path`, of which the first configuration was read.
    #[must_use]
    pub fn new(path: PathBuf, tables: Shared<Tables>, paths: Paths) -> Self {
        Self {
            path,
            tables,
            paths,
            status: Mutex::new(ReloadStatus {
                at: rfc3339(SystemTime::now()),
                result: ReloadResult::Ok,
                error: None,
                succeeded: 0,
                failed: 0,
            }),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The outcome of the last reload; waits for one that is at work.
    pub async fn status(&self) -> ReloadStatus {
        self.status.lock().await.clone()
    }

    /// Reloads. Any error: the configuration before stays in effect, and the outcome says why.
    pub async fn reload(&self) -> Reload {
        let mut status = self.status.lock().await;
        let reload = self.try_reload(false).await;
        status.at = rfc3339(SystemTime::now());
        if reload.applied {
            status.result = ReloadResult::Ok;
            status.error = None;
            status.succeeded += 1;
            tracing::info!(
                generation = reload.generation,
                changes = reload.changes.len(),
                "reloaded"
            );
            for change in reload.changes.iter().take(TOLD) {
                tracing::info!("{change}");
            }
            if let Some(more @ 1..) = reload.changes.len().checked_sub(TOLD) {
                tracing::info!("and {more} more changes");
            }
        } else {
            let error = reload.errors.join("\n");
            tracing::error!("not reloaded, the configuration before stays in effect");
            for error in &reload.errors {
                tracing::error!("{error}");
            }
            status.result = ReloadResult::Error;
            status.error = Some(error);
            status.failed += 1;
        }
        reload
    }

    /// What a reload would do.
    pub async fn rehearse(&self) -> Reload {
        let _one_at_a_time = self.status.lock().await;
        self.try_reload(true).await
    }

    async fn try_reload(&self, dry_run: bool) -> Reload {
        let (old, generation) = self
            .tables
            .with(|tables| (tables.config.clone(), tables.generation))
            .await;
        let mut reload = Reload {
            generation: generation.into(),
            ..Reload::default()
        };
        let new = match read(&self.path) {
            Ok(new) => new,
            Err(error) => {
                reload.errors = error.lines();
                return reload;
            }
        };
        let difference = diff(&old, &new);
        reload.changes = difference.to_string().lines().map(str::to_owned).collect();
        reload.errors = impossible(&difference);
        let fits = surroundings::check(&new);
        reload
            .errors
            .extend(fits.err().map(|error| error.to_string()));
        if !dry_run && reload.errors.is_empty() {
            match self.apply(new).await {
                Ok(generation) => {
                    reload.applied = true;
                    reload.generation = generation.into();
                }
                Err(error) => reload.errors = vec![chain(error.as_ref())],
            }
        }
        reload
    }

    async fn apply(&self, new: Config) -> anyhow::Result<u32> {
        surroundings::tell(&new, &Netlink::connect()?).await;
        let named = self.tables.with(|tables| tables.name(new)).await?;
        self.paths.follow(named.targets().collect()).await?;
        self.tables
            .with(move |tables| {
                tables.apply(named)?;
                Ok(tables.generation)
            })
            .await
    }
}

/// What a reload cannot do.
fn impossible(difference: &Difference) -> Vec<String> {
    difference
        .restart_only
        .iter()
        .map(|key| format!("{key} is not the same: that needs a restart of balancerd"))
        .collect()
}
