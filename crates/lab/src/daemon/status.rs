//! What `anywan status --json` says, for tests.

use serde_json::Value;

use crate::topology::Family;

/// One answer.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// A WAN's entry, or null.
    pub fn wan(&self, name: &str) -> &Value {
        let wans = self.0["wans"].as_array().map_or(&[][..], Vec::as_slice);
        wans.iter().find(|wan| wan["name"] == name).unwrap_or(&Value::Null)
    }

    /// State of a WAN's family; `absent` when it is not listed.
    pub fn state(&self, name: &str, family: Family) -> &str {
        self.wan(name)[family.key()]["state"].as_str().unwrap_or("absent")
    }

    /// Share of new connections, in percent; 0 when not listed.
    pub fn share_percent(&self, name: &str) -> f64 {
        self.wan(name)["share_percent"].as_f64().unwrap_or(0.0)
    }

    /// Everything a person should know, a line each: `code at: what`.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.0["problems"].as_array().map_or(&[][..], Vec::as_slice);
        let word = |problem: &Value, key: &str| problem[key].as_str().unwrap_or("").to_owned();
        let line =
            |p: &Value| format!("{} {}: {}", word(p, "code"), word(p, "at"), word(p, "what"));
        problems.iter().map(line).collect()
    }

    /// All states in a line, for messages.
    pub fn summary(&self) -> String {
        let wans = self.0["wans"].as_array().map_or(&[][..], Vec::as_slice);
        let one = |wan: &Value| {
            let name = wan["name"].as_str().unwrap_or("?");
            let (v4, v6) = (self.state(name, Family::V4), self.state(name, Family::V6));
            format!("{name} {v4}/{v6} {}%", wan["share_percent"])
        };
        let wans: Vec<String> = wans.iter().map(one).collect();
        format!("{}; problems {:?}", wans.join(", "), self.problems())
    }
}
