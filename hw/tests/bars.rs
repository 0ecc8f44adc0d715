//! BAR decode and sizing on simulated functions: every kind of register, every
//! broken one, and the promise that nothing is left changed.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::cell::{Cell, RefCell};

use hw::bar::{self, BarError, ProbeError, ROM_INDEX, Register, Slot, Space};
use hw::header::Layout;
use hw::{Bars, ConfigSpace, Header, Sbdf};
use portcullis_hw as hw;
use proptest::prelude::*;
use sim::config::{BarShape, Bridge, Endpoint, Machine, Misbehaviour};

const COMMAND: u16 = 0x04;

/// A function with all kinds of registers, in use: decoding and bus mastering on.
fn full() -> Endpoint {
    Endpoint::new(0x1af4, 0x1041)
        .class(2, 0, 0)
        .command(0x0407)
        .bar(0, io(0x20, 0xc000, 32))
        .bar(1, mem32(0x1000, 0xfebf_0000, false))
        .bar(2, mem64(1 << 34, 0x80_0000_0000, true))
        .bar(4, mem32(16, 0xfebf_1010, true))
        .rom(0x1_0000, 0xfeb0_0000)
}

fn io(size: u32, address: u32, bits: u8) -> BarShape {
    BarShape::Io {
        size,
        address,
        bits,
    }
}

fn mem32(size: u32, address: u32, prefetchable: bool) -> BarShape {
    BarShape::Memory32 {
        size,
        address,
        prefetchable,
    }
}

fn mem64(size: u64, address: u64, prefetchable: bool) -> BarShape {
    BarShape::Memory64 {
        size,
        address,
        prefetchable,
    }
}

fn raw(value: u32, writable: u32) -> BarShape {
    BarShape::Raw { value, writable }
}

/// Probes a function and checks that its registers are as before.
fn probe(function: impl Into<sim::config::Space>) -> Result<Bars, ProbeError> {
    let mut machine = Machine::new();
    let at = machine.add("00:03.0", function);
    let before = machine.snapshot(at);
    let header = Header::read(&machine, at).unwrap();
    let bars = bar::probe(&mut machine, at, &header);
    assert_eq!(machine.snapshot(at), before, "registers changed");
    bars
}

fn first_fault(function: Endpoint) -> BarError {
    probe(function).unwrap().faults().next().unwrap()
}

#[test]
fn every_kind_of_bar_is_sized_and_left_as_it_was() {
    let bars = probe(full()).unwrap();
    let found: Vec<_> = bars
        .iter()
        .map(|bar| (bar.index, bar.space, bar.address, bar.size))
        .collect();
    let expected = [
        (0, Space::Io, 0xc000, 0x20),
        (
            1,
            Space::Memory32 {
                prefetchable: false,
            },
            0xfebf_0000,
            0x1000,
        ),
        (
            2,
            Space::Memory64 { prefetchable: true },
            0x80_0000_0000,
            1 << 34,
        ),
        (4, Space::Memory32 { prefetchable: true }, 0xfebf_1010, 16),
    ];
    assert_eq!(found, expected);
    assert_eq!(bars.slots()[3], Slot::UpperHalf);
    assert_eq!(bars.slots()[5], Slot::Unused);
    assert_eq!(bars.get(2).unwrap().register(), 0x18);
    assert_eq!(bars.get(2).unwrap().last(), 0x83_ffff_ffff);
    assert!(bars.get(3).is_none());
    let rom = bars.rom().unwrap();
    assert_eq!(
        (rom.address, rom.size, rom.enabled),
        (0xfeb0_0000, 0x1_0000, false)
    );
    assert_eq!(bars.faults().count(), 0);
}

#[test]
fn registers_read_without_a_write_say_the_same() {
    let mut machine = Machine::new();
    let at = machine.add("00:03.0", full());
    let writes = machine.writes();
    let registers = bar::read_registers(&machine, at, 0x10, 6);
    let rom = bar::read_rom(&machine, at, Layout::Endpoint).unwrap();
    assert_eq!(machine.writes(), writes);
    let header = Header::read(&machine, at).unwrap();
    let bars = bar::probe(&mut machine, at, &header).unwrap();
    for (register, slot) in registers.into_iter().zip(bars.slots()) {
        let expected = match *slot {
            Slot::Bar(bar) => Register::Region {
                space: bar.space,
                address: bar.address,
            },
            Slot::UpperHalf => Register::UpperHalf,
            _ => Register::Zero,
        };
        assert_eq!(register, expected);
    }
    let sized = bars.rom().unwrap();
    assert_eq!((rom.address, rom.enabled), (sized.address, sized.enabled));
    // What breaks a rule, without a size.
    let function = Endpoint::new(1, 2)
        .bar(0, raw(0xffff_ffff, 0))
        .bar(1, raw(0x2, 0))
        .bar(5, raw(0x4, 0));
    let at = machine.add("00:04.0", function);
    let [first, second, .., last] = bar::read_registers(&machine, at, 0x10, 6);
    assert_eq!(first, Register::Faulty(BarError::AllOnes { index: 0 }));
    let reserved = BarError::ReservedType { index: 1, kind: 1 };
    assert_eq!(second, Register::Faulty(reserved));
    let missing = BarError::UpperHalfMissing { index: 5 };
    assert_eq!(last, Register::Faulty(missing));
    assert_eq!(bar::read_rom(&machine, at, Layout::CardBus), None);
}

#[test]
fn io_bars_may_have_16_address_bits() {
    let bars = probe(Endpoint::new(1, 2).bar(5, io(0x100, 0xc000, 16))).unwrap();
    assert_eq!(bars.get(5).unwrap().size, 0x100);
}

#[test]
fn unplaced_bars_have_address_zero() {
    let bars = probe(Endpoint::new(1, 2).bar(0, mem64(1 << 20, 0, false))).unwrap();
    assert_eq!(bars.get(0).unwrap().address, 0);
    assert_eq!(bars.get(0).unwrap().size, 1 << 20);
}

#[test]
fn the_largest_bar_has_a_size() {
    let bars = probe(Endpoint::new(1, 2).bar(0, mem64(1 << 63, 0, true))).unwrap();
    assert_eq!(bars.get(0).unwrap().size, 1 << 63);
    let bars = probe(Endpoint::new(1, 2).bar(0, mem32(1 << 31, 1 << 31, true))).unwrap();
    assert_eq!(bars.get(0).unwrap().last(), 0xffff_ffff);
}

#[test]
fn a_bridge_has_two_bars_and_its_rom_elsewhere() {
    let bridge = Bridge::new(0, 1, 1)
        .memory(0xfe80_0000, 0xfe9f_ffff)
        .with(|function| function.bar(0, mem64(0x4000, 0xfebf_0000, false)));
    let bars = probe(bridge).unwrap();
    assert_eq!(bars.iter().count(), 1);
    assert_eq!(bars.slots()[1], Slot::UpperHalf);
    // The registers behind it hold bus numbers and windows: no BARs.
    assert_eq!(bars.slots()[2], Slot::Unused);
    assert_eq!(bars.rom(), None);
}

#[test]
fn a_64_bit_bar_in_the_last_slot_is_a_fault() {
    let fault = first_fault(Endpoint::new(1, 2).bar(5, raw(0xfebf_0004, 0xffff_0000)));
    assert_eq!(fault, BarError::UpperHalfMissing { index: 5 });
    let bridge = Bridge::new(0, 1, 1).with(|f| f.bar(1, raw(0x4, 0xffff_0000)));
    let fault = probe(bridge).unwrap().faults().next().unwrap();
    assert_eq!(fault, BarError::UpperHalfMissing { index: 1 });
}

#[test]
fn reserved_memory_types_are_faults_and_spoil_only_their_slot() {
    for (bits, kind) in [(0x2, 1), (0x6, 3)] {
        let function = full().bar(5, raw(0xfeb0_0000 | bits, 0xffff_0000));
        let bars = probe(function).unwrap();
        let fault = BarError::ReservedType { index: 5, kind };
        assert_eq!(bars.slots()[5], Slot::Faulty(fault));
        assert_eq!(bars.iter().count(), 4);
    }
}

#[test]
fn regions_of_size_zero_are_faults() {
    // Hardwired: no address bit can be written.
    for value in [0x0000_0004, 0x0000_0008, 0x0000_0001] {
        let fault = first_fault(Endpoint::new(1, 2).bar(0, raw(value, 0)));
        assert_eq!(fault, BarError::ZeroSize { index: 0 }, "{value:#x}");
    }
    // 64 bits, of which none can be written: the upper register is not a BAR of its own.
    let bars = probe(Endpoint::new(1, 2).bar(0, raw(0xc, 0)).bar(1, raw(0, 0))).unwrap();
    assert_eq!(bars.slots()[1], Slot::UpperHalf);
}

#[test]
fn a_register_of_all_ones_is_a_fault() {
    let fault = first_fault(Endpoint::new(1, 2).bar(3, raw(u32::MAX, 0)));
    assert_eq!(fault, BarError::AllOnes { index: 3 });
    let function = Endpoint::new(1, 2).raw(0x30, &[0xff; 4]);
    assert_eq!(
        first_fault(function),
        BarError::AllOnes { index: ROM_INDEX }
    );
}

#[test]
fn gaps_between_writable_bits_are_faults() {
    let fault = first_fault(Endpoint::new(1, 2).bar(0, raw(0, 0xf00f_0000)));
    let mask = 0xffff_ffff_f00f_0000;
    assert_eq!(fault, BarError::NotContiguous { index: 0, mask });
    // An address bit that is always one.
    let fault = first_fault(Endpoint::new(1, 2).bar(0, raw(0x1000, 0xffff_0000)));
    let mask = 0xffff_ffff_ffff_1000;
    assert_eq!(fault, BarError::NotContiguous { index: 0, mask });
    // A 64-bit register whose upper half is hardwired to zero.
    let fault = first_fault(Endpoint::new(1, 2).bar(0, raw(4, 0xffff_0000)));
    let mask = 0xffff_0000;
    assert_eq!(fault, BarError::NotContiguous { index: 0, mask });
}

/// A function whose BAR 0 answers with a script, again and again.
struct Scripted {
    answers: [u32; 3],
    reads: Cell<usize>,
}

impl ConfigSpace for Scripted {
    fn read8(&self, _: Sbdf, _: u16) -> u8 {
        0
    }
    fn read16(&self, _: Sbdf, _: u16) -> u16 {
        0
    }
    fn read32(&self, _: Sbdf, offset: u16) -> u32 {
        if offset != 0x10 {
            return 0;
        }
        let read = self.reads.replace(self.reads.get() + 1);
        self.answers[read % 3]
    }
    fn write8(&mut self, _: Sbdf, _: u16, _: u8) {}
    fn write16(&mut self, _: Sbdf, _: u16, _: u16) {}
    fn write32(&mut self, _: Sbdf, _: u16, _: u32) {}
}

#[test]
fn an_address_inside_its_own_size_is_a_fault() {
    let mut device = Scripted {
        answers: [0x1000, 0xffff_0000, 0x1000],
        reads: Cell::new(0),
    };
    let mut machine = Machine::new();
    let at = machine.add("00:03.0", full());
    let header = Header::read(&machine, at).unwrap();
    let bars = bar::probe(&mut device, at, &header).unwrap();
    let fault = BarError::Misaligned {
        index: 0,
        address: 0x1000,
        size: 0x1_0000,
    };
    assert_eq!(bars.slots()[0], Slot::Faulty(fault));
}

#[test]
fn a_register_that_keeps_the_probe_is_a_fault() {
    let mut machine = Machine::new();
    let function = full().misbehave(Misbehaviour::KeepsOnes { bytes: 0x14..0x18 });
    let at = machine.add("00:03.0", function);
    let header = Header::read(&machine, at).unwrap();
    let bars = bar::probe(&mut machine, at, &header).unwrap();
    let fault = BarError::Unstable {
        index: 1,
        before: 0xfebf_0000,
        after: 0xffff_f000,
    };
    assert_eq!(bars.slots()[1], Slot::Faulty(fault));
    assert_eq!(bars.iter().count(), 3);
    assert_eq!(machine.snapshot(at)[4..6], [0x07, 0x04]);
}

#[test]
fn a_device_that_vanishes_at_any_moment_is_reported() {
    let accesses = {
        let mut machine = Machine::new();
        let at = machine.add("00:03.0", full());
        let header = Header::read(&machine, at).unwrap();
        let _ = bar::probe(&mut machine, at, &header);
        machine.reads() + machine.writes()
    };
    assert!((20..60).contains(&accesses), "{accesses} accesses");
    for answered in 3..accesses as u32 {
        let mut machine = Machine::new();
        let how = Misbehaviour::VanishesAfter { accesses: answered };
        let at = machine.add("00:03.0", full().misbehave(how));
        let header = Header::read(&machine, at).unwrap();
        let bars = bar::probe(&mut machine, at, &header);
        assert_eq!(bars, Err(ProbeError::Vanished), "after {answered}");
    }
}

/// Configuration space that writes down what is done to it.
struct Recorder {
    machine: Machine,
    writes: RefCell<Vec<(u16, u32)>>,
}

impl ConfigSpace for Recorder {
    fn read8(&self, at: Sbdf, offset: u16) -> u8 {
        self.machine.read8(at, offset)
    }
    fn read16(&self, at: Sbdf, offset: u16) -> u16 {
        self.machine.read16(at, offset)
    }
    fn read32(&self, at: Sbdf, offset: u16) -> u32 {
        self.machine.read32(at, offset)
    }
    fn write8(&mut self, at: Sbdf, offset: u16, value: u8) {
        self.writes.borrow_mut().push((offset, value.into()));
        self.machine.write8(at, offset, value);
    }
    fn write16(&mut self, at: Sbdf, offset: u16, value: u16) {
        self.writes.borrow_mut().push((offset, value.into()));
        self.machine.write16(at, offset, value);
    }
    fn write32(&mut self, at: Sbdf, offset: u16, value: u32) {
        self.writes.borrow_mut().push((offset, value));
        self.machine.write32(at, offset, value);
    }
}

fn recorded(function: Endpoint) -> Vec<(u16, u32)> {
    let mut machine = Machine::new();
    let at = machine.add("00:03.0", function);
    let header = Header::read(&machine, at).unwrap();
    let mut recorder = Recorder {
        machine,
        writes: RefCell::default(),
    };
    bar::probe(&mut recorder, at, &header).unwrap();
    recorder.writes.into_inner()
}

#[test]
fn decoding_is_off_while_registers_hold_the_probe_and_nothing_else_is_touched() {
    let writes = recorded(full());
    // Bus mastering and INTx disable stay as they are.
    assert_eq!(writes.first(), Some(&(COMMAND, 0x0404)));
    assert_eq!(writes.last(), Some(&(COMMAND, 0x0407)));
    let inner = &writes[1..writes.len() - 1];
    assert!(
        inner
            .iter()
            .all(|(offset, _)| (0x10..0x28).contains(offset) || *offset == 0x30)
    );
    // The ROM is never enabled by the probe.
    assert!(
        inner
            .iter()
            .all(|(offset, value)| *offset != 0x30 || value & 1 == 0)
    );
}

#[test]
fn a_host_bridge_keeps_decoding() {
    let writes = recorded(full().class(6, 0, 0));
    assert!(writes.iter().all(|(offset, _)| *offset != COMMAND));
}

#[test]
fn status_bits_survive_the_probe() {
    let mut machine = Machine::new();
    let at = machine.add("00:03.0", full());
    // Received master abort: cleared by anyone who writes Command with 32 bits.
    machine.poke(at, 0x07, &[0x20]);
    let header = Header::read(&machine, at).unwrap();
    bar::probe(&mut machine, at, &header).unwrap();
    assert_eq!(machine.snapshot(at)[7], 0x20);
}

fn shapes() -> impl Strategy<Value = [(u32, u32); 6]> {
    // Often plausible masks, sometimes anything.
    let mask = prop_oneof![
        (4u32..32).prop_map(|bits| u32::MAX << bits),
        any::<u32>(),
        Just(0),
        Just(u32::MAX)
    ];
    let value = prop_oneof![(0u32..16), any::<u32>(), Just(0), Just(u32::MAX)];
    prop::array::uniform6((value, mask))
}

proptest! {
    #[test]
    fn any_registers_are_probed_without_panic_and_come_back(shapes in shapes(), bridge: bool) {
        let mut function = Endpoint::new(1, 2).command(7);
        for (index, (value, writable)) in (0..6).zip(shapes) {
            function = function.bar(index, raw(value, writable));
        }
        if bridge {
            function = function.raw(0x0e, &[1]);
        }
        let layout = if bridge { Layout::Bridge } else { Layout::Endpoint };
        let count = layout.bar_count();
        let bars = probe(function).unwrap();
        for bar in bars.iter() {
            prop_assert!(bar.size.is_power_of_two());
            prop_assert_eq!(bar.address % bar.size, 0);
            prop_assert!(bar.index < count);
        }
    }

    #[test]
    fn registers_that_change_at_each_read_give_faults_or_bars(seed: u64) {
        let mut machine = Machine::new();
        let how = Misbehaviour::Changing { bytes: 0x04..0x34, seed };
        let at = machine.add("00:03.0", full().misbehave(how));
        let header = Header {
            layout: Layout::Endpoint,
            ..Header::read(&{
                let mut honest = Machine::new();
                honest.add("00:03.0", full());
                honest
            }, at).unwrap()
        };
        if let Ok(bars) = bar::probe(&mut machine, at, &header) {
            prop_assert!(bars.iter().all(|bar| bar.size.is_power_of_two()));
        }
    }
}
