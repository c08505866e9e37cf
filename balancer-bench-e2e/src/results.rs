//! The document that a run leaves, and what is calculated from its samples.
//!
//! Within a schema version a field is added, never renamed or removed.

use serde::{Deserialize, Serialize};

use crate::contender::Contender;

/// The version of [`Results`].
pub const SCHEMA: u32 = 1;
/// Where the largest and the least sample are further apart than this share of the median, nothing is compared.
pub const SPREAD: f64 = 0.25;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of balancerd.
    pub version: String,
    /// The commit that was built; with `+` at its end, and changes that were not committed.
    pub commit: String,
    /// The command line.
    pub command: String,
    /// When it began: seconds since 1970, UTC.
    pub started: u64,
    /// How long it took, in seconds.
    pub took: u64,
    /// How often each sample was taken.
    pub repeats: u32,
    /// [`SPREAD`] of this run.
    pub spread: f64,
    /// Before how many samples the machine did not become quiet.
    pub disturbed: u32,
    /// What it ran on.
    pub machine: Machine,
    /// What was not measured, and why.
    pub left_out: Vec<String>,
    /// The figures, in the order in which they were taken.
    pub figures: Vec<Figure>,
}

/// What a run ran on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// CPUs that are there.
    pub cpus: usize,
    /// The two that were used.
    pub used: [usize; 2],
    /// Memory in MiB.
    pub memory: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Versions of the programs that were run.
    pub tools: Vec<String>,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Less is.
    Less,
    /// More is.
    More,
}

/// One quantity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Its name, in file names too.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Its unit.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// What [`Row::at`] counts, if anything.
    pub parameter: Option<String>,
    /// By parameter, then by contender.
    pub rows: Vec<Row>,
}

/// One contender at one parameter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Who.
    pub contender: Contender,
    /// The parameter; 0 without one.
    pub at: u32,
    /// All samples, in the order in which they were taken.
    pub samples: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Whether they are too far apart for a comparison.
    pub noisy: bool,
    /// How many times better than this one balancerd is; none where that cannot be said.
    pub balancerd_better: Option<f64>,
}

impl Figure {
    /// Notes a sample.
    pub fn push(&mut self, contender: Contender, at: u32, value: f64) {
        let known = self
            .rows
            .iter_mut()
            .find(|row| row.contender == contender && row.at == at);
        if let Some(row) = known {
            row.samples.push(value);
        } else {
            self.rows.push(Row {
                contender,
                at,
                samples: vec![value],
                median: value,
                min: value,
                max: value,
                noisy: false,
                balancerd_better: None,
            });
        }
    }

    /// Calculates all that follows from the samples.
    pub fn conclude(&mut self) {
        self.rows.sort_by_key(|row| (row.at, row.contender));
        for row in &mut self.rows {
            row.conclude();
        }
        let ours: Vec<Row> = self
            .rows
            .iter()
            .filter(|row| row.contender == Contender::Balancerd)
            .cloned()
            .collect();
        for row in &mut self.rows {
            let our = ours.iter().find(|our| our.at == row.at);
            row.balancerd_better = our
                .filter(|our| row.contender != our.contender && !our.noisy && !row.noisy)
                .map(|our| match self.better {
                    Better::Less => row.median / our.median,
                    Better::More => our.median / row.median,
                })
                .filter(|ratio| ratio.is_finite());
        }
    }
}

impl Row {
    fn conclude(&mut self) {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        self.median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        self.min = sorted[0];
        self.max = sorted[sorted.len() - 1];
        self.noisy = self.max - self.min > SPREAD * self.median;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(better: Better, samples: &[(Contender, &[f64])]) -> Figure {
        let mut figure = Figure {
            name: "f".to_owned(),
            title: String::new(),
            unit: String::new(),
            better,
            parameter: None,
            rows: Vec::new(),
        };
        for (contender, values) in samples {
            for value in *values {
                figure.push(*contender, 0, *value);
            }
        }
        figure.conclude();
        figure
    }

    #[test]
    fn a_ratio_says_how_many_times_better_balancerd_is() {
        let samples: [(Contender, &[f64]); 2] = [
            (Contender::Iptables, &[410.0, 400.0, 390.0]),
            (Contender::Balancerd, &[100.0, 101.0, 99.0]),
        ];
        let less = figure(Better::Less, &samples);
        assert_eq!(less.rows[0].contender, Contender::Balancerd);
        assert_eq!(less.rows[0].balancerd_better, None);
        assert_eq!(less.rows[1].balancerd_better, Some(4.0));
        let more = figure(Better::More, &samples);
        assert_eq!(more.rows[1].balancerd_better, Some(0.25));
        assert_eq!(
            (more.rows[1].median, more.rows[1].min, more.rows[1].max),
            (400.0, 390.0, 410.0)
        );
    }

    #[test]
    fn what_is_too_noisy_is_not_compared() {
        let samples: [(Contender, &[f64]); 2] = [
            (Contender::Balancerd, &[100.0, 100.0]),
            (Contender::Nft, &[80.0, 120.0]),
        ];
        let figure = figure(Better::Less, &samples);
        assert!(figure.rows[1].noisy && !figure.rows[0].noisy);
        assert_eq!(figure.rows[1].balancerd_better, None);
    }
}
