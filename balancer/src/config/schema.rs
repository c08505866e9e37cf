//! The JSON schema of the configuration.

use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::catalog::ROOT;
use super::key::{Entry, Presence, Table};

/// The JSON schema (draft 2020-12) of every key, with defaults and descriptions.
///
/// Keys the daemon still refuses are marked `"x-not-supported-yet": true`, those a reload cannot change
/// `"x-restart": true`.
#[must_use]
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "balancerd configuration",
    });
    if let (Value::Object(head), Value::Object(body)) = (&mut schema, table(&ROOT)) {
        head.extend(body);
    }
    schema
}

/// The schema of a table.
pub(super) fn table(table: &Table) -> Value {
    let properties: Map<_, _> = table
        .keys
        .iter()
        .map(|key| (key.meta().name.to_owned(), property(*key)))
        .collect();
    let required: Vec<_> = table
        .keys
        .iter()
        .map(|key| key.meta())
        .filter(|meta| matches!(meta.presence, Presence::Required))
        .map(|meta| meta.name)
        .collect();
    let mut schema =
        json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(key: &dyn Entry) -> Value {
    let meta = key.meta();
    let mut schema = key.shape().schema();
    schema["description"] = if meta.supported {
        json!(meta.doc)
    } else {
        json!(format!("Not supported yet. {}", meta.doc))
    };
    if let Presence::Default(default) = meta.presence {
        // A default is a TOML value of the catalog; a test reads each of them.
        schema["default"] = toml_to_json(default).unwrap_or(Value::Null);
    }
    if !meta.supported {
        schema["x-not-supported-yet"] = json!(true);
    }
    if meta.restart {
        schema["x-restart"] = json!(true);
    }
    schema
}

fn toml_to_json(text: &str) -> Option<Value> {
    let value = toml::de::ValueDeserializer::parse(text).ok()?;
    serde_json::Value::deserialize(value).ok()
}
