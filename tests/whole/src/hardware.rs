//! [`Hardware`]: the simulated machine that all servers see: functions, the
//! IOMMU's unit, device memory, the clock; and what devices do of their own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hw::{ConfigSpace, Sbdf};
use sim::clock::ManualClock;
use sim::config::{
    BarShape, Bridge, Endpoint, ExpressShape, Machine, Misbehaviour, MsiShape, MsixShape, PortKind,
    Space,
};
use sim::vtd::{Dma, Memory, Model, Reason, Vtd};

use crate::mortal::Lives;

/// Physical address of the unit's tables.
pub const TABLES: u64 = 0x7000_0000;
/// Pages of them.
pub const TABLE_PAGES: u32 = 256;
/// Where messages go.
pub const MESSAGES: u64 = 0xfee0_0000;

/// The devices, by address: without any reset and with MSI; with function-level reset and MSI-X;
/// conventional, with a reset and four maskable messages; reset by a power cycle; and two behind a
/// conventional bridge, which are one isolation group and have its requester id, too.
pub const DEVICES: [&str; 6] = [
    "0000:00:03.0",
    "0000:00:04.0",
    "0000:00:05.0",
    "0000:00:06.0",
    "0000:01:01.0",
    "0000:01:02.0",
];
const BRIDGE: &str = "0000:00:1e.0";

/// The address of a device.
///
/// # Panics
/// There is no such device.
#[must_use]
pub fn device(number: usize) -> Sbdf {
    DEVICES[number].parse().expect("an address")
}

fn memory32(size: u32, address: u32) -> BarShape {
    BarShape::Memory32 {
        size,
        address,
        prefetchable: false,
    }
}

fn plain(address: u32) -> Endpoint {
    Endpoint::new(0x1234, 0x11e8)
        .class(0x00, 0xff, 0x00)
        .bar(0, memory32(1 << 14, address))
        .msi(MsiShape {
            wide: true,
            maskable: false,
            vectors_log2: 0,
        })
}

/// What stands at a device's address.
fn function(number: usize) -> Endpoint {
    match number {
        0 => plain(0xe000_0000),
        1 => Endpoint::new(0x1b36, 0x0010)
            .class(0x01, 0x08, 0x02)
            .bar(
                0,
                BarShape::Memory64 {
                    size: 16 << 10,
                    address: 0x80_0000_0000,
                    prefetchable: false,
                },
            )
            .power_management(true)
            .msix(MsixShape {
                entries: 8,
                table: (0, 0x2000),
                pending: (0, 0x3000),
            })
            .express(ExpressShape {
                kind: PortKind::Integrated,
                flr: true,
                slot: None,
            }),
        2 => Endpoint::new(0x8086, 0x1234)
            .class(0x02, 0x00, 0x00)
            .bar(0, memory32(1 << 12, 0xe010_0000))
            .msi(MsiShape {
                wide: false,
                maskable: true,
                vectors_log2: 2,
            })
            .advanced_features(),
        3 => Endpoint::new(0x8086, 0x4321)
            .class(0x04, 0x03, 0x00)
            .bar(0, memory32(1 << 14, 0xe020_0000))
            .power_management(false),
        4 => plain(0xe030_0000),
        _ => plain(0xe031_0000),
    }
}

/// State that the surroundings of all servers share.
pub struct Hardware {
    /// Configuration space.
    pub machine: RefCell<Machine>,
    /// The remapping unit.
    pub unit: Vtd,
    /// Main memory, as far as units read it.
    pub memory: Memory,
    /// Who runs, and for how long.
    pub lives: Lives,
    /// Time.
    pub clock: ManualClock,
    /// Device memory that was written: by physical address of 32 bits.
    pub registers: RefCell<BTreeMap<u64, u32>>,
    /// Devices that do not answer any more.
    mute: RefCell<BTreeSet<usize>>,
}

impl Hardware {
    /// A machine with the first `devices` of [`DEVICES`].
    #[must_use]
    pub fn new(model: Model, devices: usize) -> Rc<Self> {
        let memory = Memory::new();
        let mut machine = Machine::new();
        machine.add(
            "0000:00:00.0",
            Endpoint::new(0x8086, 0x29c0).class(0x06, 0x00, 0x00),
        );
        if devices > 4 {
            machine.add(
                BRIDGE,
                Bridge::new(0, 1, 1).memory(0xe030_0000, 0xe03f_ffff),
            );
        }
        for number in 0..devices {
            machine.insert(device(number), Space::from(function(number)));
        }
        Rc::new(Self {
            machine: RefCell::new(machine),
            unit: Vtd::new(model, memory.clone()),
            memory,
            lives: Lives::default(),
            clock: ManualClock::new(),
            registers: RefCell::default(),
            mute: RefCell::default(),
        })
    }

    /// Is there a function?
    #[must_use]
    pub fn present(&self, at: Sbdf) -> bool {
        !self.machine.borrow().snapshot(at).is_empty()
    }

    /// Does the device answer?
    #[must_use]
    pub fn answers(&self, number: usize) -> bool {
        self.present(device(number)) && !self.mute.borrow().contains(&number)
    }

    /// A device stops to answer: reads give ones, writes are lost.
    pub fn silence(&self, number: usize) {
        let mut machine = self.machine.borrow_mut();
        if let Some(mut space) = machine.space(device(number)) {
            space.misbehave(Misbehaviour::AllOnes);
            machine.insert(device(number), space);
            self.mute.borrow_mut().insert(number);
        }
    }

    /// Pulls a device out.
    pub fn pull(&self, number: usize) {
        self.mute.borrow_mut().remove(&number);
        self.machine.borrow_mut().remove(device(number));
    }

    /// Puts a new one of the kind in.
    pub fn plug(&self, number: usize) {
        let fresh = Space::from(function(number));
        self.machine.borrow_mut().insert(device(number), fresh);
    }

    /// May the function issue requests, as its Command register says?
    #[must_use]
    pub fn is_master(&self, at: Sbdf) -> bool {
        self.present(at) && self.machine.borrow().read16(at, 0x04) & 1 << 2 != 0
    }

    /// The requester ids that its requests may carry.
    #[must_use]
    pub fn requesters(at: Sbdf) -> Vec<u16> {
        if at.bus() == 0 {
            return vec![at.requester_id()];
        }
        // A conventional bridge puts its own in place of theirs.
        let bridge: Sbdf = BRIDGE.parse().expect("an address");
        vec![at.requester_id(), bridge.requester_id()]
    }

    /// What a request of the device reaches, whether it obeys its Command register or not.
    ///
    /// # Errors
    /// The unit blocked it.
    pub fn dma(&self, requester: u16, address: u64, direction: Dma) -> Result<u64, Reason> {
        self.unit.dma(requester, address, direction)
    }

    /// The messages that the device may send as it is set up: enabled and not masked.
    #[must_use]
    pub fn messages(&self, at: Sbdf) -> Vec<(u64, u32)> {
        let machine = self.machine.borrow();
        let space = machine.snapshot(at);
        let word = |offset: usize| {
            let bytes = space.get(offset..offset + 4).expect("inside the space");
            u32::from_le_bytes(bytes.try_into().expect("four bytes"))
        };
        let mut found = Vec::new();
        if space.is_empty() {
            return found;
        }
        let mut place = usize::from(space[0x34]);
        while place != 0 {
            let control = word(place) >> 16;
            match space[place] {
                0x05 if control & 1 != 0 => {
                    let wide = control & 1 << 7 != 0;
                    let upper = if wide { word(place + 8) } else { 0 };
                    let data = word(place + if wide { 12 } else { 8 }) & 0xffff;
                    let address = u64::from(upper) << 32 | u64::from(word(place + 4));
                    let masks = if control & 1 << 8 == 0 {
                        0
                    } else {
                        word(place + if wide { 16 } else { 12 })
                    };
                    for number in 0..1u32 << (control >> 4 & 7) {
                        if masks >> number & 1 == 0 {
                            found.push((address, data | number));
                        }
                    }
                }
                0x11 if control & 0xc000 == 0x8000 => {
                    let table = word(place + 4);
                    let base = 0x10 + 4 * (table & 7) as usize;
                    let upper = if word(base) & 6 == 4 {
                        word(base + 4)
                    } else {
                        0
                    };
                    let base = u64::from(upper) << 32 | u64::from(word(base) & !0xf);
                    let registers = self.registers.borrow();
                    for number in 0..u64::from(control & 0x7ff) + 1 {
                        let entry = base + u64::from(table & !7) + number * 16;
                        let read = |offset| registers.get(&(entry + offset)).copied().unwrap_or(0);
                        let address = u64::from(read(4)) << 32 | u64::from(read(0));
                        // Entries come out of a reset masked, which is what nothing written means.
                        let masked = registers
                            .get(&(entry + 12))
                            .is_none_or(|bits| bits & 1 != 0);
                        if !masked {
                            found.push((address, read(8)));
                        }
                    }
                }
                _ => {}
            }
            place = usize::from(space[place + 1]);
        }
        found
    }

    /// The memory that a device decodes with its first BAR.
    #[must_use]
    pub fn registers_of(&self, number: usize) -> std::ops::Range<u64> {
        let bytes = if number == 2 { 1 << 12 } else { 1 << 14 };
        let space = self.machine.borrow().snapshot(device(number));
        let word = |offset: usize| {
            space.get(offset..offset + 4).map_or(0, |bytes| {
                u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
            })
        };
        let upper = if word(0x10) & 6 == 4 { word(0x14) } else { 0 };
        let base = upper << 32 | word(0x10) & !0xf;
        base..base + bytes
    }
}
