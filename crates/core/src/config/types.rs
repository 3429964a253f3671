//! The types of TOML values, as a person calls them.

use toml::de::DeValue;

use super::fault::Wrong;

/// The fault of a value of the wrong type.
pub(super) fn wrong_type(wanted: &str, value: &DeValue<'_>, hint: impl Into<String>) -> Wrong {
    let what = format!("must be {wanted}, but is {}", a_type(value));
    Wrong::new("config.wrong-type", what, hint)
}

fn a_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "`true`",
        DeValue::Boolean(false) => "`false`",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
