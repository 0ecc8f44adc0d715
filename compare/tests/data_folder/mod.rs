//! Where data of real machines is: a folder outside the tree, named by
//! `PORTCULLIS_DATA` or beside it in `../shared/data`.

use std::io::Write as _;
use std::path::PathBuf;

/// The folder; `None`, and a line that the test harness does not hide, if there is none.
pub fn find(test: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let folder = std::env::var_os("PORTCULLIS_DATA").map_or(PathBuf::from(beside), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    say(&format!("{test}: skipped: data folder absent"));
    None
}

/// Says something even if the test passes: the harness captures only `print!` and `eprint!`.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
