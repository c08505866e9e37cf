//! The shapes of values that are not addresses.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use toml::de::{DeArray, DeValue};

use super::cursor::{Node, closest};
use super::duration::{self, DurationText};
use super::error::Errors;
use super::key::{Scalar, Shape};

/// One of a few words.
pub(super) struct Choice<T: 'static> {
    pub(super) values: &'static [(&'static str, T)],
    /// Words the daemon refuses for now.
    pub(super) not_yet: &'static [&'static str],
}

impl<T: Copy + Sync> Choice<T> {
    fn list(&self) -> String {
        let words: Vec<_> = self
            .values
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        match words.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }
}

impl<T: Copy + Sync> Shape for Choice<T> {
    fn schema(&self) -> Value {
        let words: Vec<_> = self.values.iter().map(|(word, _)| word).collect();
        let mut schema = json!({ "type": "string", "enum": words });
        if !self.not_yet.is_empty() {
            schema["x-values-not-supported-yet"] = json!(self.not_yet);
        }
        schema
    }
}

impl<T: Copy + Sync> Scalar for Choice<T> {
    type Out = T;

    fn expected(&self) -> (String, String) {
        (self.list(), format!("\"{}\"", self.values[0].0))
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<T> {
        let text = node.text(self, errors)?;
        if let Some((_, value)) = self.values.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let key = node.key;
        let shown = text.value.escape_debug();
        if self.not_yet.contains(&text.value) {
            errors
                .add(&text.span, format!("{key} `{shown}` is not supported yet"))
                .help(format!("use {}", self.list()));
            return None;
        }
        let words = self.values.iter().map(|(word, _)| *word);
        let help = closest(text.value, words).map_or_else(
            || format!("use {}", self.list()),
            |word| format!("did you mean `{word}`?"),
        );
        errors
            .add(&text.span, format!("unknown {key} `{shown}`"))
            .help(help);
        None
    }
}

/// `true` or `false`.
pub(super) struct Flag;

impl Shape for Flag {
    fn schema(&self) -> Value {
        json!({ "type": "boolean" })
    }
}

impl Scalar for Flag {
    type Out = bool;

    fn expected(&self) -> (String, String) {
        ("true or false".to_owned(), "true".to_owned())
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<bool> {
        match node.value {
            DeValue::Boolean(value) => Some(*value),
            _ => node.wrong_type(self, errors),
        }
    }
}

/// A whole number.
pub(super) struct Number {
    pub(super) min: u32,
    pub(super) max: u32,
    /// For a help.
    pub(super) example: u32,
}

impl Shape for Number {
    fn schema(&self) -> Value {
        json!({ "type": "integer", "minimum": self.min, "maximum": self.max })
    }
}

impl Scalar for Number {
    type Out = u32;

    fn expected(&self) -> (String, String) {
        ("a whole number".to_owned(), self.example.to_string())
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<u32> {
        let DeValue::Integer(integer) = node.value else {
            return node.wrong_type(self, errors);
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let inside = number
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| (self.min..=self.max).contains(n));
        if inside.is_none() {
            errors
                .add(
                    &node.span,
                    format!("{integer} is out of range for `{}`", node.key),
                )
                .help(format!("it takes {} to {}", self.min, self.max));
        }
        inside
    }
}

/// A probability, from 0 to 1.
pub(super) struct Probability;

impl Shape for Probability {
    fn schema(&self) -> Value {
        json!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

impl Scalar for Probability {
    type Out = f64;

    fn expected(&self) -> (String, String) {
        ("a number from 0 to 1".to_owned(), "0.25".to_owned())
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<f64> {
        let number = match node.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(integer) if integer.radix() == 10 => {
                integer.as_str().parse::<f64>().ok()
            }
            DeValue::Integer(_) => None,
            _ => return node.wrong_type(self, errors),
        };
        let inside = number.filter(|number| (0.0..=1.0).contains(number));
        if inside.is_none() {
            errors
                .add(&node.span, "this is not a probability")
                .help("it lies between 0 and 1: for one in four write 0.25");
        }
        inside
    }
}

/// A duration in quotes.
pub(super) struct Time {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Shape for Time {
    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$" })
    }
}

impl Scalar for Time {
    type Out = Duration;

    fn expected(&self) -> (String, String) {
        ("a duration in quotes".to_owned(), "\"30s\"".to_owned())
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<Duration> {
        let text = node.text(self, errors)?;
        let shown = text.value.escape_debug();
        let duration = match duration::parse(text.value) {
            Ok(duration) => duration,
            Err(why) => {
                errors
                    .add(&text.span, format!("`{shown}` is not a duration: {why}"))
                    .help("units are d, h, m, s and ms: \"30s\", \"2h4m\", \"1d\"");
                return None;
            }
        };
        if (self.min..=self.max).contains(&duration) {
            return Some(duration);
        }
        let (min, max) = (DurationText(self.min), DurationText(self.max));
        let side = if duration < self.min { "short" } else { "long" };
        errors
            .add(&text.span, format!("`{shown}` is too {side}"))
            .help(format!("`{}` takes {min} to {max}", node.key));
        None
    }
}

/// An absolute path.
pub(super) struct FilePath;

impl Shape for FilePath {
    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^/" })
    }
}

impl Scalar for FilePath {
    type Out = PathBuf;

    fn expected(&self) -> (String, String) {
        (
            "an absolute path in quotes".to_owned(),
            "\"/run/balancerd\"".to_owned(),
        )
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<PathBuf> {
        let text = node.text(self, errors)?;
        if text.value.starts_with('/') && !text.value.contains('\0') {
            return Some(PathBuf::from(text.value));
        }
        errors
            .add(
                &text.span,
                format!("`{}` is not an absolute path", text.value.escape_debug()),
            )
            .help("it must begin with `/`");
        None
    }
}

/// The name of a service.
pub(super) struct Name;

impl Shape for Name {
    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,63}$" })
    }
}

impl Scalar for Name {
    type Out = String;

    fn expected(&self) -> (String, String) {
        ("a name in quotes".to_owned(), "\"web\"".to_owned())
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<String> {
        let text = node.text(self, errors)?;
        let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let problem = match text.value {
            "" => "a name cannot be empty".to_owned(),
            long if long.len() > 63 => format!("the name is too long, {} bytes", long.len()),
            other => match other.chars().find(|c| !known(*c)) {
                Some(c) => format!("`{}` cannot be part of a name", c.escape_debug()),
                None => return Some(other.to_owned()),
            },
        };
        errors
            .add(&text.span, problem)
            .help("a name has 1 to 63 of: A-Z, a-z, 0-9, `_`, `.`, `-`");
        None
    }
}

/// The name of a network interface.
pub(super) struct Interface;

impl Shape for Interface {
    fn schema(&self) -> Value {
        json!({ "type": "string", "minLength": 1, "maxLength": 15 })
    }
}

impl Scalar for Interface {
    type Out = String;

    fn expected(&self) -> (String, String) {
        (
            "the name of an interface in quotes".to_owned(),
            "\"eth0\"".to_owned(),
        )
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<String> {
        let text = node.text(self, errors)?;
        // What the kernel's `dev_valid_name` takes.
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
        let problem = match text.value {
            "" => "the name of an interface cannot be empty",
            long if long.len() > 15 => "the name of an interface has at most 15 bytes",
            "." | ".." => "this cannot be the name of an interface",
            other if other.contains(odd) => "the name of an interface has no spaces, `/` or `:`",
            other => return Some(other.to_owned()),
        };
        errors
            .add(&text.span, problem)
            .help("`ip -brief link` lists the interfaces");
        None
    }
}

/// A list of interfaces: one or more, each once.
pub(super) struct Interfaces;

/// Elements of a list, each once.
fn distinct<T: PartialEq + Display>(
    node: &Node<'_>,
    array: &DeArray<'_>,
    what: &str,
    errors: &mut Errors,
    mut read: impl FnMut(&Node<'_>, &mut Errors) -> Option<T>,
) -> Option<Vec<T>> {
    let mut found: Vec<(T, std::ops::Range<usize>)> = Vec::new();
    let mut whole = true;
    for element in array {
        let inner = Node {
            key: node.key,
            value: element.get_ref(),
            span: element.span(),
            file: node.file,
        };
        let Some(value) = read(&inner, errors) else {
            whole = false;
            continue;
        };
        match found.iter().find(|(other, _)| *other == value) {
            Some((_, first)) => {
                whole = false;
                errors
                    .add(&inner.span, format!("{what} `{value}` is listed twice"))
                    .also(first, "first here")
                    .help("remove one of them");
            }
            None => found.push((value, inner.span)),
        }
    }
    whole.then(|| found.into_iter().map(|(value, _)| value).collect())
}

/// CPUs by their number; there may be none.
pub(super) struct Cpus;

const CPU: Number = Number {
    min: 0,
    max: 1023,
    example: 0,
};

impl Shape for Cpus {
    fn schema(&self) -> Value {
        json!({ "type": "array", "items": CPU.schema(), "uniqueItems": true })
    }
}

impl Scalar for Cpus {
    type Out = Vec<u32>;

    fn expected(&self) -> (String, String) {
        ("a list of CPUs".to_owned(), "[0, 1]".to_owned())
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<Vec<u32>> {
        let DeValue::Array(array) = node.value else {
            return node.wrong_type(self, errors);
        };
        let read = |inner: &Node<'_>, errors: &mut Errors| match inner.value {
            DeValue::Integer(_) => CPU.read(inner, errors),
            _ => inner.wrong_type(self, errors),
        };
        distinct(node, array, "CPU", errors, read)
    }
}

impl Shape for Interfaces {
    fn schema(&self) -> Value {
        json!({ "type": "array", "items": Interface.schema(), "minItems": 1, "uniqueItems": true })
    }
}

impl Scalar for Interfaces {
    type Out = Vec<String>;

    fn expected(&self) -> (String, String) {
        (
            "a list of interfaces".to_owned(),
            "[\"eth0\", \"eth1\"]".to_owned(),
        )
    }

    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<Vec<String>> {
        let DeValue::Array(array) = node.value else {
            return node.wrong_type(self, errors);
        };
        if array.is_empty() {
            errors
                .add(&node.span, "no interface is named")
                .help("name one or more: [\"eth0\", \"eth1\"]");
            return None;
        }
        let read = |inner: &Node<'_>, errors: &mut Errors| match inner.value {
            DeValue::String(_) => Interface.read(inner, errors),
            _ => inner.wrong_type(self, errors),
        };
        distinct(node, array, "interface", errors, read)
    }
}

/// A value the daemon refuses for now; only its JSON schema is known.
pub(super) enum Later {
    Text,
    Words(&'static [&'static str]),
    Integer,
    Boolean,
    List,
    TextOrInteger,
}

impl Shape for Later {
    fn schema(&self) -> Value {
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Words(words) => json!({ "type": "string", "enum": words }),
            Self::Integer => json!({ "type": "integer", "minimum": 0 }),
            Self::Boolean => json!({ "type": "boolean" }),
            Self::List => json!({ "type": "array" }),
            Self::TextOrInteger => json!({ "type": ["string", "integer"] }),
        }
    }
}
