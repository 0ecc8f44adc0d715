//! Reads an input with everything that reads tables, and holds what must be true
//! whatever the input is: [`Outcome::of`].

mod memory;
mod plans;

use std::collections::BTreeMap;

use hw::acpi::{
    Dmar, Hpet, InterruptPlan, Ivrs, IvrsBlock, Madt, Mcfg, ProximityPlan, Record, Remapping,
    RootTable, Rsdp, Rule, Scopes, Signature, Slit, Srat, TableError, TableHeader,
};

use crate::mutate::Random;

/// What a table, or a record in it, came to: the table's kind, and the rule that was broken, or
/// what was read.
pub type Reached = (String, &'static str);

/// What came of inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Tables that were read.
    pub read: u64,
    /// Records that were read.
    pub records: u64,
    /// Plans that were made.
    pub plans: u64,
    /// How often each rule was found broken.
    pub reached: BTreeMap<Reached, u64>,
}

/// Something that must be true is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

type Checked = Result<(), Violation>;

/// For what must hold.
fn hold(truth: bool, what: impl FnOnce() -> String) -> Checked {
    match truth {
        true => Ok(()),
        false => Err(Violation(what())),
    }
}

impl Outcome {
    /// Reads an input.
    ///
    /// # Errors
    /// Something that must be true is not.
    pub fn of(bytes: &[u8], random: &mut Random) -> Result<Self, Violation> {
        let mut outcome = Self::default();
        let input = Input {
            bytes,
            length: bytes.len() as u32,
        };
        outcome.tables(input)?;
        outcome.plans(input, random)?;
        if random.once_in(8) {
            outcome.platform(input, random)?;
        }
        Ok(outcome)
    }

    /// Adds what came of other inputs.
    pub fn add(&mut self, other: Self) {
        self.read += other.read;
        self.records += other.records;
        self.plans += other.plans;
        for (reached, count) in other.reached {
            *self.reached.entry(reached).or_default() += count;
        }
    }

    fn tables(&mut self, input: Input<'_>) -> Checked {
        let bytes = input.bytes;
        if let Some(mcfg) = self.table(input, Signature::MCFG, Mcfg::parse(bytes))? {
            for window in mcfg.windows() {
                match window {
                    Ok(window) => {
                        let fits = window.start().map(|start| start.checked_add(window.len()));
                        hold(matches!(fits, Some(Some(_))), || {
                            format!("{window:?} does not fit")
                        })?;
                        self.records += 1;
                    }
                    Err(error) => self.error(input, &error)?,
                }
            }
        }
        if let Some(madt) = self.table(input, Signature::APIC, Madt::parse(bytes))? {
            self.records(input, madt.records(), |_, _| Ok(()))?;
        }
        if let Some(srat) = self.table(input, Signature::SRAT, Srat::parse(bytes))? {
            self.records(input, srat.records(), |_, _| Ok(()))?;
        }
        if let Some(dmar) = self.table(input, Signature::DMAR, Dmar::parse(bytes))? {
            hold((1..=64).contains(&dmar.host_address_bits), || {
                "host address bits".into()
            })?;
            self.records(input, dmar.records(), |outcome, record| match record.body {
                Remapping::Drhd(unit) => outcome.scopes(input, unit.scopes),
                Remapping::Rmrr(region) => {
                    hold(region.base < region.limit, || format!("{region:?}"))?;
                    outcome.scopes(input, region.scopes)
                }
                Remapping::Atsr(ports) => outcome.scopes(input, ports.scopes),
                Remapping::Satc(devices) => outcome.scopes(input, devices.scopes),
                Remapping::Sidp(devices) => outcome.scopes(input, devices.scopes),
                _ => Ok(()),
            })?;
        }
        if let Some(ivrs) = self.table(input, Signature::IVRS, Ivrs::parse(bytes))? {
            self.records(input, ivrs.records(), |outcome, record| match record.body {
                IvrsBlock::Unit(unit) => {
                    hold(unit.base != 0, || "unit at 0".into())?;
                    outcome.records(input, unit.records(), |_, _| Ok(()))
                }
                IvrsBlock::Memory(memory) => {
                    hold(memory.base < memory.limit, || format!("{memory:?}"))
                }
                IvrsBlock::Other { .. } => Ok(()),
            })?;
        }
        if let Some(slit) = self.table(input, Signature::SLIT, Slit::parse(bytes))? {
            let count = slit.localities();
            hold(count * count <= bytes.len(), || {
                format!("{count} localities")
            })?;
            let last = count as u32;
            for (from, to) in [
                (0, 0),
                (last, 0),
                (0, last),
                (last.wrapping_sub(1), 0),
                (u32::MAX, u32::MAX),
            ] {
                let distance = slit.distance(from, to);
                let inside = from < last && to < last;
                hold(distance.is_none() || inside, || {
                    format!("distance {from} {to}")
                })?;
            }
        }
        self.table(input, Signature::HPET, Hpet::parse(bytes))?;
        for kind in [Signature::XSDT, Signature::RSDT] {
            if let Some(root) = self.table(input, kind, RootTable::parse(bytes, kind))? {
                hold(root.addresses().count() * 4 <= bytes.len(), || {
                    "addresses".into()
                })?;
            }
        }
        if let Err(error) = InterruptPlan::from_bytes(bytes) {
            self.error(input, &error)?;
        }
        if let Err(error) = ProximityPlan::from_bytes(bytes) {
            self.error(input, &error)?;
        }
        // Neither has to do with a table's header.
        let _ = Rsdp::parse(bytes);
        let _ = Rsdp::find(bytes);
        Ok(())
    }

    /// A table is read only if its header, length and checksum are right, and its error names it.
    fn table<T>(
        &mut self,
        input: Input<'_>,
        kind: Signature,
        table: Result<T, TableError>,
    ) -> Result<Option<T>, Violation> {
        match table {
            Ok(table) => {
                hold(input.is_whole(kind), || {
                    format!("{kind} is read though it is not whole")
                })?;
                self.read += 1;
                Ok(Some(table))
            }
            Err(error) => {
                self.error(input, &error)?;
                let named = error.table == kind || matches!(error.rule, Rule::BadValue { .. });
                hold(named, || format!("{error} in a {kind}"))?;
                let of_frame = matches!(
                    error.rule,
                    Rule::Checksum { .. } | Rule::WrongSignature { .. }
                );
                hold(!(of_frame && input.is_whole(kind)), || {
                    format!("{error} though {kind} is whole")
                })?;
                Ok(None)
            }
        }
    }

    /// Records come one behind the other, and end.
    fn records<T>(
        &mut self,
        input: Input<'_>,
        records: impl Iterator<Item = Result<Record<T>, TableError>>,
        mut each: impl FnMut(&mut Self, Record<T>) -> Checked,
    ) -> Checked {
        let mut end = 0;
        for record in records {
            let offset = match record {
                Ok(record) => {
                    self.records += 1;
                    let start = record.offset;
                    hold(start >= end, || format!("record at {start} before {end}"))?;
                    hold(record.length > 0, || format!("empty record at {start}"))?;
                    end = start.saturating_add(record.length);
                    hold(end <= input.length, || {
                        format!("record at {start} passes the end")
                    })?;
                    each(self, record)?;
                    continue;
                }
                Err(error) => {
                    self.error(input, &error)?;
                    error.offset
                }
            };
            // At least a byte was passed over.
            hold(offset >= end, || format!("error at {offset} before {end}"))?;
            end = offset + 1;
        }
        Ok(())
    }

    fn scopes(&mut self, input: Input<'_>, scopes: Scopes<'_>) -> Checked {
        self.records(input, scopes.records(), |_, record| {
            let hops = &record.body.path.hops;
            let fits = hops.iter().all(|hop| hop.device < 32 && hop.function < 8);
            hold(fits && !hops.is_empty(), || format!("{:?}", record.body))
        })
    }

    /// An error says where in the table it is.
    fn error(&mut self, input: Input<'_>, error: &TableError) -> Checked {
        hold(error.offset <= input.length, || {
            format!("{error}: beyond the end")
        })?;
        hold(!error.to_string().is_empty(), || {
            "an error without words".into()
        })?;
        let kind = match error.rule {
            Rule::Truncated { .. } => "truncated",
            Rule::WrongSignature { .. } => "another signature",
            Rule::Checksum { .. } => "checksum",
            Rule::RecordTooShort { .. } => "record too short",
            Rule::RecordBeyondEnd { .. } => "record beyond the end",
            Rule::BadValue { field, .. } => field,
            Rule::TooMany { what, .. } => what,
            Rule::Unreadable { .. } => "unreadable",
        };
        // Signatures are mutated, too.
        let table = match kind {
            "another signature" | "table length" => "any".to_owned(),
            _ => error.table.to_string(),
        };
        *self.reached.entry((table, kind)).or_default() += 1;
        Ok(())
    }
}

/// The bytes that are read.
#[derive(Clone, Copy)]
struct Input<'a> {
    bytes: &'a [u8],
    length: u32,
}

impl Input<'_> {
    /// Is it a table of this kind, as long as it says, with a right checksum? Written apart from the readers.
    fn is_whole(&self, kind: Signature) -> bool {
        let Some(header) = self.bytes.first_chunk::<{ TableHeader::BYTES }>() else {
            return false;
        };
        let [s0, s1, s2, s3, l0, l1, l2, l3, ..] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let Some(table) = self.bytes.get(..length) else {
            return false;
        };
        let sum: u32 = table.iter().map(|byte| u32::from(*byte)).sum();
        length >= TableHeader::BYTES && sum.is_multiple_of(256) && [s0, s1, s2, s3] == kind.0
    }
}
