//! What the documents say is there: their links lead somewhere, every page can be found, quoted commands and files
//! exist, and quoted system descriptions are valid.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The documents, relative to the root.
fn documents() -> Vec<String> {
    let mut found = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for folder in ["docs", "docs/adr"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    found.sort();
    assert!(found.len() > 10);
    found
}

/// A document's lines outside of code blocks, and its blocks with their languages.
fn parts(text: &str) -> (String, Vec<(String, String)>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, block)), None) => *block += &format!("{line}\n"),
            (None, None) => prose += &format!("{line}\n"),
        }
    }
    (prose, blocks)
}

/// What stands between `open` and `close`.
fn between<'t>(text: &'t str, open: &'t str, close: char) -> impl Iterator<Item = &'t str> {
    let rest = text.split(open).skip(1);
    rest.filter_map(move |rest| Some(rest.split_once(close)?.0))
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let (prose, _) = parts(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Links of a document to places in the project: the file, relative to the root, and the anchor.
fn links(document: &str) -> Vec<(PathBuf, String)> {
    let (prose, _) = parts(&read(document));
    let folder = Path::new(document).parent().unwrap();
    between(&prose, "](", ')')
        .filter(|link| !link.starts_with("https://"))
        .map(|link| {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = match file {
                "" => PathBuf::from(document),
                _ => folder.join(file),
            };
            (file, anchor.to_owned())
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for document in documents() {
        for (file, anchor) in links(&document) {
            seen += 1;
            let there = root().join(&file);
            let found = there.exists()
                && (anchor.is_empty()
                    || anchors(&std::fs::read_to_string(&there).unwrap()).contains(&anchor));
            if !found {
                broken.push(format!("{document}: {}#{anchor}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_page_is_linked_from_the_readme() {
    let linked = links("README.md");
    let missing: Vec<String> = documents()
        .into_iter()
        .filter(|document| document.starts_with("docs/") && !document.starts_with("docs/adr/"))
        .filter(|document| linked.iter().all(|(file, _)| file != Path::new(document)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_command_is_one_of_the_tools() {
    let tool = read("images/src/main.rs");
    let actions = tool.split_once("enum Action {").unwrap().1;
    let known: Vec<String> = actions
        .lines()
        .take_while(|line| *line != "}")
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.trim_end_matches([' ', '{', ',']).to_lowercase())
        .collect();
    assert!(
        known.len() > 5 && known.contains(&"run".to_owned()),
        "{known:?}"
    );
    let mut wrong = Vec::new();
    for document in documents() {
        for rest in read(&document).split("./x ").skip(1) {
            let word: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
            if !word.is_empty() && !known.contains(&word) {
                wrong.push(format!("{document}: ./x {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_that_is_named_exists() {
    let folders = [
        "systems/", "drivers/", "docs/", "images/", "tests/", "client/",
    ];
    let mut absent = Vec::new();
    for document in documents().iter().filter(|name| *name != "CHANGELOG.md") {
        let (prose, _) = parts(&read(document));
        for name in between(&prose, "`", '`') {
            // One with a pattern, or of somebody's own, is no file of ours.
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let ours = folders.iter().any(|folder| name.starts_with(folder));
            if ours
                && name.chars().all(plain)
                && !name.contains("/mine")
                && !root().join(name).exists()
            {
                absent.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(absent.is_empty(), "{absent:#?}");
}

#[test]
fn every_description_is_valid() {
    let programs = ["edu-driver", "example"].map(str::to_owned);
    let mut seen = 0;
    for document in documents() {
        let (_, blocks) = parts(&read(&document));
        for (language, text) in blocks {
            if language == "toml" && text.starts_with("name = ") {
                seen += 1;
                let found = images::description::read(&text, &root(), &programs);
                let found = found.map_or_else(|wrong| wrong, |accepted| accepted.warnings);
                let shown = images::description::render(&document, &text, &found);
                assert!(found.is_empty(), "{shown}");
            }
        }
    }
    assert!(seen >= 3, "{seen}");
}

/// Who copies the driver from the page copies what is built and run.
#[test]
fn the_driver_to_copy_is_the_one_that_runs() {
    let (_, blocks) = parts(&read("docs/writing-a-driver.md"));
    let blocks: Vec<_> = blocks.into_iter().map(|(_, block)| block).collect();
    let program = read("drivers/example/src/main.rs");
    let (_, program) = program.split_once("\n\n").unwrap();
    let files = [
        read("drivers/example/Cargo.toml"),
        program.to_owned(),
        read("systems/example.toml"),
    ];
    assert!(blocks == files, "docs/writing-a-driver.md has other text");
}
