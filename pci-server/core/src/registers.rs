//! Which registers of configuration space a holder may touch, and how: tables of
//! [`Field`]s, one for the header and one for each capability ([`standard`],
//! [`extended`]). Whatever no table names is read-only.
//!
//! A field is 16 bits wide, the unit in which a register can be written without
//! touching its neighbour (Command and Status, for one). Where capabilities
//! overlap, as only a malformed device has them, what each of them forbids is
//! forbidden.

pub mod extended;
pub mod standard;

use hw::capability::{Entry, id};

use crate::Device;

/// What may be done to bits of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It is not shown: reading it acts on the device.
    Hidden,
    /// These bits may be written.
    Writable(u16),
    /// These bits are cleared by writing ones, and may be; zeros are written to the others.
    WriteOneToClear(u16),
    /// The device is not touched: the shard answers.
    Emulated(Emulation),
    /// A write that changes one of these bits is an operation of the shard, or refused.
    Trapped(u16, Trap),
}

/// What the shard answers in a device's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Emulation {
    /// A BAR: its size can be asked for, its address cannot be changed.
    Bar,
}

/// Which operation a register stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// Decoding and bus mastering.
    Command,
    /// The power state.
    Power,
    /// The bit that starts a function-level reset.
    Reset,
    /// Message control of MSI.
    Msi,
    /// Mask bits of MSI.
    MsiMasks,
    /// Message control of MSI-X.
    MsiX,
}

/// Some 16-bit registers from an offset of the structure's start on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Offset of the first, even.
    pub offset: u16,
    /// How many.
    pub words: u16,
    /// What may be done to each.
    pub kind: Kind,
}

impl Field {
    const fn new(offset: u16, kind: Kind) -> Self {
        Self::many(offset, 1, kind)
    }

    const fn many(offset: u16, words: u16, kind: Kind) -> Self {
        Self {
            offset,
            words,
            kind,
        }
    }
}

/// What may be done to 16 bits of configuration space: what all their fields say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Bits that may be written.
    pub write: u16,
    /// Bits that are cleared by writing ones, and may be.
    pub clear: u16,
    /// Bits whose change is an operation; refused where [`Self::trap`] is none.
    pub trapped: u16,
    /// Which one.
    pub trap: Option<Trap>,
    /// The shard answers.
    pub emulated: Option<Emulation>,
}

impl Policy {
    /// Nothing may be written.
    pub const READ_ONLY: Self = Self {
        write: 0,
        clear: 0,
        trapped: 0,
        trap: None,
        emulated: None,
    };

    /// Can a write have any effect?
    #[must_use]
    pub const fn is_read_only(self) -> bool {
        self.write | self.clear | self.trapped == 0 && self.emulated.is_none()
    }

    /// With one more field of the same register.
    const fn with(mut self, kind: Kind) -> Self {
        match kind {
            Kind::Hidden => {}
            Kind::Writable(bits) => self.write |= bits,
            Kind::WriteOneToClear(bits) => self.clear |= bits,
            Kind::Emulated(what) => self.emulated = Some(what),
            Kind::Trapped(bits, trap) => {
                self.trapped |= bits;
                self.trap = Some(trap);
            }
        }
        self
    }

    /// Only what both allow.
    #[must_use]
    fn and(self, other: Self) -> Self {
        Self {
            write: self.write & other.write,
            clear: self.clear & other.clear,
            trapped: self.trapped | other.trapped,
            trap: self.trap.filter(|_| self.trap == other.trap),
            emulated: self.emulated.filter(|_| self.emulated == other.emulated),
        }
    }
}

/// The fields of a conventional capability as this device has it.
fn fields(device: &Device, entry: Entry) -> &'static [Field] {
    match entry.id {
        // Where its masks are depends on its addresses.
        id::MSI => device
            .msi
            .filter(|msi| msi.offset == entry.offset)
            .map_or(&[], |msi| standard::msi(msi.address64, msi.maskable)),
        other => standard::fields(other).unwrap_or(&[]),
    }
}

/// Bytes of a conventional capability, where they are known: inside them nothing else may
/// be allowed by another capability's table.
fn extent(device: &Device, entry: Entry) -> u16 {
    match entry.id {
        id::POWER_MANAGEMENT => 8,
        id::MSI => device.msi.map_or(24, |msi| msi.bytes()),
        id::VENDOR => 20,
        // Version 1 ends after what an endpoint has (7.5.3.1).
        id::EXPRESS if device.express.is_some_and(|express| express.version < 2) => 20,
        id::EXPRESS => 60,
        id::MSIX => 12,
        id::ADVANCED_FEATURES => 6,
        _ => 4,
    }
}

/// The policy of the 16 bits at `offset` (even) of the device's configuration space.
#[must_use]
pub fn policy(device: &Device, offset: u16) -> Policy {
    if let Some(policy) = header(offset) {
        return policy;
    }
    if offset >= 0x100 {
        return match device.error_reporting {
            0 => Policy::READ_ONLY,
            start => offset
                .checked_sub(start)
                .map_or(Policy::READ_ONLY, |within| {
                    find(extended::ERROR_REPORTING, within)
                }),
        };
    }
    device
        .capabilities
        .iter()
        .filter_map(|&entry| {
            let within = offset.checked_sub(u16::from(entry.offset))?;
            (within < extent(device, entry)).then(|| find(fields(device, entry), within))
        })
        .reduce(Policy::and)
        .unwrap_or(Policy::READ_ONLY)
}

/// The policy of a register of the header; `None` for what lies behind it. What every driver touches most: looked up
/// once and for all.
#[inline(always)]
#[must_use]
pub const fn header(offset: u16) -> Option<Policy> {
    const REGISTERS: [Policy; HEADER_BYTES as usize / 2] = {
        let mut policies = [Policy::READ_ONLY; HEADER_BYTES as usize / 2];
        let mut register = 0;
        while register < policies.len() {
            policies[register] = find(standard::HEADER, 2 * register as u16);
            register += 1;
        }
        policies
    };
    if offset < HEADER_BYTES {
        Some(REGISTERS[offset as usize / 2])
    } else {
        None
    }
}

/// Bytes of the header; capabilities come behind it.
const HEADER_BYTES: u16 = 0x40;

const fn find(fields: &[Field], offset: u16) -> Policy {
    let mut policy = Policy::READ_ONLY;
    let mut at = 0;
    while at < fields.len() {
        let field = fields[at];
        if offset >= field.offset && (offset - field.offset) / 2 < field.words {
            policy = policy.with(field.kind);
        }
        at += 1;
    }
    policy
}

/// The bits of [`Device::hidden`] for a virtio configuration access capability at `offset`.
#[must_use]
pub fn virtio_window(offset: u8) -> u64 {
    standard::VIRTIO_ACCESS
        .iter()
        .filter(|field| field.kind == Kind::Hidden)
        .filter_map(|field| u16::from(offset).checked_add(field.offset))
        .filter(|window| *window < 0x100)
        .fold(0, |bits, window| bits | 1 << (window / 4))
}
