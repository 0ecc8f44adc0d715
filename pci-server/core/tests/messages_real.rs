//! MSI and MSI-X of real devices: every function of the dumps that has them, modelled with the capabilities that the dump
//! shows, at the same offsets. What is programmed is read back by the specification (PCI 3.0, 6.8), from the bytes alone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;
#[path = "../../../hw/tests/data_folder/mod.rs"]
mod data_folder;

use common::*;
use hw::Sbdf;
use ipc_proto::{DeviceState, Mechanism, pci};
use sim::config::{BarShape, Endpoint, Machine};
use system::model::DeviceMatch;

/// Where the modelled device's registers are: one piece of memory for each BAR.
const BARS: [u64; 6] = [
    0x80_0000_0000,
    0,
    0x80_4000_0000,
    0,
    0x80_8000_0000,
    0xe000_0000,
];
/// First message's data, of those that the simulated msi-server gives.
const FIRST_DATA: u32 = 0x40;
/// Most messages that it gives at once here.
const MOST: u16 = 16;

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

/// Offset of a capability, by the list itself.
fn find(bytes: &[u8], id: u8) -> Option<usize> {
    if half(bytes, 6) & 1 << 4 == 0 {
        return None;
    }
    let mut at = usize::from(bytes[0x34] & 0xfc);
    // A list has at most as many entries as there is room for.
    for _ in 0..48 {
        if !(0x40..=0xfc).contains(&at) {
            return None;
        }
        if bytes[at] == id {
            return Some(at);
        }
        at = usize::from(bytes[at + 1] & 0xfc);
    }
    None
}

#[derive(Clone, Copy, Debug)]
struct Msi {
    at: usize,
    messages: u16,
    wide: bool,
    maskable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Msix {
    at: usize,
    entries: u16,
    table: (usize, u32),
    pending: (usize, u32),
}

fn msi(bytes: &[u8]) -> Option<Msi> {
    let at = find(bytes, 0x05)?;
    let control = half(bytes, at + 2);
    Some(Msi {
        at,
        messages: 1 << (control >> 1 & 7),
        wide: control & 0x80 != 0,
        maskable: control & 0x100 != 0,
    })
}

fn msix(bytes: &[u8]) -> Option<Msix> {
    let at = find(bytes, 0x11)?;
    let place = |at| {
        let word = word(bytes, at);
        ((word & 7) as usize, word & !7)
    };
    Some(Msix {
        at,
        entries: (half(bytes, at + 2) & 0x7ff) + 1,
        table: place(at + 4),
        pending: place(at + 8),
    })
}

/// A device with the capabilities of the dump, switched off as after a reset. `None`: the dump places the table in a BAR
/// that the model has no room for.
fn model(bytes: &[u8]) -> Option<Endpoint> {
    let mut device = Endpoint::new(half(bytes, 0), half(bytes, 2))
        .class(bytes[0xb], bytes[0xa], bytes[9])
        .raw(6, &[0x10, 0])
        .raw(0x34, &bytes[0x34..0x35])
        .raw(0x40, &bytes[0x40..0x100]);
    if let Some(at) = find(bytes, 0x01) {
        // D0.
        device = device.raw((at + 4) as u16, &[bytes[at + 4] & !3]);
    }
    if let Some(Msi {
        at,
        messages,
        wide,
        maskable,
    }) = msi(bytes)
    {
        let body = if wide { 12 } else { 8 };
        let data = if wide { at + 12 } else { at + 8 };
        let length = body + if maskable { 12 } else { 2 };
        device = device
            .raw((at + 2) as u16, &[bytes[at + 2] & !0x71])
            .raw((at + 4) as u16, &vec![0; length - 4])
            .allow((at + 2) as u16, &[0x71])
            .allow((at + 4) as u16, &[0xfc, 0xff, 0xff, 0xff])
            .allow(data as u16, &[0xff, 0xff]);
        if wide {
            device = device.allow((at + 8) as u16, &[0xff; 4]);
        }
        if maskable {
            let bits = u32::MAX >> (32 - u32::from(messages));
            device = device.allow((data + 4) as u16, &bits.to_le_bytes());
        }
    }
    if let Some(msix) = msix(bytes) {
        device = device
            .raw((msix.at + 3) as u16, &[bytes[msix.at + 3] & !0xc0])
            .allow((msix.at + 3) as u16, &[0xc0]);
        let table = u64::from(msix.table.1) + 16 * u64::from(msix.entries);
        let pending = u64::from(msix.pending.1) + u64::from(msix.entries).div_ceil(64) * 8;
        for (bar, end) in [(msix.table.0, table), (msix.pending.0, pending)] {
            let end = if msix.table.0 == msix.pending.0 {
                table.max(pending)
            } else {
                end
            };
            let size = end.next_power_of_two().max(4096);
            let address = BARS.get(bar).copied().filter(|base| *base != 0);
            let (index, shape) = match (bar, address) {
                (5, Some(address)) => (
                    5,
                    BarShape::Memory32 {
                        size: size as u32,
                        address: address as u32,
                        prefetchable: false,
                    },
                ),
                (_, Some(address)) => (
                    bar as u8,
                    BarShape::Memory64 {
                        size,
                        address,
                        prefetchable: false,
                    },
                ),
                (1 | 3, None) => (
                    bar as u8,
                    BarShape::Memory32 {
                        size: size as u32,
                        address: 0xe000_0000 + 0x400_0000 * bar as u32,
                        prefetchable: false,
                    },
                ),
                _ => return None,
            };
            device = device.bar(index, shape);
        }
    }
    Some(device)
}

/// Address of a BAR of the model.
fn base(registers: &[u8], bar: usize) -> u64 {
    let low = word(registers, 0x10 + 4 * bar);
    let high = if low & 6 == 4 {
        word(registers, 0x14 + 4 * bar)
    } else {
        0
    };
    u64::from(low & !0xf) | u64::from(high) << 32
}

fn check_msi(booted: &Booted, at: Sbdf, device: &pci::Stub<Caller<'_>>, msi: Msi, name: &str) {
    let registers = || booted.world(|world| world.machine.snapshot(at));
    let before = registers();
    for count in (0..6).map(|bits| 1u16 << bits) {
        if count > msi.messages.min(MOST) {
            break;
        }
        booted.world(|world| world.next_vector = FIRST_DATA);
        let enabled = device.msi_enable(Mechanism::Msi, 0, count, 1);
        enabled.unwrap_or_else(|refusal| panic!("{name}: {count} messages: {refusal}"));
        let now = registers();
        let control = half(&now, msi.at + 2);
        assert_eq!(control & 1, 1, "{name}: enabled");
        assert_eq!(1 << (control >> 4 & 7), count, "{name}: messages");
        assert_eq!(word(&now, msi.at + 4), 0xfee0_0000, "{name}: address");
        let mut data = msi.at + 8;
        if msi.wide {
            assert_eq!(word(&now, msi.at + 8), 0, "{name}: upper address");
            data += 4;
        }
        let first = half(&now, data);
        assert_eq!(u32::from(first), FIRST_DATA, "{name}: data");
        assert_eq!(first % count, 0, "{name}: aligned");
        if msi.maskable {
            let all = u32::MAX >> (32 - u32::from(msi.messages));
            let used = u32::MAX >> (32 - u32::from(count));
            let masks = word(&now, data + 4);
            assert_eq!(masks & used, 0, "{name}: what is used is not masked");
            assert_eq!(masks, all & !used, "{name}: what is not is");
        }
        device.msi_disable().unwrap();
        let after = registers();
        assert_eq!(
            half(&after, msi.at + 2),
            half(&before, msi.at + 2),
            "{name}"
        );
        assert!(booted.world(|world| world.vectors.is_empty()), "{name}");
    }
}

fn check_msix(booted: &Booted, at: Sbdf, device: &pci::Stub<Caller<'_>>, msix: Msix, name: &str) {
    let registers = || booted.world(|world| world.machine.snapshot(at));
    let before = registers();
    let table = base(&before, msix.table.0) + u64::from(msix.table.1);
    let last = msix.entries - 1;
    let some = msix.entries.min(MOST);
    for (first, count) in [
        (0, 1),
        (last / 2, 1),
        (last, 1),
        (0, some),
        (last + 1 - some, some),
    ] {
        booted.world(|world| {
            world.next_vector = FIRST_DATA;
            world.memory.clear();
        });
        let enabled = device.msi_enable(Mechanism::MsiX, first, count, 1);
        enabled.unwrap_or_else(|refusal| panic!("{name}: {first}+{count}: {refusal}"));
        let control = half(&registers(), msix.at + 2);
        assert_eq!(control & 0xc000, 0x8000, "{name}: enabled, not masked");
        let mut data = Vec::new();
        for entry in 0..msix.entries {
            let read = |offset: u64| {
                let place = table + 16 * u64::from(entry) + offset;
                booted.world(|world| world.memory.get(&place).copied().unwrap_or(0))
            };
            if (first..first + count).contains(&entry) {
                assert_eq!((read(0), read(4)), (0xfee0_0000, 0), "{name}: {entry}");
                assert_eq!(read(12) & 1, 0, "{name}: entry {entry} is not masked");
                data.push(read(8));
            } else {
                assert_eq!(read(12) & 1, 1, "{name}: entry {entry} is masked");
            }
        }
        let taken = data.len();
        data.sort_unstable();
        data.dedup();
        assert_eq!(data.len(), taken, "{name}: each has a vector of its own");
        // Nothing beyond the table was written, its pending bits among it.
        let end = table + 16 * u64::from(msix.entries);
        let written = booted.world(|world| world.memory.keys().copied().collect::<Vec<_>>());
        assert!(
            written.iter().all(|place| (table..end).contains(place)),
            "{name}: {written:x?}"
        );
        device.msi_disable().unwrap();
        let after = registers();
        assert_eq!(
            half(&after, msix.at + 2),
            half(&before, msix.at + 2),
            "{name}"
        );
        assert!(booted.world(|world| world.vectors.is_empty()), "{name}");
    }
}

#[test]
fn messages_of_real_devices_are_programmed_as_their_layout_says() {
    const NAME: &str = "messages_of_real_devices_are_programmed_as_their_layout_says";
    let Some(folder) = data_folder::find(NAME) else {
        return;
    };
    let mut left_out = Vec::new();
    let (mut with_msi, mut with_msix) = (0, 0);
    let mut paths: Vec<_> = std::fs::read_dir(folder.join("pci"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
        .collect();
    paths.sort();
    for path in &paths {
        let text = std::fs::read_to_string(path).unwrap();
        let dump = Machine::from_lspci(&text).unwrap();
        let file = path.file_stem().unwrap().to_string_lossy().to_string();
        for address in dump.addresses().collect::<Vec<_>>() {
            let bytes = dump.snapshot(address);
            // Bridges are nobody's.
            if bytes.len() < 256 || bytes[0xe] & 0x7f != 0 {
                continue;
            }
            let (msi, msix) = (msi(&bytes), msix(&bytes));
            if msi.is_none() && msix.is_none() {
                continue;
            }
            let name = format!("{file} {address}");
            let Some(device) = model(&bytes) else {
                left_out.push(format!("{name}: a BAR of its own"));
                continue;
            };
            let mut machine = Machine::new();
            let at = machine.add("00:03.0", device);
            let any = DeviceMatch::Class { class: 0, mask: 0 };
            let booted = Booted::new(machine, vec![client("zero", &[any])]);
            booted.world(|world| world.vector_quota = MOST);
            let state = booted.supervisor().holder(0).unwrap().state;
            if state == DeviceState::Withheld {
                left_out.push(format!("{name}: withheld"));
                continue;
            }
            let device = booted.assigned(0, at, 0);
            if let Some(msi) = msi {
                check_msi(&booted, at, &device, msi, &name);
                with_msi += 1;
            }
            if let Some(msix) = msix {
                check_msix(&booted, at, &device, msix, &name);
                with_msix += 1;
            }
        }
    }
    data_folder::say(&format!(
        "{} dumps: MSI of {with_msi} functions, MSI-X of {with_msix}; left out: {left_out:?}",
        paths.len()
    ));
    assert!(with_msi > 0 && with_msix > 0);
}
