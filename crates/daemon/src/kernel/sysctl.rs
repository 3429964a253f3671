//! Reads and writes kernel parameters below `/proc/sys/net`. In: paths such as
//! `net/ipv4/ip_forward`. Out: their values without the line's end. Refuses any other path.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::error::KernelError;
use super::remember::Memory;

/// The values of some parameters; those that do not exist are absent.
pub(crate) fn read<P: AsRef<str>>(
    paths: impl IntoIterator<Item = P>,
) -> Result<BTreeMap<String, String>, KernelError> {
    let mut values = BTreeMap::new();
    for path in paths {
        if let Some(value) = read_one(path.as_ref())? {
            values.insert(path.as_ref().to_owned(), value);
        }
    }
    Ok(values)
}

fn read_one(path: &str) -> Result<Option<String>, KernelError> {
    match fs::read_to_string(file(path)?) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KernelError::Sysctl { what: format!("read sysctl {path}"), source }),
    }
}

/// Writes a parameter, after its present value has been remembered.
pub(crate) fn set(memory: &mut Memory, path: &str, value: &str) -> Result<(), KernelError> {
    if let Some(before) = read_one(path)? {
        memory.remember_sysctl(path, before);
    }
    write(path, value)
}

/// Writes the value that a parameter had before us, and forgets it. One that went away with its
/// interface needs no restoring.
pub(crate) fn restore(memory: &mut Memory, path: &str, value: &str) -> Result<(), KernelError> {
    if read_one(path)?.is_some() {
        write(path, value)?;
    }
    memory.forget_sysctl(path);
    Ok(())
}

fn write(path: &str, value: &str) -> Result<(), KernelError> {
    let what = || format!("set sysctl {path} to {value}");
    // Not `fs::write`: it would create a file, should the parameter not exist.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(file(path)?)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|source| KernelError::Sysctl { what: what(), source })
}

fn file(path: &str) -> Result<PathBuf, KernelError> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || !path.starts_with("net/") {
        return Err(KernelError::SysctlPath { path: path.to_owned() });
    }
    Ok(Path::new("/proc/sys").join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_below_net_have_a_file() {
        assert!(file("net/ipv4/conf/eth0.7/rp_filter").is_ok());
        for path in ["", "/etc/passwd", "kernel/hostname", "net/../kernel/hostname", "network"] {
            assert!(file(path).is_err(), "{path}");
        }
    }
}
