//! What is generated from the table of keys (docs/config.md, docs/anywan.schema.json) is up to
//! date; the examples are valid for the parser and for the schema, and both agree on what is not.
//! `UPDATE_EXPECT=1` rewrites the generated files.

#![expect(clippy::disallowed_methods, reason = "a test reads the files; the core itself does not")]

use std::path::{Path, PathBuf};

use anywan_core::config;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn up_to_date(path: &str, wanted: &str) {
    let path = root().join(path);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, wanted).expect("the docs can be written to");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{} is old: UPDATE_EXPECT=1 rewrites it", path.display());
}

fn toml_files(folder: PathBuf) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry can be read").path();
        if path.extension().is_some_and(|ext| ext == "toml") {
            let bytes = std::fs::read(&path).expect("the file can be read");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            files.push((path.display().to_string(), text));
        }
    }
    files.sort();
    files
}

fn schema() -> Value {
    serde_json::from_str(&config::schema()).expect("the schema is JSON")
}

/// The part of JSON schema that ours uses, without patterns: what is wrong, empty when nothing is.
fn wrong(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(choices) = schema["anyOf"].as_array() {
        if !choices.iter().any(|choice| wrong(choice, value, at).is_empty()) {
            out.push(format!("{at}: none of the choices"));
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        if !words.contains(value) {
            out.push(format!("{at}: none of the words"));
        }
    }
    let fits = match schema["type"].as_str() {
        None => true,
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("{at}: the schema uses the type {other}"),
    };
    if !fits {
        out.push(format!("{at}: wrong type"));
    }
    let number = value.as_i64();
    let least = schema["minimum"].as_i64();
    let most = schema["maximum"].as_i64();
    if number < least || (number > most && most.is_some()) {
        out.push(format!("{at}: out of range"));
    }
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
        let length = list.len() as u64;
        let max = schema["maxItems"].as_u64().unwrap_or(u64::MAX);
        if length < schema["minItems"].as_u64().unwrap_or(0) || length > max {
            out.push(format!("{at}: wrong length"));
        }
        for (n, item) in list.iter().enumerate() {
            out.extend(wrong(items, item, &format!("{at}[{n}]")));
        }
    }
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object())
    {
        assert_eq!(schema["additionalProperties"], false, "{at}");
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().expect("a name")) {
                out.push(format!("{at}: lacks {name}"));
            }
        }
        for (name, value) in object {
            match properties.get(name) {
                None => out.push(format!("{at}.{name}: unknown")),
                Some(schema) => out.extend(wrong(schema, value, &format!("{at}.{name}"))),
            }
        }
    }
    out
}

fn as_json(text: &str) -> Option<Value> {
    let value: toml::Table = text.trim_start_matches('\u{feff}').parse().ok()?;
    serde_json::to_value(value).ok()
}

#[test]
fn the_schema_is_up_to_date() {
    up_to_date("docs/anywan.schema.json", &config::schema());
}

#[test]
fn the_reference_is_up_to_date() {
    up_to_date("docs/config.md", &config::reference());
}

#[test]
fn each_example_is_valid_for_the_parser_and_for_the_schema() {
    let examples = toml_files(root().join("examples"));
    assert!(examples.len() >= 4);
    for (path, text) in examples {
        if let Err(faults) = config::parse(&text) {
            panic!("{}", config::render(&path, &text, &faults, false));
        }
        let json = as_json(&text).expect("an example is TOML");
        assert_eq!(wrong(&schema(), &json, ""), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn the_schema_allows_what_the_parser_allows() {
    for (path, text) in toml_files(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")) {
        let Some(json) = as_json(&text) else { continue };
        let faults = config::parse(&text).err().unwrap_or_default();
        let found = wrong(&schema(), &json, "");
        // What the schema can see must be a fault of the parser, and the other way round.
        let visible = [
            "config.unknown-key",
            "config.missing-key",
            "config.missing-section",
            "config.wrong-type",
            "config.bad-word",
        ];
        let seen = faults.iter().any(|fault| visible.contains(&fault.code));
        assert!(found.is_empty() || !faults.is_empty(), "{path}: {found:?}");
        let addresses =
            faults.iter().all(|fault| fault.at.contains("gateway") || fault.at.contains("nat"));
        assert!(!seen || !found.is_empty() || addresses, "{path}: {faults:?}");
    }
}

#[test]
fn the_reference_and_the_schema_name_every_key() {
    let reference = config::reference();
    let schema = schema();
    let sections = schema["properties"].as_object().expect("sections");
    assert_eq!(
        sections.keys().collect::<Vec<_>>(),
        ["cpu", "dns", "health", "lan", "router", "wan"]
    );
    let mut count = 0;
    for (name, section) in sections {
        let properties = section["items"].get("properties").unwrap_or(&section["properties"]);
        let above = serde_json::Map::from_iter([(name.clone(), section.clone())]);
        for (name, key) in properties.as_object().unwrap_or(&above) {
            let section = ["health", "dhcp", "ppp"].contains(&name.as_str());
            assert!(reference.contains(&format!("| `{name}` |")) || section, "{name}");
            let doc = key["description"].as_str().expect("each key has a sentence");
            assert!(doc.ends_with('.'), "{name}: {doc}");
            count += 1;
        }
    }
    assert_eq!(count, 1 + 5 + 7 + 3 + 5 + 16);
    for (code, _) in config::CODES {
        assert!(reference.contains(&format!("| `{code}` |")), "{code}");
    }
}

#[test]
fn the_keys_of_the_reference_are_the_defaults_of_the_parser() {
    let text = "[[lan]]\ninterface = \"eth0\"\n[[wan]]\nname = \"a\"\ninterface = \"ppp0\"\n";
    let mut written = as_json(text).expect("TOML");
    let schema = schema();
    for (section, keys) in schema["properties"].as_object().expect("sections") {
        if section == "dns" {
            // It means something that it is there.
            continue;
        }
        let many = keys.get("items").is_some();
        if let Some(default) = keys.get("default") {
            written[section.as_str()] = default.clone();
            continue;
        }
        let properties = keys["items"].get("properties").unwrap_or(&keys["properties"]);
        for (name, key) in properties.as_object().expect("keys") {
            let Some(default) = key.get("default") else { continue };
            let place = &mut written[section.as_str()];
            let place = if many { &mut place[0] } else { place };
            place[name.as_str()] = default.clone();
        }
    }
    let table: toml::Table = serde_json::from_value(written).expect("JSON to TOML");
    let written = toml::to_string(&table).expect("TOML");
    assert_eq!(config::parse(&written), config::parse(text), "{written}");
}
