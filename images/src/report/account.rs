//! [`Account`]: a run told to people: what was found, who got what, what was
//! refused, how long it took.

use super::Files;
use crate::description::{Description, ROOT, bytes};
use crate::judge::{
    BOOT_METRIC, Check, Ending, NEVER_SAID, Outcome, RUN_METRIC, Verdict, resources,
};
use crate::kernel::BuiltKernel;
use crate::qemu::Run;
use crate::symbols::Fault;
use crate::transcript::{Death, Event, Held, Line};
use crate::workspace::Workspace;
use hw::Sbdf;
use owo_colors::{OwoColorize, Style};
use std::collections::BTreeMap;
use std::fmt;
use system::bundle::program;

/// Lines shown of a run that did not come to its end.
const LAST_LINES: usize = 20;
/// Lines of figures tell nobody what happened last.
const FIGURE: &str = "@figure ";
/// Room for a check's name.
const CHECK_WIDTH: usize = 24;

/// All that there is to tell of a run. Displays as text with colours;
/// `anstream` removes them where none belong.
pub struct Account<'a> {
    /// The project, for paths.
    pub workspace: &'a Workspace,
    /// What was run.
    pub description: &'a Description,
    /// The kernel it ran on.
    pub kernel: &'a BuiltKernel,
    /// The run.
    pub run: &'a Run,
    /// The judgement.
    pub verdict: &'a Verdict,
    /// Faults, with their places.
    pub faults: &'a [Fault],
    /// Where the report is.
    pub files: &'a Files,
}

impl fmt::Display for Account<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.machine(f)?;
        self.found(f)?;
        self.devices(f)?;
        self.checks(f)?;
        self.resources(f)?;
        self.metrics(f)?;
        self.restarts(f)?;
        self.faults(f)?;
        self.last_lines(f)?;
        self.outcome(f)
    }
}

/// A heading.
fn title(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    writeln!(f, "\n{}", text.bold())
}

impl Account<'_> {
    fn machine(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.description.machine;
        let about = self.description.about.as_deref().unwrap_or_default();
        writeln!(f, "\n{} {about}", self.description.name.bold())?;
        writeln!(
            f,
            "  {} {}, {} memory, {}; kernel {}",
            machine.cores,
            if machine.cores == 1 { "core" } else { "cores" },
            bytes(machine.memory),
            if machine.iommu.present {
                "VT-d"
            } else {
                "no IOMMU"
            },
            self.kernel
        )
    }

    /// What the pci-servers say they found: a line each that begins with an address.
    fn found(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.run.transcript.lines.iter();
        let mut found = lines
            .filter(|line| {
                line.pd
                    .as_deref()
                    .is_some_and(|pd| pd.starts_with(program::PCI))
            })
            .filter(|line| {
                let first = line.text.split(' ').next().unwrap_or_default();
                first.parse::<Sbdf>().is_ok()
            })
            .peekable();
        if found.peek().is_none() {
            return Ok(());
        }
        title(f, "Found")?;
        for line in found {
            writeln!(f, "  {}", line.text)?;
        }
        Ok(())
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.run
            .transcript
            .events
            .iter()
            .filter_map(|(_, _, event)| match event {
                Event::Held(held) => Some(held),
                _ => None,
            })
    }

    fn devices(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.held().next().is_none() {
            return Ok(());
        }
        title(f, "Devices and their holders")?;
        for held in self.held() {
            let vectors = match held.vectors.as_slice() {
                [] => "no vectors".to_owned(),
                [one] => format!("vector {one}"),
                many => format!("vectors {}", many.join(", ")),
            };
            writeln!(
                f,
                "  {} {} class {}  {}  {vectors}",
                held.address,
                held.ids,
                held.class,
                held.client.cyan()
            )?;
            for bar in &held.bars {
                let size = bytes(bar.bytes);
                writeln!(
                    f,
                    "      BAR {} {} {size} at {:#x}",
                    bar.index, bar.kind, bar.base
                )?;
            }
        }
        Ok(())
    }

    fn checks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks = &self.verdict.checks;
        let mut pds: Vec<&str> = Vec::new();
        for check in checks {
            let pd = short(&check.name).0;
            if !pds.contains(&pd) {
                pds.push(pd);
            }
        }
        if !checks.is_empty() {
            title(f, "Checks")?;
        }
        for pd in pds {
            writeln!(f, "  {} {}", pd.cyan(), self.about(pd).dimmed())?;
            let of_pd = checks.iter().filter(|check| short(&check.name).0 == pd);
            let (missing, said): (Vec<&Check>, Vec<&Check>) =
                of_pd.partition(|check| !check.ok && check.detail == NEVER_SAID);
            for check in &said {
                self.check(f, check)?;
            }
            if !missing.is_empty() {
                let names: Vec<&str> = missing.iter().map(|check| short(&check.name).1).collect();
                let count = format!("{} {NEVER_SAID}:", missing.len());
                writeln!(f, "    {} {count} {}", failed(), names.join(", "))?;
            }
        }
        Ok(())
    }

    fn check(&self, f: &mut fmt::Formatter<'_>, check: &Check) -> fmt::Result {
        let mark = match check.ok {
            true => "ok  ".green().to_string(),
            false => failed(),
        };
        let name = short(&check.name).1;
        writeln!(f, "    {mark} {name:CHECK_WIDTH$}  {}", check.detail)
    }

    /// What the description says about a PD.
    fn about(&self, pd: &str) -> &str {
        let clients = &self.description.system.clients;
        let index = clients.iter().position(|client| client.name.as_str() == pd);
        match pd {
            ROOT => "the root task",
            "host" => "seen from outside",
            "metric" => "figures with bounds",
            _ => index
                .and_then(|index| self.description.client_abouts.get(index)?.as_deref())
                .unwrap_or_default(),
        }
    }

    fn resources(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = resources(&self.run.transcript);
        if table.is_empty() {
            return Ok(());
        }
        title(
            f,
            "Resources in use before the first client and after the last",
        )?;
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        for (name, (before, after)) in table {
            let (before_text, after_text) = (number(before), number(after));
            let style = match before == after {
                true => Style::new(),
                false => Style::new().red().bold(),
            };
            writeln!(
                f,
                "  {name:32} {before_text:>12} {:>12}",
                after_text.style(style)
            )?;
        }
        Ok(())
    }

    fn metrics(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut metrics = self.verdict.metrics.iter().peekable();
        if metrics.peek().is_none() {
            return Ok(());
        }
        title(f, "Figures")?;
        for (name, value) in metrics {
            writeln!(f, "  {name:32} {value:>12}")?;
        }
        Ok(())
    }

    /// How often each server was started again.
    fn restarts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut servers: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for (_, _, event) in &self.run.transcript.events {
            if let Event::Restarted { server, cause, .. } = event {
                let (kills, faults) = servers.entry(server).or_default();
                match cause {
                    Death::Kill => *kills += 1,
                    Death::Fault => *faults += 1,
                }
            }
        }
        if servers.is_empty() {
            return Ok(());
        }
        title(f, "Servers that died and were started again")?;
        for (server, (kills, faults)) in servers {
            writeln!(f, "  {server:24} {kills:>4} killed {faults:>4} by faults")?;
        }
        Ok(())
    }

    fn faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.faults.is_empty() {
            return Ok(());
        }
        title(f, "Faults")?;
        for fault in self.faults {
            writeln!(f, "  {}", fault.line)?;
            if let Some(place) = &fault.place {
                writeln!(f, "      {place}")?;
            }
            if let Some(help) = fault.help {
                writeln!(f, "      {help}")?;
            }
        }
        Ok(())
    }

    fn last_lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut_short = self.run.ending == Ending::TimedOut || !self.run.transcript.ended();
        if self.verdict.outcome == Outcome::Pass || !cut_short {
            return Ok(());
        }
        title(f, "Last lines")?;
        let lines = self.run.transcript.lines.iter();
        let told: Vec<&Line> = lines
            .filter(|line| !line.text.starts_with(FIGURE))
            .collect();
        for line in told.iter().skip(told.len().saturating_sub(LAST_LINES)) {
            writeln!(f, "  {:>8.3} {}", line.at.as_secs_f64(), Shown(line))?;
        }
        for line in self.run.stderr.lines().take(LAST_LINES) {
            writeln!(f, "  qemu: {line}")?;
        }
        Ok(())
    }

    fn outcome(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, style) = match self.verdict.outcome {
            Outcome::Pass => ("pass", Style::new().green().bold()),
            Outcome::Fail => ("FAIL", Style::new().red().bold()),
            Outcome::Timeout => ("TIMEOUT", Style::new().red().bold()),
        };
        let checks = self.verdict.checks.len();
        let failed = self.verdict.failures().count();
        write!(f, "\n{}: {}", self.description.name, word.style(style))?;
        write!(f, " ({} of {checks} checks passed", checks - failed)?;
        let metrics = &self.verdict.metrics;
        if let Some(time) = metrics.get(BOOT_METRIC) {
            write!(f, ", first device assigned after {:.2} s", time / 1000.0)?;
        }
        if let Some(time) = metrics.get(RUN_METRIC) {
            write!(f, ", {:.1} s in all", time / 1000.0)?;
        }
        writeln!(f, ")")?;
        write!(
            f,
            "report: {}  log: {}",
            self.workspace.shown(&self.files.json),
            self.workspace.shown(&self.files.log)
        )
    }
}

fn failed() -> String {
    "FAIL".red().bold().to_string()
}

/// `<pd>.<check>`, apart.
fn short(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

/// A line as it is shown while the system runs.
pub struct Shown<'a>(pub &'a Line);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.pd {
            Some(pd) => write!(f, "{} {}", format!("{pd}|").cyan(), self.0.text),
            None => write!(f, "{}", self.0.text.dimmed()),
        }
    }
}
