//! Text to [`Config`], valid by construction; every error has a place and a hint.
//!
//! In: the text of a configuration file. Out: a [`Config`], or all [`Fault`]s of the file at once.
//! On the way: `syntax` makes TOML tables of the text, `walk` holds them against the one table of
//! keys in `keys`, `check` looks at what sections mean together, `build` fills in the defaults.
//! The JSON schema ([`schema()`]) and the reference ([`reference()`]) come from the same table.
//! Opens no file and looks at no interface.

mod address;
mod addresses;
mod build;
mod bytes;
mod check;
mod duration;
mod fault;
mod interface;
mod keys;
mod mistakes;
mod model;
mod near;
mod reference;
mod schema;
mod secrets;
mod served;
mod show;
mod syntax;
mod target;
mod text;
mod types;
mod value;
mod walk;

pub use fault::{CODES, Fault, MAX_FAULTS};
pub use model::*;
pub(crate) use near::nearest;
pub use reference::reference;
pub use schema::schema;
pub use secrets::{exposed, exposed_files};
pub use show::render;

use fault::{Faults, Wrong};

/// The largest file that is read, in bytes: a thousand times what 62 WANs need.
pub const MAX_BYTES: usize = 1 << 20;

/// Reads a configuration. All faults come at once, in the order of the text, at most
/// [`MAX_FAULTS`] and one that counts the others.
pub fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    if text.len() > MAX_BYTES {
        return Err(vec![too_large(text.len())]);
    }
    let mut faults = Faults::default();
    let mut document = syntax::read(text);
    faults.count(document.unread);
    for fault in std::mem::take(&mut document.faults) {
        faults.push(fault);
    }
    let draft = walk::walk(&document, &mut faults);
    if !document.torn {
        check::check(&draft, &mut faults);
    }
    match build::config(&draft) {
        Some(config) if faults.is_empty() => Ok(config),
        Some(_) | None => Err(faults.into_sorted()),
    }
}

/// Reads a configuration from the bytes of a file.
pub fn parse_bytes(bytes: &[u8]) -> Result<Config, Vec<Fault>> {
    if bytes.len() > MAX_BYTES {
        return Err(vec![too_large(bytes.len())]);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(error) => Err(vec![not_utf8(bytes, error.valid_up_to())]),
    }
}

fn too_large(bytes: usize) -> Fault {
    let what = format!("{bytes} bytes are more than {MAX_BYTES} (1 MiB)");
    let hint = "this can hardly be a configuration: check the name of the file";
    Wrong::new("config.too-large", what, hint).at("the file", 0..0)
}

/// The fault at the first byte that is not UTF-8; its span fits the lossy text of the file, which
/// is the same up to there.
fn not_utf8(bytes: &[u8], at: usize) -> Fault {
    let before = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default());
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    let byte = bytes.get(at).copied().unwrap_or_default();
    let hint = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        "the file is UTF-16: save it as UTF-8"
    } else if bytes.contains(&0) {
        "this is not a text file: check the name of the file"
    } else {
        "save the file as UTF-8"
    };
    let what = format!("byte {byte:#04x} is not UTF-8");
    let span = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
    Wrong::new("config.not-utf8", what, hint).at(format!("line {line}, column {column}"), span)
}
