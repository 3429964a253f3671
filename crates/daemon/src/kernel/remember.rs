//! What must outlive the daemon: the first values of kernel parameters, which CPUs did what before
//! us, and what our nftables table looked like when we loaded it. Small JSON files in the state
//! directory, each written beside and renamed. All describe the running kernel only, so they are
//! void after a reboot (and in another network namespace), and need no fsync. A full disk or a
//! read-only directory costs the memory, never the change itself.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anywan_core::observed::CpuFile;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

const SYSCTLS: &str = "sysctls.json";
const CPUS: &str = "cpus.json";
const TABLE: &str = "table.json";

/// How our table looked right after we had loaded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// The fingerprint of the text.
    pub(crate) fingerprint: u64,
    /// The hash of what the kernel made of it.
    pub(crate) hash: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stamped<T> {
    /// The running kernel and network namespace that this is about.
    about: String,
    #[serde(flatten)]
    what: T,
}

/// What things of one kind said before our first change.
#[derive(Debug, Serialize, Deserialize)]
struct Before<K: Ord> {
    before: BTreeMap<K, String>,
}

impl<K: Ord> Default for Before<K> {
    fn default() -> Before<K> {
        Before { before: BTreeMap::new() }
    }
}

impl<K: Ord> Before<K> {
    /// Remembers a value, unless an earlier one is remembered; whether that changes anything.
    fn remember(&mut self, key: K, value: String) -> bool {
        let new = !self.before.contains_key(&key);
        if new {
            self.before.insert(key, value);
        }
        new
    }
}

/// The memory of one state directory.
#[derive(Debug)]
pub(crate) struct Memory {
    directory: PathBuf,
    about: String,
    sysctls: Before<String>,
    cpus: Before<CpuFile>,
    table: Option<Loaded>,
}

impl Memory {
    /// Reads what an earlier daemon left.
    pub(crate) fn open(directory: &Path) -> Memory {
        let directory = directory.to_owned();
        let about = about();
        let sysctls = read(&directory.join(SYSCTLS), &about).unwrap_or_default();
        let cpus = read(&directory.join(CPUS), &about).unwrap_or_default();
        let table = read(&directory.join(TABLE), &about);
        Memory { directory, about, sysctls, cpus, table }
    }

    /// The values before our first change, by path.
    pub(crate) fn sysctls(&self) -> &BTreeMap<String, String> {
        &self.sysctls.before
    }

    /// Remembers the value of a parameter, unless an earlier one is remembered.
    pub(crate) fn remember_sysctl(&mut self, path: &str, value: String) {
        if self.sysctls.remember(path.to_owned(), value) {
            self.write(SYSCTLS, &self.sysctls);
        }
    }

    /// Forgets the value of a parameter.
    pub(crate) fn forget_sysctl(&mut self, path: &str) {
        if self.sysctls.before.remove(path).is_some() {
            self.write(SYSCTLS, &self.sysctls);
        }
    }

    /// What the files that we changed said before.
    pub(crate) fn cpus(&self) -> &BTreeMap<CpuFile, String> {
        &self.cpus.before
    }

    /// Remembers what a file says, unless something earlier is remembered.
    pub(crate) fn remember_cpus(&mut self, file: &CpuFile, value: String) {
        if self.cpus.remember(file.clone(), value) {
            self.write(CPUS, &self.cpus);
        }
    }

    /// Forgets what a file said.
    pub(crate) fn forget_cpus(&mut self, file: &CpuFile) {
        if self.cpus.before.remove(file).is_some() {
            self.write(CPUS, &self.cpus);
        }
    }

    /// What our table looked like when we loaded it.
    pub(crate) fn table(&self) -> Option<Loaded> {
        self.table
    }

    /// Remembers what our table looks like; `None` once it is deleted.
    pub(crate) fn set_table(&mut self, table: Option<Loaded>) {
        if self.table == table {
            return;
        }
        self.table = table;
        match table {
            Some(loaded) => self.write(TABLE, loaded),
            None => {
                // One that stays behind only describes a table that is not there.
                let _ = fs::remove_file(self.directory.join(TABLE));
            }
        }
    }

    fn write<T: Serialize>(&self, name: &str, what: T) {
        let path = self.directory.join(name);
        let stamped = Stamped { about: self.about.clone(), what };
        if let Err(error) = replace(&path, &stamped) {
            let file = path.display().to_string();
            warn!(file, %error, "cannot remember this; going on without");
        }
    }
}

fn replace<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(value)?;
    let beside = path.with_extension("json.new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

/// What a file says, when it is about this kernel and namespace.
fn read<T: DeserializeOwned>(path: &Path, about: &str) -> Option<T> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(file = %path.display(), %error, "cannot read what was remembered");
            }
            return None;
        }
    };
    match serde_json::from_slice::<Stamped<T>>(&text) {
        Ok(stamped) => (stamped.about == about).then_some(stamped.what),
        Err(error) => {
            warn!(file = %path.display(), %error, "what was remembered is damaged; ignored");
            None
        }
    }
}

/// Names the running kernel and the network namespace of this thread.
fn about() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}
