//! Isolation groups, and resets of a whole bus.

use client::{Error, EventKind, GroupTie, Rule, Switch, Width};
use hw::header::register;

use crate::{Probe, transfer};

/// Granted devices are asked for their groups: those tied to one that is not granted are refused with the reason,
/// the others can be had.
pub fn groups(probe: &Probe) -> Result<(), Error> {
    let client = &probe.client;
    for found in client.devices() {
        let at = found?.device;
        let mut members = 0;
        let mut foreign = 0;
        let mut tie = GroupTie::Alone;
        for member in client.group(at) {
            let member = member?;
            members += 1;
            foreign += u32::from(!member.granted);
            if member.device == at {
                tie = member.tie;
            }
        }
        let tested = client.test_assign(at).map(drop);
        let assigned = client.assign(at).map(drop);
        let agree = tested.as_ref().err() == assigned.as_ref().err();
        let rule = assigned.as_ref().err().and_then(|error| error.rule());
        let as_expected = match foreign {
            0 => assigned.is_ok(),
            _ => rule == Some(Rule::GroupNotGranted),
        };
        probe.check(
            "group_decides",
            as_expected && agree && members > 0,
            format_args!("{at}: {members} members ({tie:?}), {foreign} not granted: {assigned:?}"),
        );
        // The host reads which kinds were seen.
        let name = match (tie, foreign) {
            (GroupTie::Alone, _) => "alone",
            (_, 0) => "whole_group",
            _ => "part_of_group",
        };
        probe.check(name, as_expected, format_args!("{at}"));
    }
    Ok(())
}

/// Two functions of one device behind a port: their bus is reset only when both holders agree, and both work on.
pub fn reset(probe: &Probe) -> Result<(), Error> {
    let client = &probe.client;
    let mut found = client.devices();
    let first = client.assign(found.next().ok_or(Error::NotFound)??.device)?;
    let second = client.assign(found.next().ok_or(Error::NotFound)??.device)?;
    let _ = second.bus_master(Switch::On);
    let command = second.config_read(register::COMMAND, Width::Word)?;
    let bars = second.config_read(register::BAR0, Width::Dword)?;
    let alone = first.bus_reset().err();
    probe.check(
        "bus_reset_needs_all",
        alone.and_then(|error| error.rule()) == Some(Rule::NotAgreed),
        format_args!("{alone:?}"),
    );
    let missing = (first.agree_bus_reset()?, second.agree_bus_reset()?);
    probe.check(
        "agreements_count",
        missing == (1, 0),
        format_args!("{missing:?} still missing"),
    );
    let functions = first.bus_reset()?;
    let after = (
        second.config_read(register::COMMAND, Width::Word)?,
        second.config_read(register::BAR0, Width::Dword)?,
    );
    probe.check(
        "bus_reset",
        functions == 2 && after == (command, bars),
        format_args!("{functions} functions, command and BAR of the other: {after:x?}"),
    );
    let told = client.next_event()?;
    probe.check(
        "reset_is_told",
        told.is_some_and(|event| {
            event.kind == EventKind::Reset && event.device == second.address()
        }),
        format_args!("of the device that was reset by the other's request: {told:?}"),
    );
    for device in [&first, &second] {
        let outcome = transfer::round_trip(probe, device)?;
        probe.check(
            "works_after_bus_reset",
            outcome.is_whole(),
            format_args!(
                "{}: {} wrong bytes, {} of 2 interrupts",
                device.address(),
                outcome.wrong,
                outcome.completions
            ),
        );
    }
    let spent = first.bus_reset().err();
    probe.check(
        "agreement_is_spent",
        spent.and_then(|error| error.rule()) == Some(Rule::NotAgreed),
        format_args!("{spent:?}"),
    );
    first.release()?;
    second.release()
}
