//! The JSON schema of the file, made from the table of keys: editors complete and check with it.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Kind, MAX_ADDRESSES, MAX_TARGETS, Section, Word};
use super::served::ENTRIES_MAX;

/// The JSON schema (2020-12), as text that ends with a newline.
pub fn schema() -> String {
    let mut root = object("", keys::TOP.keys);
    let head = [
        ("$schema", json!("https://json-schema.org/draft/2020-12/schema")),
        ("title", json!("anywan")),
        ("description", json!("The configuration of anywan.")),
        ("required", json!(["lan", "wan"])),
    ];
    root.extend(head.map(|(name, value)| (name.to_owned(), value)));
    format!("{:#}\n", Value::Object(root))
}

/// A section and those inside it.
fn object(path: &str, keys: &[Key]) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in keys {
        properties.insert(key.name.to_owned(), property(key));
    }
    for child in keys::children(path) {
        properties.insert(child.name().to_owned(), section(child));
    }
    let required: Vec<&str> =
        keys.iter().filter(|key| key.default.is_none()).map(|key| key.name).collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("additionalProperties".to_owned(), json!(false));
    object.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        object.insert("required".to_owned(), json!(required));
    }
    object
}

fn section(section: &Section) -> Value {
    let mut object = object(section.path, section.keys);
    if section.many {
        return json!({
            "description": section.doc,
            "type": "array",
            "minItems": 1,
            "items": object,
        });
    }
    object.insert("description".to_owned(), json!(section.doc));
    Value::Object(object)
}

fn property(key: &Key) -> Value {
    let mut property = match &key.kind {
        Kind::Interface => interface(),
        Kind::InterfaceName => {
            json!({"type": "string", "maxLength": 15, "pattern": "^[^/:\\s]*$"})
        }
        Kind::Name => {
            json!({"type": "string", "maxLength": 15, "pattern": "^-*[a-z0-9][a-z0-9-]*$"})
        }
        Kind::Words(words) => json!({"type": "string", "enum": names(words)}),
        Kind::Number { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Time { words: [], .. } => json!({"type": "string", "pattern": TIME}),
        Kind::Time { words, .. } => one_of(words, json!({"type": "string", "pattern": TIME})),
        Kind::Bytes { words, .. } => {
            one_of(words, json!({"type": "string", "pattern": "^[0-9]+(GB|MB|kB|B)$"}))
        }
        Kind::Address { words, .. } => {
            one_of(words, json!({"type": "string", "pattern": "^[0-9a-fA-F.:]+$"}))
        }
        Kind::Addresses { words } => addresses(words),
        Kind::Targets => json!({
            "type": "array",
            "maxItems": MAX_TARGETS,
            "uniqueItems": true,
            "items": target(),
        }),
        Kind::Servers { max } => list(*max, "^[0-9a-fA-F.:]+$"),
        Kind::Leases => list(ENTRIES_MAX, "^[0-9a-fA-F:-]+ +[0-9.]+( +[A-Za-z0-9_-]+)?$"),
        Kind::Hosts => list(ENTRIES_MAX, "^[0-9a-fA-F.:]+ +[A-Za-z0-9._-]+$"),
        Kind::Range => json!({"type": "string", "pattern": "^[0-9.]+ *- *[0-9.]+$"}),
        Kind::Domain => json!({"type": "string", "pattern": "^[A-Za-z0-9._-]+$"}),
        Kind::Mask => json!({
            "anyOf": [
                {"type": "string", "pattern": "^0x[0-9a-fA-F]{1,8}$"},
                {"type": "integer", "minimum": 1, "maximum": u32::MAX},
            ]
        }),
        Kind::Text { max } => json!({"type": "string", "maxLength": max}),
        Kind::Texts { max, each } => json!({
            "type": "array",
            "maxItems": max,
            "items": {"type": "string", "minLength": 1, "maxLength": each},
        }),
        Kind::Secret { digits: true } => json!({"type": "string", "pattern": "^([0-9]{4,8})?$"}),
        Kind::Secret { digits: false } => json!({"type": "string", "maxLength": 200}),
        Kind::Path { below } => json!({"type": "string", "pattern": format!("^({below}.*)?$")}),
        Kind::Port => {
            json!({"type": "string", "pattern": "^([0-9]+-[0-9]+(\\.[0-9]+)*)?$"})
        }
    };
    if let Value::Object(fields) = &mut property {
        fields.insert("description".to_owned(), json!(key.doc));
        if let Some(default) = key.default.and_then(json_of) {
            fields.insert("default".to_owned(), default);
        }
    }
    property
}

fn interface() -> Value {
    json!({
        "anyOf": [
            {"type": "string", "minLength": 1, "maxLength": 15, "pattern": "^[^/:\\s]+$"},
            {"type": "string", "pattern": "^mac:([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$"},
            {"type": "string", "pattern": "^usb:[0-9]+-[0-9]+([.][0-9]+)*$"},
            {"type": "string", "pattern": "^driver:[^/:\\s]{1,31}$"},
        ]
    })
}

fn addresses(words: &[Word]) -> Value {
    let one = json!({"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"});
    let mut either = one_of(words, one.clone());
    if let Some(any) = either["anyOf"].as_array_mut() {
        let (most, unique) = (MAX_ADDRESSES, true);
        any.push(json!({
            "type": "array", "minItems": 1, "maxItems": most, "uniqueItems": unique, "items": one,
        }));
    }
    either
}

fn list(max: usize, pattern: &str) -> Value {
    let item = json!({"type": "string", "pattern": pattern});
    json!({"type": "array", "maxItems": max, "uniqueItems": true, "items": item})
}

fn target() -> Value {
    const STRING: &str = "^(((icmp|tcp)://)?[0-9a-fA-F.:\\[\\]]+|dns://[0-9a-fA-F.:\\[\\]]+/[^/]+\
                          |http://[^/?#@]+[^#]*)$";
    let page = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["url"],
        "properties": {
            "url": {"type": "string", "pattern": "^http://[^/?#@]+[^#]*$"},
            "status": {"type": "integer", "minimum": 200, "maximum": 599, "default": 204},
            "body": {"type": "string", "minLength": 1, "maxLength": 1024},
        },
    });
    json!({"anyOf": [{"type": "string", "pattern": STRING}, page]})
}

const TIME: &str = "^[0-9]+(ms|s|m|h)$";

fn names(words: &[Word]) -> Vec<&'static str> {
    words.iter().map(|word| word.0).collect()
}

fn one_of(words: &[Word], other: Value) -> Value {
    json!({"anyOf": [{"enum": names(words)}, other]})
}

/// A TOML value as the same value in JSON.
fn json_of(toml: &str) -> Option<Value> {
    let value: toml::Value = toml.parse().ok()?;
    serde_json::to_value(value).ok()
}
