//! What a key is: its name, its meaning, its default, and the shape of its value.

use serde_json::Value;

use super::cursor::Node;
use super::error::Errors;

/// A key of the configuration.
pub(super) struct Key<S> {
    pub(super) meta: Meta,
    pub(super) shape: S,
}

/// What is known of a key whatever its value.
pub(super) struct Meta {
    pub(super) name: &'static str,
    /// What it means, for the schema.
    pub(super) doc: &'static str,
    pub(super) presence: Presence,
    /// Whether the daemon knows what to do with it yet.
    pub(super) supported: bool,
    /// Whether a reload cannot change it.
    pub(super) restart: bool,
}

/// Whether a key must be given, and what holds where it is not.
#[derive(Clone, Copy)]
pub(super) enum Presence {
    Required,
    Optional,
    /// Left out, it has this value, written in TOML.
    Default(&'static str),
}

/// A table of keys.
pub(super) struct Table {
    /// Its header as the file writes it; empty for the root.
    pub(super) header: &'static str,
    pub(super) keys: &'static [&'static dyn Entry],
}

/// Which values a key takes.
pub(super) trait Shape: Sync {
    /// The JSON schema of the value.
    fn schema(&self) -> Value;

    /// The keys of the value, where it is a table or an array of tables.
    fn table(&self) -> Option<&'static Table> {
        None
    }
}

/// A shape whose values are not tables.
pub(super) trait Scalar: Shape {
    /// A value that was read.
    type Out;

    /// What it takes, to follow "must be", with an example in TOML.
    fn expected(&self) -> (String, String);

    /// Reads a value, or says what is wrong with it.
    fn read(&self, node: &Node<'_>, errors: &mut Errors) -> Option<Self::Out>;
}

/// A key of any shape.
pub(super) trait Entry: Sync {
    fn meta(&self) -> &Meta;
    fn shape(&self) -> &dyn Shape;
}

impl<S: Shape> Entry for Key<S> {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn shape(&self) -> &dyn Shape {
        &self.shape
    }
}

impl<S> Key<S> {
    /// A key that may be left out.
    pub(super) const fn optional(name: &'static str, shape: S, doc: &'static str) -> Self {
        let presence = Presence::Optional;
        Self {
            meta: Meta {
                name,
                doc,
                presence,
                supported: true,
                restart: false,
            },
            shape,
        }
    }

    /// A key that must be given.
    pub(super) const fn required(name: &'static str, shape: S, doc: &'static str) -> Self {
        Self::optional(name, shape, doc).with(Presence::Required)
    }

    /// A key with a default, written in TOML.
    pub(super) const fn default(
        name: &'static str,
        default: &'static str,
        shape: S,
        doc: &'static str,
    ) -> Self {
        Self::optional(name, shape, doc).with(Presence::Default(default))
    }

    const fn with(mut self, presence: Presence) -> Self {
        self.meta.presence = presence;
        self
    }

    /// A reload cannot change it.
    pub(super) const fn restart(mut self) -> Self {
        self.meta.restart = true;
        self
    }

    /// The daemon refuses it for now.
    pub(super) const fn not_yet(mut self) -> Self {
        self.meta.supported = false;
        self
    }
}

impl Table {
    /// The key of that name.
    pub(super) fn find(&self, name: &str) -> Option<&'static dyn Entry> {
        self.keys
            .iter()
            .copied()
            .find(|key| key.meta().name == name)
    }
}

/// A table of its own, `[header]`.
pub(super) struct Section(pub(super) &'static Table);

/// An array of tables, `[[header]]`.
pub(super) struct Sections(pub(super) &'static Table);

impl Shape for Section {
    fn schema(&self) -> Value {
        super::schema::table(self.0)
    }

    fn table(&self) -> Option<&'static Table> {
        Some(self.0)
    }
}

impl Shape for Sections {
    fn schema(&self) -> Value {
        serde_json::json!({ "type": "array", "items": super::schema::table(self.0) })
    }

    fn table(&self) -> Option<&'static Table> {
        Some(self.0)
    }
}
