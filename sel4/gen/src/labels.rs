//! Invocation labels: the numbers of the kernel objects' methods.
//!
//! Main type: [`Labels`]. A label is a method's position among the methods that
//! exist in a configuration, counted from 1 through the generic interface, then
//! the one of x86-64, then the one of x86 (kernel `api/invocation.h`,
//! `arch/api/sel4_invocation.h`, `arch/api/invocation.h`).

use std::fmt::Write as _;
use std::path::Path;

use roxmltree::Document;

use crate::{Condition, Config, Entry, Error};

/// The three XML files that describe the methods.
#[derive(Debug, Clone, Copy)]
pub struct InterfaceXml<'t> {
    /// All architectures (`sel4.xml`, later `object-api.xml`).
    pub generic: XmlFile<'t>,
    /// x86-64 alone (`sel4_arch_include/x86_64`).
    pub sel4_arch: XmlFile<'t>,
    /// x86 (`arch_include/x86`).
    pub arch: XmlFile<'t>,
}

/// A file that was read.
#[derive(Debug, Clone, Copy)]
pub struct XmlFile<'t> {
    /// Where it was, for error messages.
    pub path: &'t Path,
    /// What it says.
    pub text: &'t str,
}

/// The labels of one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    generic: Vec<Entry<u64>>,
    sel4_arch: Vec<Entry<u64>>,
    arch: Vec<Entry<u64>>,
}

impl Labels {
    /// Numbers the methods of the three files in `config`.
    ///
    /// # Errors
    /// [`Error::InFile`] for XML that is not well formed, a method without `id`,
    /// an unreadable condition, or one method twice.
    pub fn new(xml: InterfaceXml<'_>, config: &Config) -> Result<Self, Error> {
        // 0 is the kernel's `InvalidInvocation`.
        let mut next = 1;
        Ok(Self {
            generic: number(xml.generic, config, &mut next)?,
            sel4_arch: number(xml.sel4_arch, config, &mut next)?,
            arch: number(xml.arch, config, &mut next)?,
        })
    }

    /// Every method of the interface in order, with its number if it exists in
    /// this configuration.
    pub fn entries(&self) -> impl Iterator<Item = &Entry<u64>> {
        self.generic.iter().chain(&self.sel4_arch).chain(&self.arch)
    }

    /// The label of a method id such as `UntypedRetype`.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<u64> {
        self.entries()
            .find(|entry| entry.id == id)
            .and_then(|entry| entry.number)
    }

    /// The kernel's header `api/invocation.h`.
    #[must_use]
    pub fn generic_header(&self) -> String {
        header(
            "API_INVOCATION",
            None,
            "invocation_label",
            "InvalidInvocation = 0,\n    ",
            &self.generic,
        )
    }

    /// The kernel's header `arch/api/sel4_invocation.h`.
    #[must_use]
    pub fn sel4_arch_header(&self) -> String {
        header(
            "API_SEL4_ARCH_INVOCATION",
            Some("api/invocation.h"),
            "sel4_arch_invocation_label",
            "",
            &self.sel4_arch,
        )
    }

    /// The kernel's header `arch/api/invocation.h`.
    #[must_use]
    pub fn arch_header(&self) -> String {
        header(
            "API_ARCH_INVOCATION",
            Some("arch/api/sel4_invocation.h"),
            "arch_invocation_label",
            "",
            &self.arch,
        )
    }
}

fn number(file: XmlFile<'_>, config: &Config, next: &mut u64) -> Result<Vec<Entry<u64>>, Error> {
    methods(file.text, config, next).map_err(|error| error.in_file(file.path))
}

fn methods(text: &str, config: &Config, next: &mut u64) -> Result<Vec<Entry<u64>>, Error> {
    let document = Document::parse(text).map_err(|error| Error::Xml(error.to_string()))?;
    let mut entries: Vec<Entry<u64>> = Vec::new();
    for method in document
        .descendants()
        .filter(|node| node.has_tag_name("method"))
    {
        let Some(id) = method.attribute("id").filter(|id| !id.is_empty()) else {
            return Err(Error::MissingAttribute {
                element: "method".to_owned(),
                attribute: "id",
            });
        };
        let condition = Condition::of_element(method)?;
        let exists = condition.holds(config);
        let conditional = condition != Condition::Always;
        // One id may stand for several signatures, chosen by configuration.
        if let Some(earlier) = entries.iter_mut().find(|entry| entry.id == id) {
            earlier.conditional |= conditional;
            let declared = matches!(method.attribute("duplicate"), Some("true" | "1"));
            match (exists, earlier.number) {
                (false, _) => {}
                (true, Some(_)) if declared => {}
                (true, Some(_)) => return Err(Error::Duplicate(id.to_owned())),
                (true, None) => earlier.number = Some(take(next)),
            }
        } else {
            let number = exists.then(|| take(next));
            entries.push(Entry {
                id: id.to_owned(),
                number,
                conditional,
            });
        }
    }
    Ok(entries)
}

fn take(next: &mut u64) -> u64 {
    let number = *next;
    *next += 1;
    number
}

fn header(
    guard: &str,
    include: Option<&str>,
    name: &str,
    first: &str,
    entries: &[Entry<u64>],
) -> String {
    let mut text = format!("#ifndef GENERATED_{guard}_H\n#define GENERATED_{guard}_H\n");
    // Writing to a String cannot fail.
    if let Some(include) = include {
        let _ = writeln!(text, "#include <{include}>");
    }
    let existing: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.number.map(|number| (&entry.id, number)))
        .collect();
    // C has no empty enumeration.
    if !(existing.is_empty() && first.is_empty()) {
        let _ = write!(text, "enum {name} {{\n    {first}");
        for (id, number) in existing {
            let _ = write!(text, "{id} = {number},\n    ");
        }
        text.truncate(text.trim_end().len());
        text.push_str("\n};\n");
    }
    text.push_str("#endif\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERIC: &str = "<api><interface name='T'>
        <method id='A' name='a'><condition><not><config var='CONFIG_MCS'/></not></condition></method>
        <method id='A' name='a'><condition><config var='CONFIG_MCS'/></condition><param/></method>
        <method id='B' name='b' condition='CONFIG_MAX_NUM_NODES &gt; 1'/>
        <method id='C' name='c'/>
        <method id='C' name='c2' duplicate='true'/>
        </interface></api>";

    fn labels(generic: &str, cores: u64) -> Result<Labels, Error> {
        let mut config = Config::default();
        config.set("MAX_NUM_NODES", cores);
        let file = |path, text| XmlFile {
            path: Path::new(path),
            text,
        };
        let xml = InterfaceXml {
            generic: file("generic.xml", generic),
            sel4_arch: file("sel4_arch.xml", "<api/>"),
            arch: file("arch.xml", "<api><method id='D'/></api>"),
        };
        Labels::new(xml, &config)
    }

    #[test]
    fn a_label_counts_the_methods_that_exist() {
        let one = labels(GENERIC, 1).unwrap();
        let ids = ["A", "B", "C", "D"];
        assert_eq!(ids.map(|id| one.get(id)), [Some(1), None, Some(2), Some(3)]);
        let four = labels(GENERIC, 4).unwrap();
        assert_eq!(
            ids.map(|id| four.get(id)),
            [Some(1), Some(2), Some(3), Some(4)]
        );
        let conditional: Vec<_> = four.entries().map(|entry| entry.conditional).collect();
        assert_eq!(conditional, [true, true, false, false]);
    }

    #[test]
    fn headers_number_explicitly() {
        let one = labels(GENERIC, 1).unwrap();
        assert_eq!(
            one.generic_header(),
            "#ifndef GENERATED_API_INVOCATION_H\n#define GENERATED_API_INVOCATION_H\n\
             enum invocation_label {\n    InvalidInvocation = 0,\n    A = 1,\n    C = 2,\n};\n#endif\n"
        );
        assert!(!one.sel4_arch_header().contains("enum"));
        assert!(one.arch_header().contains("    D = 3,\n"));
    }

    #[test]
    fn faults_are_named() {
        let twice = "<api><method id='A'/><method id='A'/></api>";
        for (xml, message) in [
            (
                twice,
                "generic.xml: `A` is defined twice in this configuration",
            ),
            (
                "<api><method/></api>",
                "generic.xml: element <method> lacks the attribute `id`",
            ),
            ("<api>", "generic.xml: not well-formed XML"),
        ] {
            let error = labels(xml, 1).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
