//! The programs that should run for us, with the texts that they read. Which, and with what texts,
//! is worked out above; here is only what such a program is.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::fingerprint;
use crate::observed::Running;

/// A program that should run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Program {
    /// Its name, looked up in `PATH` and where Debian keeps daemons, and its arguments. In these
    /// `{dir}` stands for the folder that has its files. Everybody can read arguments: no secrets.
    pub command: Vec<String>,
    /// The files that it reads at its start only, by name: with others it has to be started anew.
    pub files: BTreeMap<String, Text>,
    /// The files that it reads again on SIGHUP.
    pub reread: BTreeMap<String, Text>,
}

impl Program {
    /// How it is found running once it has been started as it should be.
    pub fn running(&self) -> Running {
        let command = self.command.iter().map(String::as_str);
        let program = fingerprint(command.chain(texts(&self.files)));
        Running { program, reread: fingerprint(texts(&self.reread)), stopping: false }
    }
}

fn texts(files: &BTreeMap<String, Text>) -> impl Iterator<Item = &str> {
    files.iter().flat_map(|(name, text)| [name.as_str(), text.text.as_str()])
}

/// The text of a file.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Only root may read it, and nothing prints it.
    pub secret: bool,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secret { f.write_str("***") } else { fmt::Debug::fmt(&self.text, f) }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text { text, secret: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(command: &[&str], file: &str, reread: &str) -> Program {
        let one = |text: &str| BTreeMap::from([("conf".to_owned(), Text::from(text.to_owned()))]);
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Program { command, files: one(file), reread: one(reread) }
    }

    #[test]
    fn a_program_is_known_by_its_words_and_texts_and_what_it_rereads_by_itself() {
        let first = program(&["dnsmasq", "-C"], "a", "b").running();
        assert_eq!(first, program(&["dnsmasq", "-C"], "a", "b").running());
        for other in [
            program(&["dnsmasq", "-C"], "ab", ""),
            program(&["dnsmasq-C"], "a", "b"),
            program(&["dnsmasq", "-C", "conf"], "a", "b"),
        ] {
            assert_ne!(first.program, other.running().program, "{other:?}");
        }
        let reread = program(&["dnsmasq", "-C"], "a", "c").running();
        assert_eq!(reread.program, first.program);
        assert_ne!(reread.reread, first.reread);
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Text { text: "hunter2".to_owned(), secret: true };
        assert_eq!(format!("{secret:?}"), "***");
    }
}
