//! The JSON Schema (2020-12) of the files, generated from the key tables of the parser. An editor therefore knows the
//! same keys.

use serde_json::{Map, Value, json};

use super::keys::{Keys, Kind};
use super::{FileKind, PROFILE, lab, policy};

/// The schema of a kind of file.
#[must_use]
pub fn schema(kind: FileKind) -> Value {
    let (keys, word) = match kind {
        FileKind::Profile => (&PROFILE, "profile"),
        FileKind::Policy => (&policy::POLICY_FILE, "policy"),
        FileKind::Lab => (&lab::LAB_FILE, "lab"),
    };
    let mut schema = table(keys);
    // A name, not a place: nothing is fetched from it.
    schema.insert("$id".to_owned(), json!(format!("urn:bindscope:schema:{word}:{}", super::SCHEMA)));
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!(format!("bindscope {word}")));
    Value::Object(schema)
}

fn table(keys: &Keys) -> Map<String, Value> {
    let properties: Map<String, Value> = keys
        .keys
        .iter()
        .map(|key| {
            let mut value =
                if key.name == "schema" { json!({ "const": super::SCHEMA }) } else { kind(key.kind) };
            value["description"] = json!(key.about);
            if let Some(default) = key.default.and_then(|json| serde_json::from_str(json).ok()) {
                let default: Value = default;
                value["default"] = default;
            }
            (key.name.to_owned(), value)
        })
        .collect();
    let required: Vec<&str> = keys.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut table = Map::new();
    table.insert("title".to_owned(), json!(keys.what));
    table.insert("type".to_owned(), json!("object"));
    table.insert("properties".to_owned(), Value::Object(properties));
    table.insert("required".to_owned(), json!(required));
    table.insert("additionalProperties".to_owned(), json!(false));
    table
}

fn one_or_many(one: &Value) -> Value {
    json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
}

fn kind(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string", "minLength": 1 }),
        Kind::Texts => one_or_many(&json!({ "type": "string", "minLength": 1 })),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Choices(words) => one_or_many(&json!({ "enum": words })),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::BoolOr(words) => json!({ "anyOf": [{ "type": "boolean" }, { "enum": words }] }),
        Kind::WordOrTable(words, keys) => json!({ "anyOf": [{ "enum": words }, table(keys)] }),
        Kind::BoolOrTable(keys) => json!({ "anyOf": [{ "type": "boolean" }, table(keys)] }),
        Kind::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Kind::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Duration => json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|min|h|d))+$" }),
        // TOML has dates; JSON Schema does not, and tools convert them to strings.
        Kind::Date => json!({ "type": "string", "format": "date" }),
        Kind::Ports => one_or_many(&json!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 65535 },
            { "type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$" },
        ]})),
        Kind::Bind(keys) => {
            one_or_many(&json!({ "anyOf": [{ "type": "string", "minLength": 1 }, table(keys)] }))
        }
        Kind::Table(keys) => Value::Object(table(keys)),
        Kind::Tables(keys) => json!({ "type": "array", "items": table(keys) }),
        Kind::List => json!({ "type": "array", "minItems": 1 }),
        Kind::Map => json!({ "type": "object", "additionalProperties": { "type": ["string", "integer"] } }),
    }
}
