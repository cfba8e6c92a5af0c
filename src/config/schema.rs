//! The JSON Schema (2020-12) of a configuration file, for editors, from the key tables. Not the
//! check: a schema cannot see that a cluster's name exists.

use super::{
    keys::{Key, Kind, MAX_NAME, ROOT, Scope},
    units::{Period, Size},
};
use serde_json::{Map, Value, json};

/// A value that holds a variable; what it becomes is not known to an editor.
const VARIABLE: &str = r"\$\{";

/// The schema, with every key that works in this version.
pub fn schema() -> Value {
    let mut schema = map(&ROOT);
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Sluice configuration"));
    Value::Object(schema)
}

fn map(scope: &'static Scope) -> Map<String, Value> {
    let properties: Map<String, Value> =
        scope.now().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = scope
        .required
        .iter()
        .filter_map(|group| scope.now().find(|key| group.contains(&key.name)))
        .map(|key| key.name)
        .collect();
    let mut map = Map::new();
    map.insert("type".to_owned(), json!("object"));
    map.insert("additionalProperties".to_owned(), json!(false));
    map.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        map.insert("required".to_owned(), json!(required));
    }
    map
}

fn property(key: &'static Key) -> Value {
    let mut schema = kind(&key.kind);
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), json!(key.doc));
        if !key.default.is_empty() {
            schema.insert("default".to_owned(), json!(key.default));
        }
    }
    schema
}

fn kind(kind_of: &'static Kind) -> Value {
    match kind_of {
        Kind::Later
        | Kind::Text
        | Kind::Secret
        | Kind::Path
        | Kind::Bind
        | Kind::Address
        | Kind::Network
        | Kind::Cluster
        | Kind::LogLevel
        | Kind::Command => json!({ "type": ["string", "number"] }),
        Kind::Name => {
            let pattern = format!(r"^[A-Za-z0-9_.-]{{1,{MAX_NAME}}}$|{VARIABLE}");
            json!({ "type": ["string", "number"], "pattern": pattern })
        }
        Kind::Duration { min, max, or_none } => {
            let none = if *or_none { ", or 0 for none" } else { "" };
            json!({
                "type": ["string", "integer"],
                "pattern": format!(r"^[0-9]+(ms|s|m|h|d)$|^0$|{VARIABLE}"),
                "$comment": format!("{} to {}{none}", Period(*min), Period(*max)),
            })
        }
        Kind::Rate => {
            json!({ "type": "string", "pattern": format!(r"^[1-9][0-9]*/[smh]$|{VARIABLE}") })
        }
        Kind::Size { min, max, auto } => {
            let auto = if *auto { "|^auto$" } else { "" };
            json!({
                "type": ["string", "integer"],
                "minimum": min,
                "maximum": max,
                "pattern": format!(r"^[0-9]+([KMGT]iB)?$|{VARIABLE}{auto}"),
                "$comment": format!("{} to {}", Size(*min), Size(*max)),
            })
        }
        Kind::Integer { min, max, auto } => {
            let auto = if *auto { "|^auto$" } else { "" };
            json!({
                "type": ["integer", "string"],
                "minimum": min,
                "maximum": max,
                "pattern": format!(r"^-?[0-9]+$|{VARIABLE}{auto}"),
            })
        }
        Kind::Switch => {
            json!({ "type": ["boolean", "string"], "pattern": format!("^(true|false)$|{VARIABLE}") })
        }
        Kind::Choice { now, .. } => {
            let variable = json!({ "type": "string", "pattern": VARIABLE });
            let words = now.iter().map(|word| json!(word));
            // Written without quotes, 1.2 is a number to YAML and true is none of its texts.
            let plain = now.iter().filter_map(|word| serde_json::from_str(word).ok());
            let all: Vec<Value> = words.chain(plain).collect();
            json!({ "anyOf": [{ "enum": all }, variable] })
        }
        Kind::Map(scope) => Value::Object(map(scope)),
        Kind::Named(scope) => json!({ "type": "object", "additionalProperties": map(scope) }),
        Kind::Texts => {
            json!({ "type": "object", "additionalProperties": { "type": ["string", "number"] } })
        }
        Kind::List(item, most) => {
            json!({ "type": "array", "items": kind(item), "maxItems": most })
        }
        Kind::AddressOr(scope) => json!({ "anyOf": [{ "type": "string" }, map(scope)] }),
    }
}
