//! [`Lazy`]: the environment of a shard whose functions are computed from their addresses, so that a
//! machine may have a million of them. The servers below agree to everything; configuration accesses
//! are counted.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by test programs, each of which may stop at the first surprise"
)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use hw::{Clock, ConfigSpace, Sbdf};
use ipc_proto::iommu::{ReservedAtReply, TroubleNextReply};
use ipc_proto::{
    Badge, ClientId, ContextChoice, Message, Messages, Properties, Refusal, Rule, Switch, Turns,
    Width,
};
use pci_core::bank::PageSize;
use pci_core::env::*;
use system::info::{EcamWindow, PciInfo, UntypedPiece};

/// Functions on bus 0 of a segment with many: what is [`NEAR`], and a bridge to each bus from 8 on.
pub const BRIDGES: u32 = NEAR + 248;
/// Device 0 of bus 0, the same in every machine: a host bridge, and three bridges to buses with two functions each.
const NEAR: u32 = 4;
/// Functions of a segment that has no more.
const FEW: u32 = NEAR + 2 * (NEAR - 1);
/// The first bus behind the other bridges.
const FIRST_FAR: u32 = 8;
/// Vendor of every function.
pub const VENDOR: u16 = 0x8086;
/// First address of the memory of segment 0; each segment has 1 GiB, each bus of it 4 MiB.
const MEMORY: u64 = 0x80_0000_0000;

const COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;
const BAR_BYTES: u32 = 16 << 10;
/// A 64-bit prefetchable memory BAR.
const BAR_BITS: u32 = 0xc;

/// What a function has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    HostBridge,
    RootPort,
    ConventionalBridge,
    Bare,
    Msi,
    Express,
    Powered,
}

/// A machine of whole segments.
pub struct Lazy {
    /// The first segment of the shard.
    pub first_segment: u16,
    /// Functions of each segment.
    pub each: u32,
    /// Registers that are not as they were at power-on.
    written: HashMap<(u32, u16), u32>,
    accesses: Cell<u64>,
    pub log: RefCell<Vec<String>>,
    /// Badges of device capabilities by assignment.
    pub masters: BTreeMap<u16, Badge>,
    pub alarm: Option<u64>,
    pub now: u64,
    next_ticket: u32,
    pub answers: HashMap<u32, Message>,
}

impl Lazy {
    /// Segments with `each` functions: [`FEW`], or at least [`BRIDGES`] more.
    pub fn new(first_segment: u16, each: u32) -> Self {
        assert!(each == FEW || each >= FEW + BRIDGES, "{each}");
        Self {
            first_segment,
            each,
            written: HashMap::new(),
            accesses: Cell::new(0),
            log: RefCell::default(),
            masters: BTreeMap::new(),
            alarm: None,
            now: 0,
            next_ticket: 0,
            answers: HashMap::new(),
        }
    }

    /// Configuration accesses so far.
    pub fn accesses(&self) -> u64 {
        self.accesses.get()
    }

    /// The last request that was put aside.
    pub const fn last_ticket(&self) -> u32 {
        self.next_ticket
    }

    /// What the root task tells a shard that has `segments` of them.
    pub fn info(&self, segments: u16) -> PciInfo {
        let mut info = super::common::pci_info();
        info.ecam.clear();
        info.mmio.clear();
        for segment in self.first_segment..self.first_segment + segments {
            let window = EcamWindow {
                vaddr: 0x4000_0000,
                paddr: 0xb000_0000,
                segment,
                first_bus: 0,
                last_bus: 0xff,
            };
            info.ecam.push(window).unwrap();
        }
        let memory = UntypedPiece {
            slot: 100,
            base: MEMORY,
            bits: 38,
        };
        info.mmio.push(memory).unwrap();
        info
    }

    /// How many functions a bus of every segment has.
    fn on_bus(&self, bus: u8) -> u32 {
        let far = self.each.saturating_sub(FEW);
        match u32::from(bus) {
            0 if far == 0 => NEAR,
            0 => BRIDGES,
            1..NEAR => 2,
            NEAR..FIRST_FAR => 0,
            bus => {
                let (rest, buses) = (far.saturating_sub(BRIDGES - NEAR), BRIDGES - NEAR);
                rest / buses + u32::from(bus - FIRST_FAR < rest % buses)
            }
        }
    }

    pub fn shape(&self, at: Sbdf) -> Option<Shape> {
        let number = u32::from(at.device()) << 3 | u32::from(at.function());
        // Device 0 of bus 0 has no functions 4 to 7.
        let place = match (at.bus(), number) {
            (0, NEAR..FIRST_FAR) => return None,
            (0, FIRST_FAR..) => number - (FIRST_FAR - NEAR),
            _ => number,
        };
        if at.segment() < self.first_segment || place >= self.on_bus(at.bus()) {
            return None;
        }
        Some(match (at.bus(), number) {
            (0, 0) => Shape::HostBridge,
            (0, _) => match number % 2 {
                0 => Shape::RootPort,
                _ => Shape::ConventionalBridge,
            },
            _ => match number % 4 {
                0 => Shape::Express,
                1 => Shape::Msi,
                2 => Shape::Powered,
                _ => Shape::Bare,
            },
        })
    }

    /// First address of the memory behind a bus.
    fn memory(segment: u16, bus: u8) -> u64 {
        MEMORY + (u64::from(segment) << 30) + (u64::from(bus) << 22)
    }

    /// Four bytes as they are at power-on, in a function that is there.
    fn power_on(at: Sbdf, shape: Shape, offset: u16) -> u32 {
        let number = u32::from(at.device()) << 3 | u32::from(at.function());
        let multi = 1 << 23;
        let bridge = matches!(shape, Shape::RootPort | Shape::ConventionalBridge);
        let list = |first: u8| match offset {
            0x34 => u32::from(first),
            _ => 0,
        };
        match (offset, shape) {
            (0x00, _) => u32::from(VENDOR) | (0x1000 | shape as u32) << 16,
            (0x04, Shape::HostBridge | Shape::Bare) => 0,
            // The function has a list of capabilities.
            (0x04, Shape::ConventionalBridge) => 0x0007,
            (0x04, Shape::RootPort) => 0x0010_0007,
            (0x04, _) => 0x0010_0000,
            (0x08, Shape::HostBridge) => 0x0600_0000,
            (0x08, _) if bridge => 0x0604_0000,
            (0x08, _) => 0x0200_0000,
            (0x0c, _) if bridge => multi | 1 << 16,
            (0x0c, _) => multi,
            (0x18, _) if bridge => number << 16 | number << 8,
            // Prefetchable window, of 64 bits.
            (0x24, _) if bridge => {
                let page = (Self::memory(at.segment(), number as u8) >> 16) as u32 & 0xfff0;
                ((page + 0x30) | 1) << 16 | page | 1
            }
            (0x28 | 0x2c, _) if bridge => (Self::memory(at.segment(), number as u8) >> 32) as u32,
            (0x10, _) if !bridge && shape != Shape::HostBridge => {
                let base = Self::memory(at.segment(), at.bus()) as u32;
                (base + number * BAR_BYTES) | BAR_BITS
            }
            (0x14, _) if !bridge && shape != Shape::HostBridge => {
                (Self::memory(at.segment(), at.bus()) >> 32) as u32
            }
            // Express: a root port, or an endpoint with function-level reset.
            (0x34, Shape::RootPort | Shape::Express) => list(0x40),
            (0x40, Shape::RootPort) => 0x0042_0010,
            // Access control: source validation, redirection, upstream forwarding.
            (0x100, Shape::RootPort) => 0x0001_000d,
            (0x104, Shape::RootPort) => 0x001d,
            (0x40, Shape::Express) => 0x0002_6010,
            (0x44, Shape::Express) => 1 << 28,
            // 16 messages by MSI-X.
            (0x60, Shape::Express) => 0x000f_0011,
            (0x64, Shape::Express) => 0x2000,
            (0x68, Shape::Express) => 0x3000,
            // One message by MSI, of 64 bits.
            (0x34, Shape::Msi) => list(0x50),
            (0x50, Shape::Msi) => 0x0080_0005,
            // Power management.
            (0x34, Shape::Powered) => list(0x70),
            (0x70, Shape::Powered) => 0x0003_0001,
            _ => 0,
        }
    }

    /// Bits that can be written.
    fn mask(shape: Shape, offset: u16) -> u32 {
        let bridge = matches!(shape, Shape::RootPort | Shape::ConventionalBridge);
        match (offset, shape) {
            (COMMAND, _) => 0x0507,
            (BAR0, _) if !bridge && shape != Shape::HostBridge => !(BAR_BYTES - 1),
            (0x14, _) if !bridge && shape != Shape::HostBridge => u32::MAX,
            (0x50, Shape::Msi) => 0x0001_0000,
            (0x54..=0x5c, Shape::Msi) => u32::MAX,
            (0x60, Shape::Express) => 0xc000_0000,
            (0x74, Shape::Powered) => 0x3,
            (0x104, Shape::RootPort) => 0x001d_0000,
            _ => 0,
        }
    }

    fn word(&self, at: Sbdf, offset: u16) -> u32 {
        let offset = offset & !3;
        let Some(shape) = self.shape(at) else {
            return u32::MAX;
        };
        self.written
            .get(&(at.to_bits(), offset))
            .copied()
            .unwrap_or_else(|| Self::power_on(at, shape, offset))
    }

    fn read(&self, at: Sbdf, offset: u16) -> u32 {
        self.accesses.set(self.accesses.get() + 1);
        self.word(at, offset) >> (offset % 4 * 8)
    }

    fn write(&mut self, at: Sbdf, offset: u16, value: u32, bits: u32) {
        self.accesses.set(self.accesses.get() + 1);
        let Some(shape) = self.shape(at) else {
            return;
        };
        let (place, shift) = (offset & !3, offset % 4 * 8);
        let mask = Self::mask(shape, place) & bits << shift;
        let word = self.word(at, place) & !mask | value << shift & mask;
        if word == Self::power_on(at, shape, place) {
            self.written.remove(&(at.to_bits(), place));
        } else {
            self.written.insert((at.to_bits(), place), word);
        }
    }
}

impl ConfigSpace for Lazy {
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        self.read(at, offset) as u8
    }
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        self.read(at, offset) as u16
    }
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        self.read(at, offset)
    }
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8) {
        self.write(at, offset, value.into(), 0xff);
    }
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16) {
        self.write(at, offset, value.into(), 0xffff);
    }
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32) {
        self.write(at, offset, value, u32::MAX);
    }
}

impl Clock for Lazy {
    fn now_us(&self) -> u64 {
        self.now
    }
}

impl Iommu for Lazy {
    fn attach(
        &mut self,
        _: Sbdf,
        _: ClientId,
        _: ContextChoice,
        _: u8,
    ) -> Result<(Properties, u16), Refusal> {
        Ok((Properties::default(), 0))
    }
    fn keep(&mut self, _: Sbdf, _: u8) -> Result<Switch, Refusal> {
        Ok(Switch::Off)
    }
    fn detach(&mut self, _: Sbdf) -> Result<(), Refusal> {
        Ok(())
    }
    fn promise(&mut self, _: Sbdf) -> Result<Properties, Refusal> {
        Ok(Properties::default())
    }
    fn alias(&mut self, _: Sbdf, _: Sbdf) -> Result<(), Refusal> {
        Ok(())
    }
    fn remap(&mut self, _: Sbdf, vectors: VectorBlock, _: u16) -> Result<VectorBlock, Refusal> {
        Ok(vectors)
    }
    fn reroute(&mut self, _: Sbdf, _: VectorBlock, _: Messages, _: u64) -> Result<(), Refusal> {
        Ok(())
    }
    fn unremap(&mut self, _: Sbdf) -> Result<(), Refusal> {
        Ok(())
    }
    fn reserved_at(&mut self, _: Sbdf, _: u16) -> Result<ReservedAtReply, Refusal> {
        Err(Rule::EndOfList.into())
    }
    fn trouble_next(&mut self) -> Result<TroubleNextReply, Refusal> {
        Err(Rule::EndOfList.into())
    }
}

impl Vectors for Lazy {
    fn take(&mut self, _: Sbdf, _: ClientId, _: Messages, _: u16) -> Result<VectorBlock, Refusal> {
        Ok(VectorBlock {
            address: 0xfee0_0000,
            data: 0x40,
        })
    }
    fn give_back(&mut self, _: Sbdf) -> Result<(), Refusal> {
        Ok(())
    }
    fn retarget(&mut self, _: Sbdf, _: Messages, _: u8) -> Result<u64, Refusal> {
        Ok(0xfee0_0000)
    }
    fn bind(&mut self, _: Sbdf, _: u16, _: u64) -> Result<(), Refusal> {
        Err(Rule::NotMetered.into())
    }
    fn resume(&mut self, _: Sbdf, _: Messages) -> Result<u16, Refusal> {
        Ok(0)
    }
    fn message_trouble(&mut self) -> Result<(Sbdf, u16, u32), Refusal> {
        Err(Rule::EndOfList.into())
    }
    fn vectors_for(&mut self, _: ClientId) -> Result<Prospect, Refusal> {
        Err(Rule::BadArgument.into())
    }
    fn join_line(&mut self, _: Sbdf, _: ClientId, _: u16) -> Result<(), Refusal> {
        Ok(())
    }
    fn leave_line(&mut self, _: Sbdf) -> Result<(), Refusal> {
        Ok(())
    }
    fn line_trouble(&mut self) -> Result<(Sbdf, u32), Refusal> {
        Err(Rule::EndOfList.into())
    }
}

impl Grants for Lazy {
    fn place_device(
        &mut self,
        assignment: u16,
        badge: Badge,
        _: ClientId,
        _: u16,
    ) -> Result<(), Refusal> {
        self.masters.insert(assignment, badge);
        Ok(())
    }
    fn revoke_device(&mut self, assignment: u16) -> Result<(), Refusal> {
        self.masters.remove(&assignment);
        Ok(())
    }
    fn place_view(&mut self, _: u16, _: Badge, _: ClientId, _: u16) -> Result<(), Refusal> {
        Ok(())
    }
    fn revoke_view(&mut self, _: u16) -> Result<(), Refusal> {
        Ok(())
    }
    fn keep_masters(&mut self, _: u64, _: u64) -> Result<(), Refusal> {
        Ok(())
    }
}

/// No memory behind a BAR is touched.
impl BarMemory for Lazy {
    fn place_frames(
        &mut self,
        _: RegionId,
        _: PageSize,
        _: u32,
        _: u16,
        _: ClientId,
        _: u16,
    ) -> Result<(), Refusal> {
        Err(Rule::KernelRefused.into())
    }
    fn map_table(&mut self, _: RegionId, _: u16, _: u32, _: u16) -> Result<(), Refusal> {
        Err(Rule::KernelRefused.into())
    }
    fn read_table(&self, _: u16, _: u32) -> u32 {
        u32::MAX
    }
    fn write_table(&mut self, _: u16, _: u32, _: u32) {}
    fn map_page(&mut self, _: RegionId, _: u16, _: u32) -> Result<(), Refusal> {
        Err(Rule::KernelRefused.into())
    }
    fn read_page(&self, _: u16, _: u16, _: Width) -> u32 {
        u32::MAX
    }
    fn write_page(&mut self, _: u16, _: u16, _: Width, _: u32) {}
    fn revoke_frames(&mut self, _: RegionId, _: u16) -> Result<(), Refusal> {
        Ok(())
    }
    fn keep_frames(&mut self, _: RegionId) {}
    fn sweep_frames(&mut self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// It is never restarted.
impl ledger::Words for Lazy {
    fn count(&self) -> usize {
        0
    }
    fn load(&self, _: usize) -> u64 {
        0
    }
    fn store(&mut self, _: usize, _: u64) {}
}

impl Parking for Lazy {
    type Ticket = u32;
    fn park(&mut self) -> Result<u32, Refusal> {
        self.next_ticket += 1;
        Ok(self.next_ticket)
    }
    fn answer(&mut self, ticket: u32, reply: &Message) {
        self.answers.insert(ticket, *reply);
    }
}

impl Alarm for Lazy {
    fn arm(&mut self, micros: u64) {
        self.alarm = Some(self.now + micros);
    }
}

impl Signals for Lazy {
    fn tell_client(&mut self, _: ClientId) {}
    fn tell_supervisor(&mut self) {}
}

impl Host for Lazy {
    fn log(&mut self, line: fmt::Arguments<'_>) {
        self.log.borrow_mut().push(line.to_string());
    }
    fn ticks(&self) -> u64 {
        self.accesses.get()
    }
    fn turns(&self) -> Turns {
        Turns::default()
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
}
