//! Hot-plug: a card comes, works whole, and goes; once given back when asked
//! for, once kept until it is taken.

use client::{Administrator, Error, Event, EventKind, Platform, Sbdf, Width};
use system::layout::event;

use crate::{Probe, transfer};

/// Longest wait for what a port has to do.
const PATIENCE_MICROS: u64 = 20_000_000;

/// Each cycle: the host plugs a card in at mark `insert`, and asks for it at mark `remove`.
pub fn cycles(probe: &Probe, cycles: u16) -> Result<(), Error> {
    for cycle in 0..cycles {
        probe.platform.log(format_args!("@mark insert"));
        let added = wait_for(probe, EventKind::Added)?;
        probe.check("added", true, format_args!("{} came", added.device));
        let device = probe.client.assign(added.device)?;
        if cycle == 0 {
            probe
                .platform
                .log(format_args!("@assigned {}", device.address()));
        }
        let outcome = transfer::round_trip(probe, &device)?;
        probe.check(
            "hot_device_works",
            outcome.is_whole(),
            format_args!(
                "{} wrong bytes, {} of 2 transfers completed by MSI",
                outcome.wrong, outcome.completions
            ),
        );
        probe.platform.log(format_args!("@mark remove"));
        let asked = wait_for(probe, EventKind::RemovalRequested)?;
        probe.check(
            "removal_requested",
            asked.device == added.device,
            format_args!("{} within {} us", asked.device, asked.detail),
        );
        if cycle % 2 == 0 {
            device.release()?;
            gone(probe, added.device)?;
        } else {
            // A driver that does not listen loses the device all the same.
            gone(probe, added.device)?;
            let after = device.config_read(0, Width::Dword);
            probe.check(
                "kept_in_vain",
                after.is_err(),
                format_args!("{after:?} after it was taken"),
            );
        }
        let absent = probe.client.assign(added.device).err();
        probe.check(
            "absent",
            absent.is_some(),
            format_args!("assigning what is gone: {absent:?}"),
        );
    }
    probe.check("all_cycles", true, format_args!("{cycles}"));
    Ok(())
}

/// An administrator takes a card from its holder: the slot's power goes off, and with QEMU the card. Another one comes.
pub fn remove(probe: &Probe) -> Result<(), Error> {
    let administrator = Administrator::new(probe.platform, probe.info).ok_or(Error::NotFound)?;
    let found = probe.client.devices().next().ok_or(Error::NotFound)??;
    let device = probe.client.assign(found.device)?;
    let registers = device.map_bar(0)?;
    let port = administrator.pci(probe.client.shard_of(found.device)?);
    let removed = port.remove(found.device);
    probe.check(
        "removed_by_administrator",
        removed.is_ok(),
        format_args!("{}: {removed:?}", found.device),
    );
    gone(probe, found.device)?;
    let after = device.config_read(0, Width::Dword);
    probe.check(
        "taken_from_holder",
        after.is_err(),
        format_args!("{after:?} after it was removed"),
    );
    drop(registers);
    drop(device);
    let row = port.rescan()?;
    let left = probe.client.devices().count();
    probe.check(
        "a_scan_finds_it_gone",
        row.functions > 0 && row.added == 0 && left == 0,
        format_args!("{row:?}, {left} devices left"),
    );
    probe.platform.log(format_args!("@mark insert"));
    let added = wait_for(probe, EventKind::Added)?;
    let outcome = transfer::round_trip(probe, &probe.client.assign(added.device)?)?;
    probe.check(
        "another_works",
        outcome.is_whole(),
        format_args!("{} wrong bytes", outcome.wrong),
    );
    let bridge = port.remove(Sbdf::from_bits(0)).map(|reply| reply.functions);
    probe.check(
        "not_the_platform",
        bridge.is_err(),
        format_args!("removing the host bridge: {bridge:?}"),
    );
    Ok(())
}

/// Scans until something is found.
const SCANS: u32 = 50;
/// Between two scans.
const PAUSE_MICROS: u64 = 100_000;

/// A bridge is plugged in, then a device behind it: bus numbers, windows and BARs are the system's to give.
pub fn late_bridge(probe: &Probe) -> Result<(), Error> {
    let administrator = Administrator::new(probe.platform, probe.info).ok_or(Error::NotFound)?;
    let port = administrator.pci(0);
    let scan = |name| -> Result<(), Error> {
        let mut row = port.rescan()?;
        let mut added = row.added;
        for _ in 0..SCANS {
            if added > 0 {
                break;
            }
            probe.client.wait_for(0, PAUSE_MICROS)?;
            row = port.rescan()?;
            added = row.added;
        }
        probe.check(name, added > 0, format_args!("{row:?}"));
        Ok(())
    };
    let before = port.rescan()?.functions;
    probe.platform.log(format_args!("@mark bridge"));
    // It comes with an event of its slot, of which nobody is told: bridges are the platform's.
    let mut after = before;
    for _ in 0..SCANS {
        probe.client.wait_for(0, PAUSE_MICROS)?;
        after = port.rescan()?.functions;
        if after > before {
            break;
        }
    }
    probe.check(
        "bridge_came",
        after == before + 1,
        format_args!("{before} functions before, {after} after"),
    );
    probe.platform.log(format_args!("@mark behind"));
    scan("found_behind_it")?;
    let added = wait_for(probe, EventKind::Added)?;
    let device = probe.client.assign(added.device)?;
    probe
        .platform
        .log(format_args!("@assigned {}", added.device));
    let outcome = transfer::round_trip(probe, &device)?;
    probe.check(
        "behind_a_late_bridge_works",
        outcome.is_whole() && added.device.bus() > 1,
        format_args!(
            "{}: {} wrong bytes, {} of 2 transfers completed by MSI",
            added.device, outcome.wrong, outcome.completions
        ),
    );
    device.release()
}

fn gone(probe: &Probe, device: Sbdf) -> Result<(), Error> {
    let removed = wait_for(probe, EventKind::Removed)?;
    probe.check(
        "removed",
        removed.device == device,
        format_args!("{} went", removed.device),
    );
    Ok(())
}

/// The next event of a kind; others are said and passed over.
pub fn wait_for(probe: &Probe, kind: EventKind) -> Result<Event, Error> {
    loop {
        while let Some(event) = probe.client.next_event()? {
            if event.kind == kind {
                return Ok(event);
            }
            probe.platform.log(format_args!("{event:?}"));
        }
        if probe.client.wait_for(event::DEVICE, PATIENCE_MICROS)? == 0 {
            probe.check("event", false, format_args!("{kind:?} never came"));
            return Err(Error::NotFound);
        }
    }
}
