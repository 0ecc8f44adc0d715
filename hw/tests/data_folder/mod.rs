//! Where data of real machines is: a folder outside the tree, named by
//! `PORTCULLIS_DATA` or beside it in `../shared/data`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The folder; `None`, and a line that the test harness does not hide, if there is none.
pub fn find(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("PORTCULLIS_DATA").map(PathBuf::from);
    // Packages lie at different depths of the tree.
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(2);
    let beside = above.map(|folder| folder.join("shared/data"));
    let found = match named {
        Some(folder) => Some(folder).filter(|folder| folder.is_dir()),
        None => beside.take(2).find(|folder| folder.is_dir()),
    };
    if found.is_some() {
        return found;
    }
    say(&format!("{test}: skipped: data folder absent"));
    None
}

/// Says something even if the test passes: the harness captures only `print!` and `eprint!`.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
