//! `[[step]]`: what the host does to the machine while it runs, when a PD says
//! that it has come to a certain point (`@mark <name>`).

use super::rule::Rule;
use super::section::{Placed, Section};
use super::values;
use serde_json::Value;
use std::time::Duration;

/// Longest delay: longer ones belong into the guest.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Something to do at a mark, each time it is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The client whose mark it is.
    pub pd: Placed<String>,
    /// The mark's name.
    pub mark: Placed<String>,
    /// How long to wait before.
    pub delay: Duration,
    /// What to do.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A command for QEMU's monitor (QMP), with `execute` and perhaps `arguments`.
    Command(Value),
    /// Gives the client's dump to `lspci -F` and holds what that reads against QEMU's own list (`query-pci`).
    CompareDump,
    /// Holds the functions that the client listed (`@function`) against QEMU's own list (`query-pci`).
    ComparePci,
}

/// What can be compared.
#[derive(Clone, Copy)]
enum Compare {
    Pci,
    Dump,
}

/// Reads one `[[step]]`. `None`: something is missing or wrong, and noted.
pub fn read(mut section: Section<'_, '_>) -> Option<Step> {
    let pd = section.text("pd");
    if pd.is_none() {
        section.missing_unless_wrong("pd");
    }
    let mark = section.text("mark");
    if mark.is_none() {
        section.missing_unless_wrong("mark");
    }
    let delay = section.text_or_number("delay");
    let delay = delay.and_then(|text| section.accept(text.map(|text| values::duration(&text))));
    let command = section.parsed("qmp", command);
    let compare = section.choice("compare", &[("pci", Compare::Pci), ("dump", Compare::Dump)]);
    let span = section.span();
    if let Some(long) = delay.as_ref().filter(|delay| delay.value > MAX_DELAY) {
        section.findings().add(
            Rule::OutOfRange,
            long.span.clone(),
            format!("a step waits at most {} seconds", MAX_DELAY.as_secs()),
        );
    }
    let action = match (command, compare) {
        (Some(command), None) => Some(command.value),
        (None, Some(compare)) => Some(match compare.value {
            Compare::Pci => Action::ComparePci,
            Compare::Dump => Action::CompareDump,
        }),
        (None, None) if section.has("qmp") || section.has("compare") => None,
        _ => {
            section
                .findings()
                .add(Rule::BadStep, span, "a step has either `qmp` or `compare`");
            None
        }
    };
    section.finish();
    Some(Step {
        pd: pd?.map(str::to_owned),
        mark: mark?.map(str::to_owned),
        delay: delay.map_or(Duration::ZERO, |delay| delay.value),
        action: action?,
    })
}

fn command(text: &str) -> Result<Action, values::Wrong> {
    let wrong = |message: String| values::Wrong {
        rule: Rule::BadStep,
        message,
    };
    let value: Value = serde_json::from_str(text)
        .map_err(|error| wrong(format!("`qmp` takes a command in JSON: {error}")))?;
    if value.get("execute").is_some_and(Value::is_string) {
        Ok(Action::Command(value))
    } else {
        Err(wrong(
            "`qmp` takes a command with `execute`, and perhaps `arguments`".into(),
        ))
    }
}
