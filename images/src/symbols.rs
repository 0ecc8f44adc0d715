//! Where in a program an address is: for faults that the root task prints.

use crate::description::Description;
use crate::programs::{Programs, SERVERS};
use crate::transcript::Transcript;
use std::path::Path;

/// What a line of the root task about a fault holds: `... fault ... ip=0x<hexadecimal>`.
const MARK: &str = "ip=0x";

/// A fault with its place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line that tells of it.
    pub line: String,
    /// Function, file and line, where the program's symbols say it.
    pub place: Option<String>,
}

/// The faults that a transcript tells of.
#[must_use]
pub fn faults(
    description: &Description,
    programs: &Programs,
    transcript: &Transcript,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for line in &transcript.lines {
        let Some(address) = address(&line.text) else {
            continue;
        };
        if line.pd.as_deref() != Some(crate::description::ROOT) {
            continue;
        }
        let place = program(description, &line.text)
            .and_then(|program| place(&programs.path(program), address));
        faults.push(Fault {
            line: line.text.clone(),
            place,
        });
    }
    faults
}

fn address(text: &str) -> Option<u64> {
    if !text.contains("fault") {
        return None;
    }
    let rest = text.split_once(MARK)?.1;
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok()
}

/// The program of the PD that the line names.
fn program<'d>(description: &'d Description, text: &str) -> Option<&'d str> {
    let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.find_map(|word| {
        let client = description
            .system
            .clients
            .iter()
            .find(|client| client.name.as_str() == word)
            .map(|client| client.program.as_str());
        // A shard's name is its program's, with a number behind it.
        client.or_else(|| {
            SERVERS.into_iter().find(|server| {
                word.strip_prefix(server)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            })
        })
    })
}

/// `function at file:line`, the innermost first.
fn place(program: &Path, address: u64) -> Option<String> {
    let loader = addr2line::Loader::new(program).ok()?;
    let mut frames = loader.find_frames(address).ok()?;
    let mut places = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        let function = frame
            .function
            .and_then(|function| function.demangle().ok().map(|name| name.into_owned()));
        let location = frame.location.and_then(|location| {
            let file = Path::new(location.file?)
                .file_name()?
                .to_string_lossy()
                .into_owned();
            Some(format!("{file}:{}", location.line?))
        });
        match (function, location) {
            (Some(function), Some(location)) => places.push(format!("{function} at {location}")),
            (Some(one), None) | (None, Some(one)) => places.push(one),
            (None, None) => {}
        }
    }
    (!places.is_empty()).then(|| places.join(", called from "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_have_addresses() {
        assert_eq!(address("fault of a: ip=0x40123f sp=0x1"), Some(0x40_123f));
        assert_eq!(address("started a: ip=0x40123f"), None);
        assert_eq!(address("fault of a: sp=0x1"), None);
    }

    #[test]
    fn the_line_says_which_program() {
        let text = "name = \"t\"\n[[client]]\nname = \"one\"\nprogram = \"p\"\n";
        let description = crate::description::read(text, Path::new("."), &["p".into()])
            .unwrap()
            .description;
        assert_eq!(program(&description, "fault of one: ip=0x1"), Some("p"));
        assert_eq!(
            program(&description, "fault pd=pci-server-1 ip=0x1"),
            Some("pci-server")
        );
        assert_eq!(program(&description, "fault of nobody: ip=0x1"), None);
    }

    #[test]
    fn a_place_in_a_real_program_is_found() {
        use object::{Object, ObjectSymbol};
        // This test's own program, and this function in it.
        let program = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&program).unwrap();
        let file =
            object::read::elf::ElfFile64::<object::Endianness>::parse(bytes.as_slice()).unwrap();
        let symbol = file
            .symbols()
            .find(|symbol| {
                symbol
                    .name()
                    .is_ok_and(|name| name.contains("a_place_in_a_real_program"))
            })
            .unwrap();
        let place = place(&program, symbol.address()).unwrap();
        assert!(
            place.contains("a_place_in_a_real_program_is_found"),
            "{place}"
        );
        assert!(place.contains("symbols.rs:"), "{place}");
        assert_eq!(super::place(Path::new("/nowhere"), 0), None);
    }
}
