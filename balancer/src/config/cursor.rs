//! A walk over the tables of a parsed file, along the catalog.

use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::catalog::ROOT;
use super::error::Errors;
use super::key::{Entry, Key, Presence, Scalar, Section, Sections, Table};

/// A value as the file has it.
pub(super) struct Node<'a> {
    /// The key it belongs to.
    pub(super) key: &'static str,
    pub(super) value: &'a DeValue<'a>,
    /// Where it stands.
    pub(super) span: Range<usize>,
    /// The whole file.
    pub(super) file: &'a str,
}

/// A string value, and where its parts stand in the file.
pub(super) struct Text<'a> {
    pub(super) value: &'a str,
    pub(super) span: Range<usize>,
    /// The offset of its first character; none where the file writes it with escapes.
    start: Option<usize>,
}

/// A value that was read, and where.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    /// Where it stands; for a default, the header of its table.
    pub(super) span: Range<usize>,
}

/// A table of the file together with the keys it may have.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    keys: &'static Table,
    /// `None`: the file does not have it, all keys are left out.
    table: Option<&'a DeTable<'a>>,
    /// Its header; for a table the file does not have, its beginning.
    pub(super) span: Range<usize>,
    file: &'a str,
}

impl<'a> Node<'a> {
    /// The value as a string, where it is one.
    pub(super) fn text(&self, shape: &impl Scalar, errors: &mut Errors) -> Option<Text<'a>> {
        match self.value {
            DeValue::String(value) => Some(Text::new(value, self.span.clone(), self.file)),
            _ => self.wrong_type(shape, errors),
        }
    }

    /// Says that the value is of another type than the key takes.
    pub(super) fn wrong_type<T>(&self, shape: &impl Scalar, errors: &mut Errors) -> Option<T> {
        let (expected, example) = shape.expected();
        wrong_type(self.key, self.value, &self.span, &expected, errors)
            .help(format!("write, for example, `{} = {example}`", self.key));
        None
    }
}

fn wrong_type<'e>(
    key: &str,
    value: &DeValue<'_>,
    span: &Range<usize>,
    expected: &str,
    errors: &'e mut Errors,
) -> &'e mut super::error::Finding {
    let found = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    errors.add(span, format!("`{key}` must be {expected}, not {found}"))
}

impl<'a> Text<'a> {
    pub(super) fn new(value: &'a str, span: Range<usize>, file: &'a str) -> Self {
        let inside = span.start + 1..span.end.saturating_sub(1);
        let start = (file.get(inside) == Some(value)).then_some(span.start + 1);
        Self { value, span, start }
    }

    /// Where a part of the string stands, or all of it.
    pub(super) fn part(&self, part: &Range<usize>) -> Range<usize> {
        self.start.map_or_else(
            || self.span.clone(),
            |start| start + part.start..start + part.end,
        )
    }
}

impl<'a> Cursor<'a> {
    /// Opens the root of the file.
    pub(super) fn root(table: &'a DeTable<'a>, file: &'a str, errors: &mut Errors) -> Self {
        Self::open(&ROOT, table, 0..0, file, errors)
    }

    fn open(
        keys: &'static Table,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        file: &'a str,
        errors: &mut Errors,
    ) -> Self {
        for (name, value) in table {
            match keys.find(name.get_ref()) {
                None => unknown_key(keys, name, value.get_ref(), errors),
                Some(key) if !key.meta().supported => {
                    errors
                        .add(
                            &name.span(),
                            format!("{} is not supported yet", display(key)),
                        )
                        .help("remove it; this version does not do what it asks for");
                }
                Some(_) => {}
            }
        }
        Self {
            keys,
            table: Some(table),
            span,
            file,
        }
    }

    fn entry(&self, name: &str) -> Option<(&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        self.table?.get_key_value(name)
    }

    /// Where the file gives the key, if it does.
    pub(super) fn given<S>(&self, key: &Key<S>) -> Option<Range<usize>> {
        self.entry(key.meta.name).map(|(name, _)| name.span())
    }

    /// The value of a key, or its default. `None`: it has neither, or an error was added.
    pub(super) fn get<S: Scalar>(
        &self,
        key: &'static Key<S>,
        errors: &mut Errors,
    ) -> Option<Found<S::Out>> {
        let name = key.meta.name;
        if let Some((_, value)) = self.entry(name) {
            let span = value.span();
            let node = Node {
                key: name,
                value: value.get_ref(),
                span: span.clone(),
                file: self.file,
            };
            return key
                .shape
                .read(&node, errors)
                .map(|value| Found { value, span });
        }
        match key.meta.presence {
            Presence::Optional => None,
            Presence::Required => {
                let (_, example) = key.shape.expected();
                errors
                    .add(
                        &self.span,
                        format!("`{name}` is missing from {}", self.keys.header),
                    )
                    .help(format!(
                        "add, for example, `{name} = {example}` below {}",
                        self.keys.header
                    ));
                None
            }
            Presence::Default(text) => {
                // A test reads every default, so neither this nor the reading below fails.
                let value = DeValue::parse(text).ok()?;
                let node = Node {
                    key: name,
                    value: value.get_ref(),
                    span: self.span.clone(),
                    file: "",
                };
                key.shape.read(&node, errors).map(|value| Found {
                    value,
                    span: self.span.clone(),
                })
            }
        }
    }

    /// Opens a table; one the file does not have is empty. `None`: it is no table.
    pub(super) fn section(
        &self,
        key: &'static Key<Section>,
        errors: &mut Errors,
    ) -> Option<Cursor<'a>> {
        let keys = key.shape.0;
        let Some((_, value)) = self.entry(key.meta.name) else {
            return Some(Cursor {
                keys,
                table: None,
                span: self.span.clone(),
                file: self.file,
            });
        };
        if let DeValue::Table(table) = value.get_ref() {
            return Some(Cursor::open(keys, table, value.span(), self.file, errors));
        }
        wrong_type(
            key.meta.name,
            value.get_ref(),
            &value.span(),
            "a table",
            errors,
        )
        .help(format!("write it as a section, {}", keys.header));
        None
    }

    /// Opens each table of an array of tables; one the file does not have is empty. `None`: it holds no table, and an
    /// error was added.
    pub(super) fn sections(
        &self,
        key: &'static Key<Sections>,
        errors: &mut Errors,
    ) -> Option<Vec<Cursor<'a>>> {
        let keys = key.shape.0;
        let Some((_, value)) = self.entry(key.meta.name) else {
            return Some(Vec::new());
        };
        let DeValue::Array(array) = value.get_ref() else {
            wrong_type(
                key.meta.name,
                value.get_ref(),
                &value.span(),
                "an array of tables",
                errors,
            )
            .help(format!(
                "write {}, with two brackets on each side",
                keys.header
            ));
            return None;
        };
        let mut cursors = Vec::new();
        for element in array {
            if let DeValue::Table(table) = element.get_ref() {
                cursors.push(Cursor::open(keys, table, element.span(), self.file, errors));
            } else {
                wrong_type(
                    key.meta.name,
                    element.get_ref(),
                    &element.span(),
                    "an array of tables",
                    errors,
                )
                .help(format!("write one {} for each", keys.header));
            }
        }
        (array.is_empty() || !cursors.is_empty()).then_some(cursors)
    }
}

/// A key as the file writes it: tables with their header.
fn display(key: &dyn Entry) -> String {
    key.shape().table().map_or_else(
        || format!("`{}`", key.meta().name),
        |table| format!("`{}`", table.header),
    )
}

fn unknown_key(
    keys: &'static Table,
    name: &Spanned<DeString<'_>>,
    value: &DeValue<'_>,
    errors: &mut Errors,
) {
    let text = name.get_ref().as_ref();
    let shown = text.escape_debug();
    let message = match value {
        DeValue::Table(_) if keys.header.is_empty() => format!("unknown section [{shown}]"),
        _ if keys.header.is_empty() => format!("unknown key `{shown}` outside of any section"),
        _ => format!("unknown key `{shown}` in {}", keys.header),
    };
    let names = || keys.keys.iter().map(|key| key.meta().name);
    let help = if let Some(close) = closest(text, names()) {
        format!("did you mean `{close}`?")
    } else if let Some(other) = table_with(&ROOT, text) {
        format!("`{text}` belongs to {}", other.header)
    } else {
        let all: Vec<_> = keys
            .keys
            .iter()
            .filter(|key| key.meta().supported)
            .map(|key| display(*key))
            .collect();
        format!("known here: {}", all.join(", "))
    };
    errors.add(&name.span(), message).help(help);
}

/// The table that has a key of that name.
fn table_with(table: &'static Table, name: &str) -> Option<&'static Table> {
    if !table.header.is_empty() && table.find(name).is_some() {
        return Some(table);
    }
    table
        .keys
        .iter()
        .filter_map(|key| key.shape().table())
        .find_map(|inner| table_with(inner, name))
}

/// The name that was probably meant: at most a third of its letters differ, `-` and `_` and capitals aside.
pub(super) fn closest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let text = plain(text);
    names
        .map(|name| (strsim::osa_distance(&text, &plain(name)), name))
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
