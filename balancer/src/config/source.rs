//! The text of a configuration file, as errors show it.

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// A file's name and text, with an index of its lines.
///
/// Control characters are replaced by `?`, so that a report cannot steer a terminal.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    text: String,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let mut shown = String::with_capacity(text.len());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let kept = !c.is_control()
                || c == '\n'
                || c == '\t'
                || (c == '\r' && chars.peek() == Some(&'\n'));
            if kept {
                shown.push(c);
            } else {
                // As many bytes as before: offsets stay what they were.
                shown.extend(std::iter::repeat_n('?', c.len_utf8()));
            }
        }
        let lines = std::iter::once(0)
            .chain(shown.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            name: name.to_owned(),
            text: shown,
            lines,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The index of the line that holds `offset`.
    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset) - 1
    }

    /// Line and column of an offset, both counted from 1, the column in characters.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let column = self
            .text
            .get(self.lines[line]..offset)
            .map_or(0, |before| before.chars().count());
        (line + 1, column + 1)
    }

    /// Cuts a span to the text, and to the first line it covers.
    pub(super) fn first_line_of(&self, span: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        let start = span.start.min(self.text.len());
        let end = span.end.clamp(start, self.text.len());
        let line = &self.text[start..end];
        let kept = line.find('\n').map_or(line, |at| &line[..at]).trim_end();
        start..start + kept.len()
    }
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let end = span.offset() + span.len();
        if end > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let first = self.line(span.offset()).saturating_sub(before);
        let last = self.line(end) + after;
        // Without context the report asks for the position only, and wants the contents to begin there.
        let (start, column) = if before == 0 {
            (span.offset(), self.position(span.offset()).1 - 1)
        } else {
            (self.lines[first], 0)
        };
        let stop = self.lines.get(last + 1).copied().unwrap_or(self.text.len());
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            &self.text.as_bytes()[start..stop],
            (start, stop - start).into(),
            first,
            column,
            last.min(self.lines.len() - 1) - first + 1,
        )))
    }
}
