//! The simulation itself: masks, dumps, regions, windows.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use hw::{ConfigSpace, Mmio};

use super::{BarShape, DumpError, Endpoint, Machine, Misbehaviour};
use crate::mmio::Memory;

#[test]
fn writes_change_only_writable_bits_of_the_bytes_written() {
    let mut machine = Machine::new();
    let at = machine.add("00:01.0", Endpoint::new(1, 2));
    machine.write32(at, 0x00, u32::MAX);
    assert_eq!(machine.read32(at, 0x00), 0x0002_0001);
    machine.write16(at, 0x04, u16::MAX);
    assert_eq!(machine.read32(at, 0x04), 0x0000_0547);
    machine.write8(at, 0x04, 0);
    assert_eq!(machine.read16(at, 0x04), 0x0500);
}

#[test]
fn status_bits_are_cleared_by_ones() {
    let mut machine = Machine::new();
    let at = machine.add("00:01.0", Endpoint::new(1, 2));
    machine.poke(at, 0x06, &[0x10, 0x30]);
    machine.write16(at, 0x06, 0x1000);
    assert_eq!(machine.read16(at, 0x06), 0x2010);
}

#[test]
fn absent_functions_and_bad_offsets_read_ones() {
    let mut machine = Machine::new();
    let at = machine.add("00:01.0", Endpoint::new(1, 2));
    let absent = "00:02.0".parse().unwrap();
    machine.write32(absent, 0x04, 0);
    assert_eq!(machine.read8(absent, 0), 0xff);
    assert_eq!(machine.read32(at, 0x02), u32::MAX);
    assert_eq!(machine.read32(at, 0x1000), u32::MAX);
    assert_eq!((machine.reads(), machine.writes()), (3, 1));
}

#[test]
fn a_reset_brings_back_what_the_device_has_by_itself() {
    let memory = BarShape::Memory32 {
        size: 0x1000,
        address: 0xfe00_0000,
        prefetchable: true,
    };
    let mut machine = Machine::new();
    let function = Endpoint::new(1, 2)
        .command(6)
        .bar(0, memory)
        .advanced_features()
        .quiet_after_reset(2);
    let at = machine.add("00:01.0", function);
    machine.write8(at, 0x44, 1);
    assert_eq!(machine.read16(at, 0x04), u16::MAX);
    assert_eq!(machine.read16(at, 0x04), u16::MAX);
    assert_eq!(machine.read16(at, 0x04), 0);
    assert_eq!(machine.read32(at, 0x10), 0x8);
}

#[test]
fn misbehaviour_is_what_it_says() {
    let mut machine = Machine::new();
    let gone = Endpoint::new(1, 2).misbehave(Misbehaviour::VanishesAfter { accesses: 2 });
    let gone = machine.add("00:01.0", gone);
    let reads: Vec<_> = (0..4).map(|_| machine.read16(gone, 0)).collect();
    assert_eq!(reads, [1, 1, 0xffff, 0xffff]);
    let how = Misbehaviour::Changing {
        bytes: 0x10..0x14,
        seed: 7,
    };
    let changing = machine.add("00:02.0", Endpoint::new(1, 2).misbehave(how));
    assert_ne!(
        machine.read32(changing, 0x10),
        machine.read32(changing, 0x10)
    );
    assert_eq!(machine.read32(changing, 0), 0x0002_0001);
}

#[test]
fn dumps_and_sizes_are_loaded() {
    let text = "0001:02:03.4 Ethernet controller: what lspci says\n\
                00: 86 80 0e 10 07 00 30 02 02 00 00 02 00 00 00 00\n\
                10: 04 00 00 e0 01 00 00 00 00 00 00 00 00 00 00 00\n\n";
    let mut machine = Machine::from_lspci(text).unwrap();
    machine
        .apply_regions("# comment\n0001:02:03.4\t0\t0x20000\tas printed\n")
        .unwrap();
    let at = "0001:02:03.4".parse().unwrap();
    assert_eq!(machine.read32(at, 0), 0x100e_8086);
    machine.write32(at, 0x10, u32::MAX);
    machine.write32(at, 0x14, u32::MAX);
    assert_eq!(machine.read32(at, 0x10), 0xfffe_0004);
    assert_eq!(machine.read32(at, 0x14), u32::MAX);
    // Whatever the dump does not have.
    assert_eq!(machine.read32(at, 0x40), u32::MAX);
}

#[test]
fn dumps_that_make_no_sense_are_refused_by_line() {
    let error = |line, what| Err(DumpError { line, what });
    let load = |text: &str| Machine::from_lspci(text).map(|_| ());
    assert_eq!(load("00: 12 34"), error(1, "bytes before any heading"));
    assert_eq!(load("00:01.0 x\n10: 12"), error(2, "rows are not in order"));
    assert_eq!(
        load("00:01.0 x\n00: zz"),
        error(2, "not a byte in hexadecimal")
    );
    assert_eq!(
        load("what is this\n"),
        error(1, "no function in the whole dump")
    );
    assert_eq!(
        load("00:01.0 x\n\n0000:00:01.0 y"),
        error(3, "the function is there twice")
    );
    let mut machine = Machine::new();
    let absent = machine.apply_regions("00:01.0\t0\t0x10");
    assert_eq!(absent, error(1, "no such function"));
}

#[test]
fn register_windows_have_bounds() {
    let mut window = Memory::new(16);
    window.write64(8, 0x1122_3344_5566_7788);
    assert_eq!(window.read32(12), 0x1122_3344);
    window.write32(16, 1);
    window.write32(2, 1);
    window.write64(usize::MAX - 7, 1);
    assert_eq!(window.writes, 1);
    assert_eq!((window.read32(16), window.read32(2)), (u32::MAX, u32::MAX));
}

#[test]
fn text_of_verbose_dumps_is_skipped_and_any_length_is_known() {
    let text = "10000:e1:00.0 NVM\n\tSubsystem: 00:01.0 looks like an address\n\
                \tRegion 0: Memory at f000\n00: 86 80\n\n\
                00:01.0 A\r\n00: 01 02\r\n";
    let functions = super::dump::read(text).unwrap();
    let names: Vec<_> = functions.iter().map(super::dump::Dumped::name).collect();
    assert_eq!(names, ["10000:e1:00.0", "0000:00:01.0"]);
    let machine = Machine::from_lspci(text).unwrap();
    let at = functions[0].at;
    assert_eq!(at.segment(), u16::MAX);
    assert_eq!(machine.read16(at, 0), 0x8086);
    assert_eq!(machine.read16(at, 2), u16::MAX);
    assert_eq!(machine.snapshot(at), [0x86, 0x80]);
}

#[test]
fn sizes_of_expansion_roms_are_modelled_in_both_kinds_of_headers() {
    let function = |at: &str, kind: &str| {
        let rest = "00 ".repeat(16);
        format!(
            "{at} x\n00: 86 80 0e 10 07 00 30 02 02 00 00 02 00 00 {kind} 00\n\
             10: {rest}\n20: {rest}\n30: {rest}\n\n"
        )
    };
    let text = function("00:01.0", "00") + &function("00:02.0", "01");
    let mut machine = Machine::from_lspci(&text).unwrap();
    machine
        .apply_regions("00:01.0\tROM\t0x10000\n00:02.0\tROM\t0x800\n")
        .unwrap();
    for (at, register, mask) in [
        ("00:01.0", 0x30, 0xffff_0001),
        ("00:02.0", 0x38, 0xffff_f801),
    ] {
        let at = at.parse().unwrap();
        machine.write32(at, register, u32::MAX);
        assert_eq!(machine.read32(at, register), mask);
    }
    let wrong = machine.apply_regions("00:01.0\tWHAT\t0x10\n");
    assert_eq!(wrong.unwrap_err().what, "neither a BAR's number nor ROM");
}
