//! The user's system description: a TOML file, read with positions, checked
//! against every [`Rule`] at once, and compiled to [`system::model::System`].
//!
//! - [`Description`]: all of it, checked.
//! - [`load`]: from a file. [`read`]: from text, for tests and editors.
//! - `section` reads tables, `values` texts, the other files a table each;
//!   `cross` has the rules that join several tables.
//!
//! `system` (the package) holds the compiled form and its bounds.

mod channel;
mod client;
mod cross;
pub mod demand;
mod diagnostic;
mod intx;
pub mod machine;
mod rule;
mod section;
pub mod step;
mod system;
mod values;

pub use self::cross::{ROOT, placeholders};
pub use self::diagnostic::{Diagnostic, position, render};
pub use self::rule::{Rule, Severity};
pub use self::section::Placed;
pub use self::system::Kernel;
pub use self::values::bytes;

use self::channel::Channel;
use self::client::Client;
use self::demand::{Expect, Scenario};
use self::diagnostic::Findings;
use self::machine::{Content, Machine};
use self::section::Section;
use self::step::Step;
use self::system::SystemSection;
use crate::kernel::KernelSpec;
use ::system::model::{self, MAX_CHANNELS, MAX_CLIENTS};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// A checked description.
#[derive(Clone, Debug)]
pub struct Description {
    /// Name of the system; files made for it bear it.
    pub name: String,
    /// A sentence about it.
    pub about: Option<String>,
    /// The machine to run it on.
    pub machine: Machine,
    /// How the kernel is built.
    pub kernel: Kernel,
    /// What a run has to show.
    pub expects: Vec<Expect>,
    /// What the host does while it runs.
    pub steps: Vec<Step>,
    /// Is it one of the scenarios of `./x test`?
    pub scenario: Option<Scenario>,
    /// Sentences about the clients, in their order.
    pub client_abouts: Vec<Option<String>>,
    /// Compiled form.
    pub system: model::System,
}

/// A description that was accepted, and what its author should know.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The description.
    pub description: Description,
    /// Rules of severity [`Severity::Warning`] that it breaks.
    pub warnings: Vec<Diagnostic>,
}

/// What reading has gathered, for the rules that join tables.
struct Parts {
    has_machine: bool,
    machine: Machine,
    disk_ids: Vec<Placed<String>>,
    system: SystemSection,
    intx: heapless::Vec<model::IntxRoute, { model::MAX_INTX_ROUTES }>,
    clients: Vec<Client>,
    channels: Vec<Channel>,
    expects: Vec<Expect>,
    steps: Vec<Step>,
}

/// Why a file gives no description.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It breaks rules.
    #[error("{} is not a valid system description ({} {})", path.display(), errors(found), if errors(found) == 1 { "error" } else { "errors" })]
    Refused {
        /// The file.
        path: PathBuf,
        /// Its text.
        source_text: String,
        /// What is wrong, in the order of the file.
        found: Vec<Diagnostic>,
    },
}

fn errors(found: &[Diagnostic]) -> usize {
    found
        .iter()
        .filter(|one| one.rule.severity() == Severity::Error)
        .count()
}

/// Reads and checks a file. `programs` are the names of the programs that there are.
/// Files that it names are looked for beside it.
///
/// # Errors
/// The file cannot be read, or breaks a rule of severity [`Severity::Error`].
pub fn load(path: &Path, programs: &[String]) -> Result<(Accepted, String), LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Unreadable {
        path: path.into(),
        source,
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    match read(&text, folder, programs) {
        Ok(accepted) => Ok((accepted, text)),
        Err(found) => Err(LoadError::Refused {
            path: path.into(),
            source_text: text,
            found,
        }),
    }
}

/// Reads and checks a text. `folder` is where files that it names are looked for.
///
/// # Errors
/// Everything that is wrong, in the order of the file, with warnings among it.
pub fn read(text: &str, folder: &Path, programs: &[String]) -> Result<Accepted, Vec<Diagnostic>> {
    let mut findings = Findings::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        findings.add(Rule::Syntax, span, error.message());
    }
    let description = if findings.is_empty() {
        let start = 0..text.lines().next().map_or(0, str::len);
        read_table(table.get_ref(), start, folder, programs, &mut findings)
    } else {
        // What the parser salvages from a broken file would only give misleading findings.
        None
    };
    let found = findings.into_sorted();
    match description {
        Some(description) if self::errors(&found) == 0 => Ok(Accepted {
            description,
            warnings: found,
        }),
        _ => Err(found),
    }
}

fn read_table(
    table: &DeTable<'_>,
    start: Range<usize>,
    folder: &Path,
    programs: &[String],
    findings: &mut Findings,
) -> Option<Description> {
    let mut section = Section::new("the description", table, start, findings);
    let name = section.parsed("name", values::name);
    if name.is_none() {
        section.missing_unless_wrong("name");
    }
    let about = section.text("about").map(|text| text.value.to_owned());
    let has_machine = section.has("machine");
    let machine = section.table("machine", "[machine]", machine::read);
    let kernel = section.table("kernel", "[kernel]", system::read_kernel);
    let system = section.table("system", "[system]", system::read);
    let clients: Vec<_> = section.tables("client", "[[client]]", |section| {
        (section.span(), client::read(section))
    });
    if let Some((span, _)) = clients.get(MAX_CLIENTS) {
        section.findings().add(
            Rule::TooLong,
            span.clone(),
            format!("a description has at most {MAX_CLIENTS} clients"),
        );
    }
    let channels = section.tables("channel", "[[channel]]", channel::read);
    let intx: Vec<_> = section.tables("intx", "[[intx]]", intx::read);
    let intx = intx::bounded(&mut section, intx);
    let expects = section.tables("expect", "[[expect]]", demand::read_expect);
    let steps = section.tables("step", "[[step]]", step::read);
    let scenario = section.table("scenario", "[scenario]", demand::read_scenario);
    section.finish();

    let (mut machine, disk_ids) = machine.unwrap_or_default();
    locate_files(&mut machine, folder, findings);
    let parts = Parts {
        has_machine,
        disk_ids,
        machine,
        system: system.unwrap_or_default(),
        intx,
        clients: clients
            .into_iter()
            .filter_map(|(_, client)| client)
            .collect(),
        channels: channels.into_iter().flatten().collect(),
        expects: expects.into_iter().flatten().collect(),
        steps: steps.into_iter().flatten().collect(),
    };
    cross::check(&parts, programs, findings);
    let channels = channel::check(&parts.channels, &parts.clients, findings);
    assemble(
        name?.value,
        about,
        kernel.unwrap_or_default(),
        scenario,
        parts,
        channels,
    )
}

fn assemble(
    name: &str,
    about: Option<String>,
    kernel: Kernel,
    scenario: Option<Scenario>,
    parts: Parts,
    channels: heapless::Vec<model::Channel, MAX_CHANNELS>,
) -> Option<Description> {
    let system = parts.system;
    let client_abouts = parts
        .clients
        .iter()
        .map(|client| client.about.clone())
        .collect();
    let mut clients = heapless::Vec::new();
    for client in parts.clients {
        clients.push(client.model).ok()?;
    }
    Some(Description {
        name: name.to_owned(),
        about,
        machine: parts.machine,
        kernel,
        expects: parts.expects,
        steps: parts.steps,
        scenario,
        client_abouts,
        system: model::System {
            format: model::FORMAT,
            name: heapless::String::try_from(name).ok()?,
            unprotected: system.unprotected,
            testing: system.testing,
            iommu: system.iommu,
            interrupt_remapping: system.interrupt_remapping,
            quarantine: system.quarantine,
            config_access: system.config_access,
            restarts: system.restarts,
            shards: system.shards,
            dma_pool: system.dma_pool,
            table_pages: system.table_pages,
            end: system.end,
            withheld: system.withheld_compiled,
            large_bars: system.large_bars,
            reserved_regions: system.reserved_regions,
            ats: system.ats,
            virtual_functions: system.virtual_functions,
            intx: parts.intx,
            clients,
            channels,
        },
    })
}

/// Makes the paths of disk files absolute, as seen from the description.
fn locate_files(machine: &mut Machine, folder: &Path, findings: &mut Findings) {
    for disk in &mut machine.disks {
        if let Content::File(path) = &mut disk.content {
            *path = folder.join(&*path);
            if !path.is_file() {
                findings.add(
                    Rule::BadContent,
                    disk.id.span.clone(),
                    format!("there is no file {}", path.display()),
                );
            }
        }
    }
}

impl Description {
    /// The compiled form as the root task reads it.
    ///
    /// # Errors
    /// Postcard's, which bounded lists cannot cause.
    pub fn compile(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&self.system)
    }

    /// The kernel that it runs on: for one core, or for as many as any machine may have.
    #[must_use]
    pub fn kernel_spec(&self) -> KernelSpec {
        let cores = match self.machine.cores {
            1 => 1,
            _ => machine::MAX_CORES as u32,
        };
        KernelSpec {
            without_patches: self.kernel.without_patches.clone(),
            ..KernelSpec::new(self.kernel.build, cores)
        }
    }

    /// The names of the programs its clients run, each once.
    #[must_use]
    pub fn programs(&self) -> Vec<&str> {
        let mut programs: Vec<&str> = self
            .system
            .clients
            .iter()
            .map(|client| client.program.as_str())
            .collect();
        programs.sort_unstable();
        programs.dedup();
        programs
    }
}

#[cfg(test)]
mod tests;
