//! Where in a program an address is: for faults that the root task prints.

use crate::description::{Description, ROOT};
use crate::programs::{Programs, SERVERS};
use crate::transcript::{Line, Transcript};
use std::path::Path;

/// How a line of the root task about a fault begins; the PD's name follows.
const MARK: &str = "fault: ";

/// How the root task marks a fault of who has used up its stack.
const OVERFLOW: &str = "(stack overflow)";
const MORE_STACK: &str = "a client's `stack` is 64K unless its description says more";
/// How a program's last line begins that panicked.
const PANIC: &str = "panic: ";

/// Beginnings of the names of functions that are Rust's own.
const LIBRARIES: [&str; 4] = ["core::", "alloc::", "<core::", "<alloc::"];

/// A fault with its place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line that tells of it.
    pub line: String,
    /// Function, file and line, where the program's symbols say it; of a panic the PD's own words.
    pub place: Option<String>,
    /// What could be done about it.
    pub help: Option<&'static str>,
}

/// The faults that a transcript tells of.
#[must_use]
pub fn faults(
    description: &Description,
    programs: &Programs,
    transcript: &Transcript,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in transcript.lines.iter().enumerate() {
        if line.pd.as_deref() != Some(ROOT) {
            continue;
        }
        // The lines with registers have no address of this form.
        let Some((pd, address)) = parse(&line.text) else {
            continue;
        };
        faults.push(Fault {
            line: line.text.clone(),
            // The address of a panic is the panic handler's.
            place: panic(transcript.lines.get(..number).unwrap_or_default(), pd).or_else(|| {
                let program = program(description, pd)?;
                Some(format!("in {}", place(&programs.path(program), address)?))
            }),
            help: line.text.ends_with(OVERFLOW).then_some(MORE_STACK),
        });
    }
    faults
}

/// The PD's last words, if it panicked.
fn panic(lines: &[Line], pd: &str) -> Option<String> {
    let own = |line: &&Line| line.pd.as_deref() == Some(pd);
    let last = lines.iter().rev().find(own)?;
    last.text.starts_with(PANIC).then(|| last.text.clone())
}

/// Name and address of `fault: <pd>: ... at 0x<hexadecimal>...`.
fn parse(text: &str) -> Option<(&str, u64)> {
    let (pd, what) = text.strip_prefix(MARK)?.split_once(": ")?;
    let (_, rest) = what.split_once(" at 0x")?;
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    Some((pd, u64::from_str_radix(digits, 16).ok()?))
}

/// The program of a PD.
fn program<'d>(description: &'d Description, pd: &str) -> Option<&'d str> {
    let clients = &description.system.clients;
    let client = clients.iter().find(|client| client.name.as_str() == pd);
    client.map(|client| client.program.as_str()).or_else(|| {
        // A shard's name is its program's, with a number behind it.
        SERVERS.into_iter().find(|server| {
            pd.strip_prefix(server)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    })
}

/// `function at file:line`.
fn place(program: &Path, address: u64) -> Option<String> {
    let loader = addr2line::Loader::new(program).ok()?;
    let mut frames = loader.find_frames(address).ok()?;
    let mut places = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        let function = frame
            .function
            .and_then(|function| function.demangle().ok().map(|name| name.into_owned()))
            // With line tables alone, only the symbols know a function that is not inlined.
            .or_else(|| {
                Some(addr2line::demangle_auto(loader.find_symbol(address)?.into(), None).into())
            });
        let location = frame.location.and_then(|location| {
            let file = Path::new(location.file?)
                .file_name()?
                .to_string_lossy()
                .into_owned();
            Some(format!("{file}:{}", location.line?))
        });
        let words: Vec<String> = function.into_iter().chain(location).collect();
        if !words.is_empty() {
            places.push(words.join(" at "));
        }
    }
    // What was inlined from Rust's own libraries is not where the program is wrong.
    let foreign = |place: &&String| LIBRARIES.iter().any(|library| place.starts_with(library));
    places
        .iter()
        .find(|place| !foreign(place))
        .or(places.first())
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_have_addresses() {
        let page = "fault: a: page fault: write of 0x10 at 0x40123f (error code 0x6)";
        assert_eq!(parse(page), Some(("a", 0x40_123f)));
        assert_eq!(
            parse("fault: a-1: panicked at 0x401000, see its log"),
            Some(("a-1", 0x40_1000))
        );
        assert_eq!(parse("fault: a: rip 40123f rsp 1000 rbp 0 rflags 2"), None);
        assert_eq!(parse("started: a: at 0x40123f"), None);
    }

    #[test]
    fn who_panicked_has_said_why() {
        let text = "a| panic: no device at src/main.rs:7\nb| hello\nroot| fault: a: panicked at 0x401000, see its log\n";
        let transcript = Transcript::from_text(text);
        let said = |pd| panic(&transcript.lines, pd);
        assert_eq!(
            said("a").as_deref(),
            Some("panic: no device at src/main.rs:7")
        );
        assert_eq!(said("b"), None);
        assert_eq!(said("c"), None);
    }

    #[test]
    fn the_name_says_which_program() {
        let text = "name = \"t\"\n[[client]]\nname = \"one\"\nprogram = \"p\"\n";
        let description = crate::description::read(text, Path::new("."), &["p".into()])
            .unwrap()
            .description;
        assert_eq!(program(&description, "one"), Some("p"));
        assert_eq!(program(&description, "pci-server-1"), Some("pci-server"));
        assert_eq!(program(&description, "console"), Some("console"));
        assert_eq!(program(&description, "nobody"), None);
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
