//! Four devices with different resets and two clients that may have them all.

use hw::Sbdf;
use ipc_proto::{Mechanism, Switch, pci};
use sim::config::Machine;
use system::model::DeviceMatch;

use super::devices::*;
use super::kernel::Place;
use super::*;

pub const EDU: &str = "0000:00:03.0";
pub const NVME: &str = "0000:00:04.0";
pub const NET: &str = "0000:00:05.0";
pub const SOUND: &str = "0000:00:06.0";

pub fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

pub fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.add(EDU, edu(0xe000_0000));
    machine.add(NVME, nvme(0x80_0000_0000));
    machine.add(NET, conventional(0xe010_0000));
    machine.add(SOUND, power_cycled(0xe020_0000));
    for device in [NVME, NET, SOUND] {
        // What firmware sets up and a reset takes away: cache line size, interrupt line.
        machine.poke(at(device), 0x0c, &[0x10]);
        machine.poke(at(device), 0x3c, &[0x0b]);
    }
    // Device Control: payload and request sizes; Device Control 2 cannot be written here.
    machine.poke(at(NVME), 0x5c, &[0x20, 0x20]);
    machine
}

pub fn booted_with(machine: Machine) -> Booted {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    Booted::new(machine, vec![client("zero", &[any]), client("one", &[any])])
}

pub fn booted() -> Booted {
    booted_with(machine())
}

/// Everything that a client can have of a device.
pub fn take_everything<'b>(
    booted: &'b Booted,
    client: u16,
    device: &str,
    mechanism: Mechanism,
    slot: u16,
) -> pci::Stub<Caller<'b>> {
    let stub = booted.assigned(client, at(device), slot);
    stub.bar_frames(0, 0, 1, slot + 1).unwrap();
    stub.msi_enable(mechanism, 0, 1, slot + 2).unwrap();
    stub.bus_master(Switch::On).unwrap();
    booted.world(|world| {
        // Copied on, as a client may.
        world.kernel.client_copies(Place::Window(client, slot));
        world.kernel.client_copies(Place::Window(client, slot + 1));
        world.did.clear();
    });
    stub
}

/// What happened, in the words of the order that is fixed.
pub fn order(booted: &Booted, device: &str) -> Vec<&'static str> {
    let device = at(device);
    let words = booted.world(|world| {
        let mut words = Vec::new();
        for did in &world.did {
            words.push(match did {
                Did::RevokedDevice(_) => "capability revoked",
                Did::Wrote {
                    at,
                    offset: 0x42 | 0x4a,
                    ..
                } if *at == device => "interrupts off",
                Did::Wrote {
                    at,
                    offset: 0x04,
                    value,
                    ..
                } if *at == device && value & 4 == 0 => "mastering off",
                Did::Wrote {
                    at,
                    offset: 0x5c,
                    value,
                    ..
                } if *at == device && value >> 15 != 0 => "reset",
                Did::Detached(_) => "detached",
                Did::GaveVectorsBack(_) => "vectors given back",
                Did::RevokedFrames => "frames revoked",
                Did::Answered(_) => "answered",
                Did::ToldSupervisor => "supervisor told",
                _ => continue,
            });
        }
        words
    });
    let mut words = words;
    words.dedup();
    words
}
