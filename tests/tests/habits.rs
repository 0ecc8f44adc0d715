//! Habits that every file of the project keeps: it says first what it is for,
//! it is not too long, and it names nobody's machine.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};

/// A file that is longer holds more than one idea.
const MOST_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every file of the project, relative to its root.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![root()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != ".git" {
                open.push(path);
            } else if path.is_file() {
                files.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    files
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_rust_file_says_first_what_it_is_for() {
    let mut silent = Vec::new();
    for path in files().into_iter().filter(|path| is_rust(path)) {
        if !read(&path).starts_with("//! ") {
            silent.push(path);
        }
    }
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn no_rust_file_is_too_long() {
    let mut long = Vec::new();
    for path in files().into_iter().filter(|path| is_rust(path)) {
        let lines = read(&path).lines().count();
        if lines > MOST_LINES {
            long.push((path, lines));
        }
    }
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn no_file_names_a_path_of_somebodys_machine() {
    // In pieces, so that this file passes its own test.
    let folders = ["work", "root", "home", "tmp"].map(|name| format!("/{name}/"));
    let text = ["rs", "toml", "md", "sh", "ld", "lds", "c", "h", "patch", ""];
    let mut found = Vec::new();
    for path in files() {
        let extension = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !text.contains(&extension.as_str()) {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            if folders.iter().any(|folder| names(line, folder)) {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:?}");
}

/// Does a path in this line begin with the folder? Inside a path it may be one of the project's own.
fn names(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || "-_.}".contains(before))
    })
}
