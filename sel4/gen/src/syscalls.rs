//! System call numbers, from `syscall.xml`.
//!
//! Main type: [`Syscalls`]. Numbers go down from -1 through the official calls,
//! then through the debug ones. A condition hides a call and does not renumber
//! those after it.

use std::fmt::Write as _;

use roxmltree::{Document, Node};

use crate::names::screaming_snake;
use crate::{Condition, Config, Entry, Error};

/// The system calls of one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syscalls {
    api: Vec<Entry<i64>>,
    debug: Vec<Entry<i64>>,
}

impl Syscalls {
    /// Numbers the calls of `syscall.xml` in `config`. The official list is
    /// `<api>` in old kernels, and `<api-master>` or `<api-mcs>` (by `KERNEL_MCS`) later.
    ///
    /// # Errors
    /// XML that is not well formed, no list of calls, a call without name or
    /// twice, or an unreadable condition.
    pub fn new(text: &str, config: &Config) -> Result<Self, Error> {
        let document = Document::parse(text).map_err(|error| Error::Xml(error.to_string()))?;
        let modern = if config.is_defined("KERNEL_MCS") {
            "api-mcs"
        } else {
            "api-master"
        };
        let find = |name: &str| document.descendants().find(|node| node.has_tag_name(name));
        let api = find(modern)
            .or_else(|| find("api"))
            .ok_or_else(|| Error::MissingElement(modern.to_owned()))?;
        let mut next = -1;
        let api = number(api, config, &mut next)?;
        let debug = match find("debug") {
            Some(debug) => number(debug, config, &mut next)?,
            None => Vec::new(),
        };
        let calls = Self { api, debug };
        let mut seen = std::collections::BTreeSet::new();
        for entry in calls.entries() {
            if !seen.insert(entry.id.as_str()) {
                return Err(Error::Duplicate(entry.id.clone()));
            }
        }
        Ok(calls)
    }

    /// Every call of the interface in order, with its number if it exists in
    /// this configuration.
    pub fn entries(&self) -> impl Iterator<Item = &Entry<i64>> {
        self.api.iter().chain(&self.debug)
    }

    /// The number of a call such as `ReplyRecv`.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<i64> {
        self.entries()
            .find(|entry| entry.id == id)
            .and_then(|entry| entry.number)
    }

    /// The kernel's header `arch/api/syscall.h`: numbers for C and assembler,
    /// the range of the official calls, and their names for debug builds.
    #[must_use]
    pub fn kernel_header(&self) -> String {
        let mut assembler = String::new();
        let mut names = String::new();
        // Writing to a String cannot fail.
        for (id, number) in existing(&self.api) {
            let _ = writeln!(
                assembler,
                "#define SYSCALL_{} ({number})",
                screaming_snake(id)
            );
            let _ = writeln!(names, "    [{}] = \"{id}\",", -number);
        }
        let mut numbers = String::new();
        for (id, number) in existing(&self.api).chain(existing(&self.debug)) {
            let _ = writeln!(numbers, "    Sys{id} = {number},");
        }
        let lowest = existing(&self.api)
            .map(|(_, number)| number)
            .min()
            .unwrap_or(-1);
        format!(
            "#ifndef GENERATED_API_SYSCALL_H\n#define GENERATED_API_SYSCALL_H\n\
             #define SYSCALL_MAX (-1)\n#define SYSCALL_MIN ({lowest})\n\
             #ifdef __ASSEMBLER__\n{assembler}#else\n\
             enum syscall {{\n{numbers}}};\ntypedef word_t syscall_t;\n\
             #ifdef CONFIG_DEBUG_BUILD\nstatic char *syscall_names[] UNUSED = {{\n{names}}};\n#endif\n\
             #endif\n#endif\n"
        )
    }
}

fn existing(entries: &[Entry<i64>]) -> impl Iterator<Item = (&str, i64)> {
    entries
        .iter()
        .filter_map(|entry| entry.number.map(|number| (entry.id.as_str(), number)))
}

fn number(list: Node<'_, '_>, config: &Config, next: &mut i64) -> Result<Vec<Entry<i64>>, Error> {
    let mut entries = Vec::new();
    for group in list.children().filter(|node| node.has_tag_name("config")) {
        let condition = Condition::of_element(group)?;
        let exists = condition.holds(config);
        for call in group.children().filter(|node| node.has_tag_name("syscall")) {
            let Some(name) = call.attribute("name").filter(|name| !name.is_empty()) else {
                return Err(Error::MissingAttribute {
                    element: "syscall".to_owned(),
                    attribute: "name",
                });
            };
            entries.push(Entry {
                id: name.to_owned(),
                number: exists.then_some(*next),
                conditional: condition != Condition::Always,
            });
            *next -= 1;
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: &str = "<syscalls>
        <api-master><config><syscall name='Call'/><syscall name='Recv'/></config></api-master>
        <api-mcs><config><syscall name='Call'/><syscall name='NBSendRecv'/><syscall name='Recv'/></config></api-mcs>
        <debug>
            <config><condition><config var='CONFIG_PRINTING'/></condition><syscall name='DebugPutChar'/></config>
            <config><condition><config var='CONFIG_VTX'/></condition><syscall name='VMEnter'/></config>
            <config><condition><config var='CONFIG_SET_TLS_BASE_SELF'/></condition><syscall name='SetTLSBase'/></config>
        </debug></syscalls>";

    fn calls(flags: &[&str]) -> Syscalls {
        let mut config = Config::default();
        for flag in flags {
            config.set(flag, true);
        }
        Syscalls::new(MODERN, &config).unwrap()
    }

    #[test]
    fn a_hidden_call_keeps_its_number() {
        let calls = calls(&["SET_TLS_BASE_SELF"]);
        assert_eq!(calls.get("Recv"), Some(-2));
        assert_eq!(calls.get("DebugPutChar"), None);
        assert_eq!(calls.get("SetTLSBase"), Some(-5));
    }

    #[test]
    fn mcs_has_its_own_list() {
        let calls = calls(&["KERNEL_MCS", "PRINTING"]);
        assert_eq!(calls.get("NBSendRecv"), Some(-2));
        assert_eq!(calls.get("DebugPutChar"), Some(-4));
        assert_eq!(calls.get("VMEnter"), None);
    }

    #[test]
    fn header_for_the_kernel() {
        let header = calls(&["PRINTING"]).kernel_header();
        for line in [
            "#define SYSCALL_MIN (-2)",
            "#define SYSCALL_CALL (-1)",
            "    SysDebugPutChar = -3,",
            "    [2] = \"Recv\",",
        ] {
            assert!(header.lines().any(|l| l == line), "{line}\n{header}");
        }
        assert!(!header.contains("SYSCALL_DEBUG"));
        assert!(!header.contains("VMEnter"));
    }

    #[test]
    fn faults_are_named() {
        let parse = |text| Syscalls::new(text, &Config::default());
        assert!(matches!(parse("<a"), Err(Error::Xml(_))));
        assert_eq!(
            parse("<syscalls/>"),
            Err(Error::MissingElement("api-master".into()))
        );
        assert!(matches!(
            parse("<s><api><config><syscall/></config></api></s>"),
            Err(Error::MissingAttribute { .. })
        ));
        assert_eq!(
            parse("<s><api><config><syscall name='A'/><syscall name='A'/></config></api></s>"),
            Err(Error::Duplicate("A".into()))
        );
    }
}
