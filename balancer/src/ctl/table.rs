//! Tables for people and pipes.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};

/// Whether what is written is read by a person at a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A terminal: UTF-8 rules.
    Terminal,
    /// A file or pipe: ASCII, a line a row, nothing but the words.
    Plain,
}

/// A column: its title, and where its cells stand.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// Renders a table with a title line; no lines between columns, no wrapping, no spaces at line ends.
#[must_use]
pub fn table(style: Style, columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let titles = columns.iter().map(|column| match column {
        Column::Left(title) | Column::Right(title) => *title,
    });
    let mut table = bare();
    table.set_header(titles);
    table.add_rows(rows);
    if style == Style::Terminal {
        table.set_style(TableComponent::HeaderLines, '─');
    }
    for (column, kind) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if let Column::Right(_) = kind {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text(&table)
}

/// Renders names and values, a line each; a value of several lines stays in its column.
#[must_use]
pub fn pairs(rows: Vec<(&str, String)>) -> String {
    let mut table = bare();
    table.add_rows(
        rows.into_iter()
            .map(|(name, value)| [name.to_owned(), value]),
    );
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    text(&table)
}

fn bare() -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn text(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}
