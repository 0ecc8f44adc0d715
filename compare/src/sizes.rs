//! Sizes of BARs and expansion ROMs on a machine that is modelled after what an
//! operating system saw on the real one.

use std::fmt;

use hw::bar::{self, Bars};
use hw::capability::{AllocationTarget, CapabilityList, EnhancedAllocation, ResizableBars};
use hw::{Header, Sbdf};
use sim::config::Machine;

use crate::report::Counts;

/// A size of which there are two readings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Size {
    /// Address of the function as the dump has it.
    pub function: String,
    /// Which BAR, or `ROM`.
    pub bar: String,
    /// What `hw` found, in bytes, or why nothing.
    pub ours: String,
    /// What the operating system saw, in bytes.
    pub theirs: u64,
    /// Why they may differ; empty if there is no reason.
    pub reason: &'static str,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bar, ours, theirs, ..
        } = self;
        write!(f, "size of {bar}: hw says {ours}, the machine {theirs:#x}")?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        Ok(())
    }
}

/// What came of the sizes of a dump.
#[derive(Clone, Debug, Default)]
pub struct SizeResult {
    /// How many are the same.
    pub equal: usize,
    /// Those that differ for a reason.
    pub explained: Vec<Size>,
    /// Those that differ.
    pub unexplained: Vec<Size>,
}

impl SizeResult {
    /// How many comparisons came to what.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            equal: self.equal,
            explained: self.explained.len(),
            unexplained: self.unexplained.len(),
        }
    }
}

/// Compares the sizes in `text` (`slot bar size`, as [`Machine::apply_regions`] reads it) with
/// those that `hw` finds on `machine`, on which they have been applied.
pub fn compare(machine: &mut Machine, text: &str) -> SizeResult {
    let mut result = SizeResult::default();
    for region in machine.regions(text) {
        let found = probe(machine, region.at, &region.bar);
        let ours = match &found {
            Ok(Some(size)) => format!("{size:#x}"),
            Ok(None) => "nothing".to_owned(),
            Err(why) => why.clone(),
        };
        // The registers of these were not asked: an operating system gives them their old ports.
        let reason = match region.size {
            1..=3 => "no BAR is smaller than four bytes: ports of a time before BARs",
            _ => "",
        };
        let size = Size {
            function: region.name,
            bar: region.bar,
            ours,
            theirs: region.size,
            reason,
        };
        if found == Ok(Some(region.size)) {
            result.equal += 1;
        } else if size.reason.is_empty() {
            result.unexplained.push(size);
        } else {
            result.explained.push(size);
        }
    }
    result
}

/// The size that `hw` finds of a BAR (`0` to `5`) or of the `ROM`.
fn probe(machine: &mut Machine, at: Sbdf, bar: &str) -> Result<Option<u64>, String> {
    let header = Header::read(machine, at).map_err(|error| error.to_string())?;
    let bars = bar::probe(machine, at, &header).map_err(|error| error.to_string())?;
    let list = CapabilityList::read(machine, at, header.layout);
    let (target, size) = match bar.parse::<u8>() {
        Ok(index) => (
            AllocationTarget::Bar(index),
            sized(machine, at, &list, &bars, index)?,
        ),
        Err(_) => (AllocationTarget::Rom, bars.rom().map(|rom| rom.size)),
    };
    if size.is_some() {
        return Ok(size);
    }
    // In place of a BAR that is not there.
    let fixed = list.find::<EnhancedAllocation, _>(machine, at);
    let Some(fixed) = fixed.map_err(|error| error.to_string())? else {
        let fault = bars.faults().next();
        return fault.map_or(Ok(None), |fault| Err(fault.to_string()));
    };
    let mut entries = fixed.entries(machine, at).flatten();
    let entry = entries.find(|entry| entry.target == target);
    Ok(entry.and_then(|entry| entry.max_offset.checked_add(1)))
}

/// The size of a BAR that is there; a resizable one must say the same of itself.
fn sized(
    machine: &Machine,
    at: Sbdf,
    list: &CapabilityList,
    bars: &Bars,
    index: u8,
) -> Result<Option<u64>, String> {
    let size = bars.get(index).map(|bar| bar.size);
    let resizable = list.find_extended::<ResizableBars, _>(machine, at);
    let resizable = resizable.map_err(|error| error.to_string())?;
    let says = resizable.and_then(|bars| bars.0.into_iter().find(|bar| bar.bar == index));
    match says.map(|bar| bar.bytes()) {
        Some(says) if says != size => Err(format!("{size:?}, and as a resizable BAR {says:?}")),
        _ => Ok(size),
    }
}
