//! The house rules that a machine can check: how long files, functions and lines are, that every
//! file says what it is, and that the core stays free of I/O.

#![expect(clippy::disallowed_methods, reason = "the core does no I/O, its tests read files")]

use std::fs;
use std::path::{Path, PathBuf};

/// A file over this is split.
const FILE_LINES_MAX: usize = 600;
/// A function over this is split.
const FUNCTION_LINES_MAX: usize = 70;
/// What fits beside another file on a screen.
const COLUMNS_MAX: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut todo = vec![root().join("crates")];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).expect("the tree is readable") {
            let path = entry.expect("the tree is readable").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                let name = path.strip_prefix(root()).expect("below the root");
                found.push((name.display().to_string(), text));
            }
        }
    }
    assert!(found.len() > 40, "only {} sources found", found.len());
    found.sort();
    found
}

fn check(rule: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

#[test]
fn no_file_is_over_the_wall() {
    let long = sources().into_iter().filter(|(_, text)| text.lines().count() > FILE_LINES_MAX);
    check(
        "over 600 lines",
        long.map(|(name, text)| format!("{name}: {}", text.lines().count())).collect(),
    );
}

#[test]
fn no_line_is_too_wide() {
    let mut wide = Vec::new();
    for (name, text) in sources() {
        let mut quoted = false;
        for (number, line) in (1..).zip(text.lines()) {
            // A long string cannot always be broken; one over many lines is a picture.
            quoted = if quoted { !line.ends_with("\";") } else { line.ends_with("= \"\\") };
            if !quoted
                && line.chars().count() > COLUMNS_MAX
                && !line.contains('"')
                && !line.contains("//")
            {
                wide.push(format!("{name}:{number}"));
            }
        }
    }
    check("over 100 columns", wide);
}

#[test]
fn no_function_is_over_the_wall() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let body = line.trim_start();
            let indent = line.len() - body.len();
            let head = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "unsafe "]
                .iter()
                .fold(body, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
            if !head.starts_with("fn ") {
                continue;
            }
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[start..].iter().position(|l| *l == end).unwrap_or(0);
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{name}:{}: {length} lines", start + 1));
            }
        }
    }
    check("functions over 70 lines", long);
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//! "));
    check("no //! at the top", silent.map(|(name, _)| name).collect());
}

#[test]
fn the_core_knows_no_clock_no_io_and_no_runtime() {
    const BANNED: [&str; 8] = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::process",
        "std::thread",
        "std::env",
        "Instant::now",
        "SystemTime",
    ];
    let mut found = Vec::new();
    for (name, text) in sources() {
        if !name.starts_with("crates/core/src") || name.ends_with("tests.rs") {
            continue;
        }
        found.extend(BANNED.iter().filter(|b| text.contains(**b)).map(|b| format!("{name}: {b}")));
    }
    check("not pure", found);
    let manifest = fs::read_to_string(root().join("crates/core/Cargo.toml")).expect("is there");
    let (dependencies, _) = manifest.split_once("[dev-dependencies]").expect("has both");
    for banned in ["tokio", "netlink", "rustix", "libc", "socket2"] {
        assert!(!dependencies.contains(banned), "the core depends on {banned}");
    }
}

#[test]
fn the_rooms_of_the_core_are_a_staircase() {
    const STAIRS: [&[&str]; 11] = [
        &["names", "time"],
        &["observed", "api"],
        &["config"],
        &["facts"],
        &["health", "dhcp"],
        &["choose", "dial"],
        &["resolvers"],
        &["desired"],
        &["render"],
        &["steps"],
        &["engine", "doctor"],
    ];
    let stair = |room: &str| STAIRS.iter().position(|rooms| rooms.contains(&room));
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let Some(inner) = name.strip_prefix("crates/core/src/") else { continue };
        let room = inner.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = stair(room).filter(|_| !name.ends_with("tests.rs")) else { continue };
        let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for used in code.split("crate::").skip(1) {
            let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next();
            if used.and_then(stair).is_some_and(|other| other > own) {
                wrong.push(format!("{name} uses {}", used.unwrap_or_default()));
            }
        }
    }
    check("imports that go up the stairs", wrong);
}
