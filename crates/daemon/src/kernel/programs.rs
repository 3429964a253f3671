//! Which programs run, by the names that the kernel knows them by (15 bytes at most), and where
//! others are.

use std::fs;
use std::path::{Path, PathBuf};

/// Where programs are that `PATH` of a user does not lead to.
const ELSEWHERE: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The names of all running programs, from the `proc` below `root`.
pub(crate) fn running(root: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let processes =
        entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let name = |process: fs::DirEntry| fs::read_to_string(process.path().join("comm")).ok();
    processes.filter_map(name).map(|comm| comm.trim_end().to_owned())
}

/// Where a program is; nothing where it is not installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(ELSEWHERE.map(PathBuf::from));
    let is_program = |file: &PathBuf| {
        rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
    };
    folders.map(|folder| folder.join(name)).find(is_program)
}
