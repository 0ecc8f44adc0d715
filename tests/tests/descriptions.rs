//! One wrong system description for each rule, in `descriptions/`.
//!
//! A file begins with what has to be found in it, in order and nothing else:
//!
//! ```text
//! #! E002 unknown-key 4:1 [machine] has no key `memroy`
//! ```
//!
//! The rule, line and column, the message.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use images::description::{self, Diagnostic, Rule, position, render};
use std::path::{Path, PathBuf};

const MARK: &str = "#! ";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("descriptions")
}

/// The files: name and text.
fn files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Everything that is found in a text, warnings too.
fn found(text: &str) -> Vec<Diagnostic> {
    let programs = ["edu-driver".to_owned(), "blk-driver".to_owned()];
    match description::read(text, &folder(), &programs) {
        Ok(accepted) => accepted.warnings,
        Err(found) => found,
    }
}

fn told(text: &str) -> Vec<String> {
    let here = folder().display().to_string();
    found(text)
        .iter()
        .map(|one| {
            let (line, column) = position(text, one.span.start);
            let message = one.message.replace(&here, ".");
            format!("{} {line}:{column} {message}", one.rule)
        })
        .collect()
}

#[test]
fn each_wrong_file_is_told_what_and_where() {
    for (name, text) in files() {
        let expected: Vec<&str> = text
            .lines()
            .map_while(|line| line.strip_prefix(MARK))
            .collect();
        assert!(!expected.is_empty(), "{name}: says nothing to expect");
        assert_eq!(told(&text), expected, "{name}");
    }
}

#[test]
fn each_rule_has_a_file_named_after_it() {
    let files = files();
    for rule in Rule::ALL {
        assert!(
            files.iter().any(|(name, text)| {
                name.starts_with(rule.code()) && text.contains(&format!("{MARK}{rule} "))
            }),
            "no file shows {rule}: {}",
            rule.meaning()
        );
    }
}

#[test]
fn what_is_shown_has_file_line_column_rule_and_the_text_underlined() {
    for (name, text) in files() {
        let found = found(&text);
        let path = format!("{name}.toml");
        let shown = plain(&render(&path, &text, &found));
        for one in &found {
            let (line, column) = position(&text, one.span.start);
            assert!(
                shown.contains(&format!("{path}:{line}:{column}")),
                "{shown}"
            );
            assert!(shown.contains(&format!("[{}]: ", one.rule)), "{shown}");
            assert!(shown.contains('^'), "{shown}");
        }
    }
}

/// The text without colours.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[test]
fn the_systems_of_the_project_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let workspace = images::workspace::Workspace::find().unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("systems")).unwrap() {
        let path = entry.unwrap().path();
        let (accepted, text) = description::load(&path, &workspace.programs).unwrap();
        let shown = path.display().to_string();
        assert_eq!(
            accepted.warnings,
            [],
            "{}",
            render(&shown, &text, &accepted.warnings)
        );
        // Reports are named after systems: two files of one name would write the same.
        assert_eq!(
            path.file_stem().unwrap().to_string_lossy(),
            accepted.description.name
        );
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_systems_in_the_documents_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let programs = images::workspace::Workspace::find().unwrap().programs;
    let mut count = 0;
    for document in ["README.md", "docs/architecture.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let found = match description::read(block, &root, &programs) {
                Ok(accepted) => accepted.warnings,
                Err(found) => found,
            };
            assert_eq!(found, [], "{}", render(document, block, &found));
            count += 1;
        }
    }
    assert!(count >= 2);
}
