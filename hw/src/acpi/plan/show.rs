//! A plan as text for people, in columns: [`Shown`].

use core::fmt;

use super::{
    Access, AtsKind, Claims, Declared, DeviceSettings, Extent, IommuPlan, Reserved, SourceKind,
    Topology, UnitKind, UnitPlan,
};
use crate::Sbdf;
use crate::acpi::dmar::Path;
use crate::acpi::ivrs::BlockKind;
use crate::acpi::table::Signature;

/// Width of the column that says what is served.
const WHAT: usize = 18;
/// Width of the column that says where it is.
const WHERE: usize = 30;

/// A plan with the buses as they are set up; what is behind bridges that are not known is said in
/// words.
pub struct Shown<'a, T: ?Sized> {
    plan: &'a IommuPlan,
    topology: &'a T,
}

impl IommuPlan {
    /// The plan as text.
    pub fn show<'a, T: Topology + ?Sized>(&'a self, topology: &'a T) -> Shown<'a, T> {
        Shown {
            plan: self,
            topology,
        }
    }
}

impl<T: Topology + ?Sized> fmt::Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.plan;
        let name = if plan.table == Signature::IVRS {
            "AMD-Vi"
        } else {
            "VT-d"
        };
        let remapping = if plan.interrupt_remapping {
            "interrupts remapped"
        } else {
            "no interrupt remapping"
        };
        let count = plan.units.len();
        writeln!(
            f,
            "{name}: {count} unit{}, physical addresses of {} bits, {remapping}",
            plural(count),
            plan.host_address_bits
        )?;
        for (index, unit) in plan.units.iter().enumerate() {
            self.unit(f, index, unit)?;
        }
        for (index, region) in plan.reserved.iter().enumerate() {
            self.region(f, index, region)?;
        }
        if !plan.ats.is_empty() {
            writeln!(f, "  address translation services")?;
        }
        for ats in &plan.ats {
            let what = match ats.kind {
                AtsKind::BehindPort => "behind port",
                AtsKind::Integrated => "integrated",
                AtsKind::Required => "required",
            };
            self.extent(f, what, ats.segment, &ats.extent, Declared::default())?;
        }
        match plan.claims(self.topology) {
            Ok(claims) => remarks(f, &claims),
            Err(error) => writeln!(f, "  warning: {error}"),
        }
    }
}

impl<T: Topology + ?Sized> Shown<'_, T> {
    fn unit(&self, f: &mut fmt::Formatter<'_>, index: usize, unit: &UnitPlan) -> fmt::Result {
        let (base, limit) = (unit.base, unit.base.saturating_add(unit.size - 1));
        write!(
            f,
            "  unit {index:<2} {base:#012x}..{limit:#012x}  segment {:04x}",
            unit.segment
        )?;
        if let UnitKind::Amdvi(amd) = unit.kind {
            let form = match amd.form {
                BlockKind::Basic => "10h",
                BlockKind::Extended => "11h",
                BlockKind::Mixed => "40h",
            };
            let at = Sbdf::from_requester_id(unit.segment, amd.id);
            write!(f, "  function {at}, block {form}")?;
        }
        if let Some(domain) = unit.domain {
            write!(f, "  domain {domain}")?;
        }
        writeln!(f)?;
        let mine = |owner: u8| usize::from(owner) == index;
        for scope in self.plan.unit_scopes.iter().filter(|s| mine(s.owner)) {
            self.extent(f, "", unit.segment, &scope.extent, scope.declared)?;
        }
        for source in self.plan.sources.iter().filter(|s| mine(s.unit)) {
            let place = Place {
                path: &source.path,
                segment: unit.segment,
                topology: self.topology,
            };
            let remark = Settings(source.settings);
            match &source.kind {
                SourceKind::IoApic(id) => row(f, format_args!("IOAPIC {id}"), place, remark),
                SourceKind::Hpet(number) => row(f, format_args!("HPET {number}"), place, remark),
                SourceKind::NameSpace(name) => row(f, name, place, remark),
            }?;
        }
        if unit.include_all {
            row(f, "all others", "of the segment", "")?;
        }
        Ok(())
    }

    fn region(&self, f: &mut fmt::Formatter<'_>, index: usize, region: &Reserved) -> fmt::Result {
        let access = match region.access {
            Access::Identity {
                read: true,
                write: true,
            } => "mapped to itself",
            Access::Identity {
                read: true,
                write: false,
            } => "mapped to itself, read only",
            Access::Identity {
                read: false,
                write: true,
            } => "mapped to itself, write only",
            Access::Identity {
                read: false,
                write: false,
            } => "not used",
            Access::Excluded => "not translated",
        };
        // Whole pages: at least 4 KiB, and not all of the 64 bits.
        let kib = (region.limit - region.base) / 1024 + 1;
        let (size, unit) = match kib % 1024 {
            0 => (kib / 1024, "MiB"),
            _ => (kib, "KiB"),
        };
        writeln!(
            f,
            "  reserved {:#012x}..{:#012x}  {size} {unit}, {access}, for",
            region.base, region.limit
        )?;
        let users = &self.plan.reserved_scopes;
        for user in users.iter().filter(|user| usize::from(user.owner) == index) {
            self.extent(f, "", region.segment, &user.extent, user.declared)?;
        }
        Ok(())
    }

    fn extent(
        &self,
        f: &mut fmt::Formatter<'_>,
        what: &str,
        segment: u16,
        extent: &Extent,
        declared: Declared,
    ) -> fmt::Result {
        let remark = Remark(declared, segment);
        let or = |default| if what.is_empty() { default } else { what };
        let id = |id| Sbdf::from_requester_id(segment, id);
        let place = |path| Place {
            path,
            segment,
            topology: self.topology,
        };
        match extent {
            Extent::All => row(f, or("all"), "of the segment", remark),
            Extent::Ids { first, last } if first == last => {
                row(f, or("function"), id(*first), remark)
            }
            Extent::Ids { first, last } => row(
                f,
                or("functions"),
                format_args!("{}..{}", id(*first), id(*last)),
                remark,
            ),
            Extent::Function(path) => row(f, or("function"), place(path), remark),
            Extent::Hierarchy(path) => {
                let buses = path
                    .resolve(self.topology, segment)
                    .and_then(|bridge| self.topology.behind(bridge));
                match buses {
                    Some(buses) => row(
                        f,
                        or("bridge"),
                        place(path),
                        format_args!("and buses {:02x}..{:02x}", buses.first(), buses.last()),
                    ),
                    None => row(f, or("bridge"), place(path), "and all behind it"),
                }
            }
        }
    }
}

fn remarks(f: &mut fmt::Formatter<'_>, claims: &Claims) -> fmt::Result {
    for (one, other) in claims.contested() {
        let first = Sbdf::from_requester_id(one.segment, one.first.max(other.first));
        let last = Sbdf::from_requester_id(one.segment, one.last.min(other.last));
        writeln!(
            f,
            "  warning: {first}..{last} named by units {} and {}: served by neither",
            one.owner, other.owner
        )?;
    }
    Ok(())
}

fn row(
    f: &mut fmt::Formatter<'_>,
    what: impl fmt::Display,
    place: impl fmt::Display,
    remark: impl fmt::Display,
) -> fmt::Result {
    let mut line = Line {
        to: f,
        column: 0,
        blanks: 0,
    };
    use fmt::Write as _;
    write!(line, "    {what}")?;
    line.pad_to(4 + WHAT);
    write!(line, "{place}")?;
    line.pad_to(4 + WHAT + WHERE);
    write!(line, "{remark}")?;
    line.to.write_str("\n")
}

/// A line that knows its column, and does not end in blanks.
struct Line<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    column: usize,
    /// Blanks that are owed.
    blanks: usize,
}

impl Line<'_, '_> {
    /// Goes to a column, at least one blank further.
    fn pad_to(&mut self, column: usize) {
        self.blanks = column.saturating_sub(self.column).max(1);
    }
}

impl fmt::Write for Line<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.is_empty() {
            return Ok(());
        }
        for _ in 0..self.blanks {
            self.to.write_str(" ")?;
        }
        self.column += self.blanks + text.chars().count();
        self.blanks = 0;
        self.to.write_str(text)
    }
}

/// A path: where it leads, and by which way if there are bridges on it.
struct Place<'a, T: ?Sized> {
    path: &'a Path,
    segment: u16,
    topology: &'a T,
}

impl<T: Topology + ?Sized> fmt::Display for Place<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached = self.path.resolve(self.topology, self.segment);
        if let (Some(at), 1) = (reached, self.path.hops.len()) {
            return write!(f, "{at}");
        }
        if let Some(at) = reached {
            write!(f, "{at} by ")?;
        }
        write!(f, "{:04x}:{:02x}", self.segment, self.path.bus)?;
        for (index, hop) in self.path.hops.iter().enumerate() {
            let sign = if index == 0 { ':' } else { '/' };
            write!(f, "{sign}{:02x}.{}", hop.device, hop.function)?;
        }
        Ok(())
    }
}

struct Remark(Declared, u16);

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(declared, segment) = self;
        let mut comma = "";
        if let Some(alias) = declared.alias {
            write!(f, "as {}", Sbdf::from_requester_id(*segment, alias))?;
            comma = ", ";
        }
        if declared.ats_disabled {
            write!(f, "{comma}without ATS")?;
            comma = ", ";
        }
        if !declared.settings.is_empty() {
            write!(f, "{comma}{}", Settings(declared.settings))?;
        }
        Ok(())
    }
}

/// Interrupts that pass.
struct Settings(DeviceSettings);

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(DeviceSettings, &str); 7] = [
            (DeviceSettings::INIT, "INIT"),
            (DeviceSettings::EXTERNAL, "ExtINT"),
            (DeviceSettings::NMI, "NMI"),
            (DeviceSettings::MANAGEMENT_0, "SysMgt0"),
            (DeviceSettings::MANAGEMENT_1, "SysMgt1"),
            (DeviceSettings::LINT0, "LINT0"),
            (DeviceSettings::LINT1, "LINT1"),
        ];
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "passes")?;
        for (flag, name) in NAMES {
            if self.0.contains(flag) {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
