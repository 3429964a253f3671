//! Which programs run, by the names that the kernel knows them by (15 bytes at most).

use std::fs;
use std::path::Path;

/// The names of all running programs, from the `proc` below `root`.
pub(crate) fn running(root: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let processes =
        entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let name = |process: fs::DirEntry| fs::read_to_string(process.path().join("comm")).ok();
    processes.filter_map(name).map(|comm| comm.trim_end().to_owned())
}
