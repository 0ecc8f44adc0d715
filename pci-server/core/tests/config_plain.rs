//! The shorter way of a write to the header does what the way of all writes does.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use common::devices::*;
use common::*;
use hw::{ConfigSpace, Sbdf};
use ipc_proto::Width;
use pci_core::config::{self, plain};
use proptest::prelude::*;
use sim::config::{Endpoint, Machine, Space};
use system::model::DeviceMatch;

/// A function whose Command and Status hold anything that they can, and whose BARs may say their size.
fn boot(command: u16, status: u16, sizing: u64) -> (Machine, pci_core::Device, Sbdf) {
    let mut space =
        Space::from(Endpoint::new(0x1af4, 0x1042).bar(0, memory32(1 << 14, 0xe000_0000)));
    space.allow_clear(0x06, &[0x00, 0xf9]);
    let at: Sbdf = "00:03.0".parse().unwrap();
    let mut machine = Machine::new();
    machine.insert(at, space);
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let booted = Booted::new(machine, vec![client("zero", &[any])]);
    let shard = booted.shard.into_inner();
    let mut device = shard.devices().at(at).unwrap().clone();
    device.hidden |= sizing & config::SIZING;
    let machine = shard.into_env().machine;
    machine.poke(at, 0x04, &command.to_le_bytes());
    machine.poke(at, 0x06, &status.to_le_bytes());
    (machine, device, at)
}

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::Byte), Just(Width::Word), Just(Width::Dword)]
}

proptest! {
    #[test]
    fn the_shorter_way_of_a_write_does_the_same(
        command: u16,
        status: u16,
        sizing: u64,
        offset in prop_oneof![0u16..0x48, 4u16..8, any::<u16>()],
        width in widths(),
        value: u32,
        // Most bits as they are, as drivers write them.
        flip in prop_oneof![Just(0u32), Just(1 << 6), Just(1 << 2), any::<u32>()],
        keep: bool,
    ) {
        let (mut machine, device, at) = boot(command, status, sizing);
        let value = match keep {
            true => u32::from(machine.read16(at, 0x04)) ^ flip,
            false => value,
        };
        let before = machine.snapshot(at);
        let plan = config::plan(&machine, &device, offset, width, value);
        let short = plain::write(&mut machine, &device, offset, width, value);
        let after = machine.snapshot(at);
        match (plan, short) {
            (Ok(planned), Some(())) => {
                prop_assert_eq!(planned.action, None);
                let (mut other, _, _) = boot(command, status, sizing);
                planned.carry_out(&mut other, &device);
                prop_assert_eq!(after, other.snapshot(at));
            }
            (Err(refusal), Some(())) => prop_assert!(false, "refused with {refusal:?}"),
            (_, None) => prop_assert_eq!(after, before),
        }
    }
}

#[test]
fn a_driver_s_write_of_command_takes_the_shorter_way() {
    let (mut machine, device, at) = boot(0x0402, 0x0010, 0);
    for (width, value) in [
        (Width::Dword, 0x0442),
        (Width::Dword, 0x0402),
        (Width::Word, 0x0442),
    ] {
        let short = plain::write(&mut machine, &device, 0x04, width, value);
        assert_eq!(short, Some(()));
        assert_eq!(u32::from(machine.read16(at, 0x04)), value);
    }
    // Bus mastering is an operation, and bits of Status are cleared by ones.
    for value in [0x0406, 0x0800_0402] {
        let short = plain::write(&mut machine, &device, 0x04, Width::Dword, value);
        assert_eq!(short, None);
    }
}
