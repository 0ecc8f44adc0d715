//! What `iasl -d` says about tables, as numbers with names and offsets, for `acpi_iasl.rs`.

mod entry;
pub mod ours;
pub mod relabel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A value as `iasl` prints it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A number, or several bytes of one.
    Number(u64),
    /// Text: in quotes, or what is no single number.
    Text(String),
}

/// A field: what is at an offset, by name.
pub type Fields = BTreeMap<(usize, String), Value>;

/// What `iasl` says about a table.
#[derive(Default, Debug)]
pub struct Disassembly {
    /// The fields.
    pub fields: Fields,
    /// Offsets of structures that it does not know.
    pub unknown: Vec<usize>,
}

/// The version whose names of fields are known here: that of Debian 12.
const VERSION: &str = "20200925";

/// Has `iasl` decode tables: of each its name and bytes. One call takes them all.
///
/// # Errors
/// Why they cannot be compared: there is no `iasl`, or another version, which has other names.
pub fn disassemble(
    scratch: &Path,
    tables: &[(String, Vec<u8>)],
) -> Result<Vec<Disassembly>, String> {
    let about = Command::new("iasl").arg("-v").output();
    let about =
        about.map_err(|_| "iasl is not installed (Debian package acpica-tools)".to_owned())?;
    let about = String::from_utf8_lossy(&about.stdout).into_owned();
    if !about.contains(VERSION) {
        return Err(format!(
            "iasl is not version {VERSION}, whose names are known here: {about}"
        ));
    }
    std::fs::create_dir_all(scratch).unwrap();
    let files: Vec<PathBuf> = (0..tables.len())
        .map(|index| scratch.join(format!("{index:04}.dat")))
        .collect();
    for (file, (_, bytes)) in files.iter().zip(tables) {
        std::fs::write(file, bytes).unwrap();
        // Of a run before this one nothing may be left.
        let _ = std::fs::remove_file(file.with_extension("dsl"));
    }
    let run = Command::new("iasl")
        .arg("-d")
        .args(&files)
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let read = |file: &PathBuf| {
        let text = std::fs::read(file.with_extension("dsl")).unwrap();
        parse(&String::from_utf8_lossy(&text))
    };
    Ok(files.iter().map(read).collect())
}

/// Reads lines such as `[024h 0036   1]   Host Address Width : 26`. What follows a value in
/// brackets explains it; lines without an offset take a value apart.
fn parse(text: &str) -> Disassembly {
    let mut found = Disassembly::default();
    for line in text.lines() {
        let Some((place, rest)) = line.strip_prefix('[').and_then(|line| line.split_once(']'))
        else {
            continue;
        };
        let (Some(offset), Some((name, value))) =
            (place.split_whitespace().nth(1), rest.split_once(" : "))
        else {
            continue;
        };
        let offset = offset.parse().unwrap();
        if value.contains("[Unknown") {
            found.unknown.push(offset);
        }
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let earlier = found.fields.insert((offset, name), self::value(value));
        assert_eq!(earlier, None, "two fields of a name at {offset}");
    }
    found
}

fn value(text: &str) -> Value {
    let text = text.trim();
    if let Some((quoted, _)) = text
        .strip_prefix('"')
        .and_then(|rest| rest.rsplit_once('"'))
    {
        return Value::Text(quoted.to_owned());
    }
    let number = text.split(" [").next().unwrap_or_default().trim();
    match u64::from_str_radix(number, 16) {
        Ok(number) => Value::Number(number),
        Err(_) => Value::Text(number.to_owned()),
    }
}
