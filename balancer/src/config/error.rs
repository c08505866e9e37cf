//! What is wrong with a configuration file, where, and how to mend it.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};

use super::source::Source;

/// One error of a configuration file. Its `Display` is the message alone.
#[derive(Clone, Debug)]
pub struct ConfigError {
    source: Arc<Source>,
    finding: Finding,
}

/// Every error of a configuration file, sorted by position; never empty. Its `Display` is a one-line summary.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    source: Arc<Source>,
    errors: Vec<ConfigError>,
}

/// How a report is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rendering {
    /// ASCII, without colour: for files and pipes.
    Plain,
    /// Unicode and colour: for a terminal.
    Colour,
}

impl ConfigError {
    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.finding.message
    }

    /// How to mend it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.finding.help.as_deref()
    }

    /// The name of the file, as given to [`super::parse`].
    #[must_use]
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// Line and column, counted from 1, the column in characters.
    #[must_use]
    pub fn position(&self) -> (usize, usize) {
        self.source.position(self.finding.span.start)
    }

    /// `FILE:LINE:COLUMN: message`, for logs.
    #[must_use]
    pub fn one_line(&self) -> String {
        let (line, column) = self.position();
        format!("{}:{line}:{column}: {}", self.file(), self.message())
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.finding.message)
    }
}

impl std::error::Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        self.finding
            .help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source.as_ref())
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let finding = &self.finding;
        let here = finding.also.as_ref().map(|_| "here".to_owned());
        let primary = LabeledSpan::new_primary_with_span(here, finding.span.clone());
        let also = finding
            .also
            .iter()
            .map(|(span, label)| LabeledSpan::new_with_span(Some(label.clone()), span.clone()));
        Some(Box::new(std::iter::once(primary).chain(also)))
    }
}

impl ConfigErrors {
    /// The errors, sorted by position.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.errors.iter()
    }

    /// How many there are: one or more.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.errors.len()
    }

    /// The full report: each error with its place in the file and its help.
    #[must_use]
    pub fn render(&self, rendering: Rendering) -> String {
        let theme = match rendering {
            Rendering::Plain => GraphicalTheme::none(),
            Rendering::Colour => GraphicalTheme::unicode(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_links(false)
            .with_wrap_lines(false);
        let mut out = String::new();
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            let mut report = String::new();
            if handler.render_report(&mut report, error).is_ok() {
                out.push_str(&report);
            } else {
                // A report that cannot be drawn still has its line.
                out.push_str(&error.one_line());
                out.push('\n');
            }
        }
        out
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len();
        write!(
            f,
            "{}: {count} {}",
            self.source.name(),
            if count == 1 { "error" } else { "errors" }
        )
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(
            self.errors.iter().map(|error| error as &dyn Diagnostic),
        ))
    }
}

/// An error before it is tied to its file. Spans are byte offsets.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    span: Range<usize>,
    message: String,
    help: Option<String>,
    /// A second place that belongs to the error, and what it is.
    also: Option<(Range<usize>, String)>,
}

impl Finding {
    /// Adds how to mend it.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a second place and what it is.
    pub(super) fn also(&mut self, span: &Range<usize>, label: impl Into<String>) -> &mut Self {
        self.also = Some((span.clone(), label.into()));
        self
    }
}

/// The errors found so far.
#[derive(Default, Debug)]
pub(super) struct Errors(Vec<Finding>);

impl Errors {
    pub(super) fn add(&mut self, span: &Range<usize>, message: impl Into<String>) -> &mut Finding {
        let at = self.0.len();
        self.0.push(Finding {
            span: span.clone(),
            message: message.into(),
            help: None,
            also: None,
        });
        &mut self.0[at]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over the errors of `other` that do not start in one of `ranges`.
    pub(super) fn append_outside(&mut self, other: Self, ranges: &[Range<usize>]) {
        self.0.extend(other.0.into_iter().filter(|f| {
            !ranges
                .iter()
                .any(|r| r.start <= f.span.start && f.span.start <= r.end)
        }));
    }

    pub(super) fn finish(self, source: Arc<Source>) -> ConfigErrors {
        let mut seen = BTreeSet::new();
        let mut errors: Vec<_> = self
            .0
            .into_iter()
            .filter(|finding| seen.insert((finding.span.start, finding.message.clone())))
            .map(|mut finding| {
                finding.span = source.first_line_of(&finding.span);
                finding.also = finding
                    .also
                    .map(|(span, label)| (source.first_line_of(&span), label));
                ConfigError {
                    source: Arc::clone(&source),
                    finding,
                }
            })
            .collect();
        errors.sort_by_key(|error| error.finding.span.start);
        ConfigErrors { source, errors }
    }
}
