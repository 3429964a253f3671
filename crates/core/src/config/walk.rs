//! The tables of a file, walked along the table of keys: unknown keys, missing ones, values of the
//! wrong kind. In: a [`Document`]; out: a [`Draft`] of what could be read. Looks at each section
//! by itself; what two sections mean together is for `check`.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Faults, Wrong, quoted};
use super::keys::{self, Key, LATER, SECTIONS, Section, TOP};
use super::near::nearest;
use super::syntax::Document;
use super::types::wrong_type;
use super::value::{self, Value};

/// What could be read of a file.
#[derive(Debug)]
pub(super) struct Draft {
    /// The keys above the first section.
    pub(super) top: Fields,
    pub(super) lans: Vec<Fields>,
    /// The `[lan.dhcp]` of each LAN.
    pub(super) lan_dhcp: Vec<Fields>,
    pub(super) wans: Vec<Fields>,
    /// The `[wan.health]` of each WAN.
    pub(super) wan_health: Vec<Fields>,
    /// The `[wan.ppp]` of each WAN.
    pub(super) wan_ppp: Vec<Fields>,
    pub(super) health: Fields,
    pub(super) dns: Fields,
    pub(super) router: Fields,
}

/// What could be read of one section.
#[derive(Debug, Default, Clone)]
pub(super) struct Fields {
    /// The path, e.g. `wan[1]`.
    pub(super) at: String,
    /// The header, empty when the section is not there.
    pub(super) span: Range<usize>,
    /// What is given; `None` where it is wrong.
    given: BTreeMap<&'static str, Option<Found>>,
}

/// A value and its place.
#[derive(Debug, Clone)]
struct Found {
    value: Value,
    span: Range<usize>,
}

impl Fields {
    /// The value given for a key; `Some(None)` when it is wrong.
    pub(super) fn given(&self, name: &str) -> Option<Option<&Value>> {
        self.given.get(name).map(|found| found.as_ref().map(|found| &found.value))
    }

    /// A text that was given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        if let Value::Text(text) = self.given(name)?? { Some(text) } else { None }
    }

    /// Whether the section is there.
    pub(super) fn is_there(&self) -> bool {
        self.span != (0..0)
    }

    /// The place of a value, or of the header where it is not given.
    pub(super) fn span_of(&self, name: &str) -> Range<usize> {
        let found = self.given.get(name).and_then(Option::as_ref);
        found.map_or_else(|| self.span.clone(), |found| found.span.clone())
    }
}

/// Walks a document.
pub(super) fn walk(document: &Document<'_>, faults: &mut Faults) -> Draft {
    let mut walk = Walk { document, faults };
    let top = walk.above();
    let lans = walk.rows("lan");
    let wans = walk.rows("wan");
    Draft {
        top,
        lan_dhcp: lans.iter().map(|row| walk.inner("lan.dhcp", row)).collect(),
        lans: lans.iter().map(|row| walk.fields("lan", row)).collect(),
        wan_health: wans.iter().map(|row| walk.inner("wan.health", row)).collect(),
        wan_ppp: wans.iter().map(|row| walk.inner("wan.ppp", row)).collect(),
        wans: wans.iter().map(|row| walk.fields("wan", row)).collect(),
        health: walk.top("health"),
        dns: walk.top("dns"),
        router: walk.top("router"),
    }
}

struct Walk<'d, 'f> {
    document: &'d Document<'d>,
    faults: &'f mut Faults,
}

/// One section as it stands in the file.
struct Row<'d> {
    at: String,
    span: Range<usize>,
    table: &'d DeTable<'d>,
}

impl<'d> Walk<'d, '_> {
    /// All sections of one that is written many times.
    fn rows(&mut self, name: &'static str) -> Vec<Row<'d>> {
        let Some(value) = self.document.root.get(name) else {
            let loud = name.to_uppercase();
            let what = format!("there is no [[{name}]], so no {loud} is known");
            let keys = if name == "wan" { "name = \"…\" and " } else { "" };
            let hint = format!("add [[{name}]], and below it at least {keys}interface = \"…\"");
            let misspelt = is_misspelt("", name, &self.document.root);
            if !self.document.torn && !misspelt {
                self.faults.push(Wrong::new("config.missing-section", what, hint).at(name, 0..0));
            }
            return Vec::new();
        };
        let wanted = format!("written [[{name}]]");
        let row = |at: String, value: &'d Spanned<DeValue<'d>>| {
            let span = value.span();
            value.get_ref().as_table().map(|table| Row { at, span, table })
        };
        match value.get_ref() {
            DeValue::Array(array) if array.is_empty() => {
                let hint = format!("write [[{name}]], and its keys below it");
                let wrong = Wrong::new("config.missing-section", "this list is empty", hint);
                if !self.document.torn {
                    self.faults.push(wrong.at(name, value.span()));
                }
                Vec::new()
            }
            DeValue::Array(array) => {
                let mut rows = Vec::new();
                for (n, entry) in array.iter().enumerate() {
                    match row(format!("{name}[{n}]"), entry) {
                        Some(row) => rows.push(row),
                        None => self.misplaced(&format!("{name}[{n}]"), &wanted, name, entry),
                    }
                }
                rows
            }
            DeValue::Table(_) => {
                self.misplaced(name, &wanted, name, value);
                row(format!("{name}[0]"), value).into_iter().collect()
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                self.misplaced(name, &wanted, name, value);
                Vec::new()
            }
        }
    }

    fn misplaced(&mut self, at: &str, wanted: &str, name: &str, value: &Spanned<DeValue<'_>>) {
        let told = self.document.torn && value.get_ref().is_table();
        if told || self.document.is_broken(&value.span()) {
            return;
        }
        if let Some(inner) = value.get_ref().as_table().and_then(|table| only_inner(name, table)) {
            let what = format!("there is {inner}, but no [[{name}]] that it belongs to");
            let hint = format!("write [[{name}]] and its keys above {inner}");
            self.faults.push(Wrong::new("config.wrong-type", what, hint).at(at, value.span()));
            return;
        }
        let hint = match value.get_ref() {
            DeValue::Table(_) => {
                let loud = name.to_uppercase();
                format!("write [[{name}]], with two brackets, above each {loud}: there may be more")
            }
            DeValue::Array(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                format!("write [[{name}]] on a line of its own, and its keys below it")
            }
        };
        let wrong = match value.get_ref().as_table() {
            Some(_) => Wrong::new(
                "config.wrong-type",
                format!("must be {wanted}, but has single brackets"),
                hint,
            ),
            None => wrong_type(&format!("a section, {wanted}"), value.get_ref(), hint),
        };
        self.faults.push(wrong.at(at, value.span()));
    }

    /// The keys above the first section. Not read where the text is torn: then what stands there
    /// may belong elsewhere.
    fn above(&mut self) -> Fields {
        if self.document.torn {
            return Fields::default();
        }
        let table = &self.document.root;
        self.fields("", &Row { at: String::new(), span: 0..0, table })
    }

    /// A section that is written once, at the top of the file.
    fn top(&mut self, path: &'static str) -> Fields {
        let Document { root, .. } = self.document;
        self.once(path, path.to_owned(), root)
    }

    /// A section inside another.
    fn inner(&mut self, path: &'static str, row: &Row<'d>) -> Fields {
        let name = path.rsplit('.').next().unwrap_or(path);
        self.once(path, format!("{}.{name}", row.at), row.table)
    }

    fn once(&mut self, path: &'static str, at: String, parent: &'d DeTable<'d>) -> Fields {
        let name = path.rsplit('.').next().unwrap_or(path);
        let Some(value) = parent.get(name) else {
            return Fields { at, ..Fields::default() };
        };
        if let Some(table) = value.get_ref().as_table() {
            return self.fields(path, &Row { at, span: value.span(), table });
        }
        if !self.document.is_broken(&value.span()) {
            let hint = format!("write [{path}] on a line of its own, and its keys below it");
            let wrong = match value.get_ref().as_array() {
                Some(_) => Wrong::new(
                    "config.wrong-type",
                    format!("must be written [{path}], because there is only one"),
                    format!("write [{path}], with single brackets, once"),
                ),
                None => wrong_type("a section", value.get_ref(), hint),
            };
            self.faults.push(wrong.at(at.as_str(), value.span()));
        }
        Fields { at, span: value.span(), ..Fields::default() }
    }

    /// Reads one section.
    fn fields(&mut self, path: &'static str, row: &Row<'d>) -> Fields {
        let keys = keys::section(path).map_or(&[][..], |section| section.keys);
        self.unknown(path, &row.at, row.table);
        let mut fields =
            Fields { at: row.at.clone(), span: row.span.clone(), given: BTreeMap::new() };
        for key in keys {
            let Some(value) = row.table.get(key.name) else {
                if key.default.is_none() && !self.document.lost {
                    self.missing(path, key, row);
                }
                continue;
            };
            let at = within(&row.at, key.name);
            let found = if self.document.is_broken(&value.span()) {
                None
            } else {
                let mut push = |fault: Fault| self.faults.push(fault);
                value::read(key, &at, value, &mut push)
            };
            let found = found.map(|read| Found { value: read, span: value.span() });
            fields.given.insert(key.name, found);
        }
        fields
    }

    fn missing(&mut self, path: &str, key: &Key, row: &Row<'_>) {
        if is_misspelt(path, key.name, row.table) {
            return;
        }
        let header = keys::section(path).map_or_else(|| path.to_owned(), Section::header);
        let example = match path {
            "lan" => "eth0",
            "lan.dhcp" => "192.168.1.100-192.168.1.199",
            _ if key.name == "name" => "adsl",
            _ => "usb0",
        };
        let what = format!("this {header} has no `{}`", key.name);
        let hint = format!("add {} = \"…\", e.g. {} = \"{example}\"", key.name, key.name);
        let at = format!("{}.{}", row.at, key.name);
        self.faults.push(Wrong::new("config.missing-key", what, hint).at(at, row.span.clone()));
    }

    /// Reports every key of `table` that is none.
    fn unknown(&mut self, path: &'static str, at: &str, table: &DeTable<'_>) {
        for name in table.keys() {
            let typed = name.get_ref().as_ref();
            if is_known(path, typed) || self.document.is_broken(&name.span()) {
                continue;
            }
            if self.faults.is_full() {
                self.faults.count(1);
                continue;
            }
            let shown = quoted(typed);
            let shown = shown.trim_matches('`');
            self.faults.push(unknown_key(path, typed).at(within(at, shown), name.span()));
        }
    }
}

/// The header of the first section inside one that is written many times, where the table has
/// nothing else: then the header of the outer one is missing.
fn only_inner(name: &str, table: &DeTable<'_>) -> Option<String> {
    let is_inner = |typed: &str| keys::children(name).any(|child| child.name() == typed);
    let all =
        table.iter().all(|(typed, value)| is_inner(typed.get_ref()) && value.get_ref().is_table());
    let first = keys::children(name).find(|child| table.contains_key(child.name()))?;
    all.then(|| first.header())
}

/// A key's place: that of its section, and its name.
fn within(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// What to say of a key that does not exist in the section of this path.
fn unknown_key(path: &'static str, typed: &str) -> Wrong {
    if let Some(later) = LATER.iter().find(|later| later.section == path && later.name == typed) {
        let what = format!("this version does not have `{typed}` yet");
        return Wrong::new("config.not-yet", what, later.hint);
    }
    let place = match keys::section(path) {
        Some(section) if !path.is_empty() => format!("in {}", section.header()),
        Some(_) | None => "at the top of the file".to_owned(),
    };
    let what = format!("there is no key {} {place}", quoted(typed));
    Wrong::new("config.unknown-key", what, advice(path, typed))
}

/// Whether some unknown key of the table stands for this one, so that one fault tells both.
fn is_misspelt(path: &str, name: &str, table: &DeTable<'_>) -> bool {
    table
        .keys()
        .any(|typed| !is_known(path, typed.get_ref()) && meant(path, typed.get_ref()) == Some(name))
}

fn is_known(path: &str, typed: &str) -> bool {
    keys::section(path).is_some_and(|section| section.key(typed).is_some())
        || keys::children(path).any(|child| child.name() == typed)
}

/// Where there is a key of this name.
fn homes(typed: &str) -> Vec<String> {
    let sections = SECTIONS.iter().chain([&TOP]).filter(|section| section.key(typed).is_some());
    let place = |section: &Section| match section.path {
        "" => "at the top of the file, above the first section".to_owned(),
        _ => format!("in {}", section.header()),
    };
    sections.map(place).collect()
}

/// The key or section that an unknown one was probably meant to be.
fn meant(path: &str, typed: &str) -> Option<&'static str> {
    let keys = keys::section(path).map_or(&[][..], |section| section.keys);
    let also_called = keys.iter().find(|key| key.aliases.contains(&typed)).map(|key| key.name);
    if also_called.is_some() || !homes(typed).is_empty() {
        return also_called;
    }
    let names = keys.iter().map(|key| key.name).chain(keys::children(path).map(Section::name));
    nearest(typed, names)
}

fn advice(path: &str, typed: &str) -> String {
    if let Some(near) = meant(path, typed) {
        return match keys::children(path).find(|section| section.name() == near) {
            Some(section) => format!("did you mean {}?", section.header()),
            None => format!("did you mean `{near}`?"),
        };
    }
    let inner = |section: &&Section| section.path.contains('.') && section.name() == typed;
    if let Some(inner) = SECTIONS.iter().find(inner) {
        let outer = inner.path.split('.').next().and_then(keys::section);
        let outer = outer.map(Section::header).unwrap_or_default();
        return format!("write {}, below the {outer} that it belongs to", inner.header());
    }
    let homes = homes(typed);
    if !homes.is_empty() {
        return format!("`{typed}` belongs {}", homes.join(" or "));
    }
    let keys = keys::section(path).map_or(&[][..], |section| section.keys);
    let known: Vec<String> = keys
        .iter()
        .map(|key| format!("`{}`", key.name))
        .chain(keys::children(path).map(Section::header))
        .collect();
    format!("known here: {}", known.join(", "))
}
