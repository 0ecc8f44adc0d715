//! What goes wrong with a device reaches its holder's event stream: blocked
//! DMA, a quota that is reached, errors that the device reports (AER), and a queue
//! that was not read in time.

use client::{
    Access, Device, DeviceError, Error, Event, EventKind, Mechanism, PagePreference, Platform,
    Rule, Switch,
};
use edu_driver::{Completion, Edu};
use sel4_client::SeL4Platform;

use crate::Probe;
use crate::plug::wait_for;

/// A virtio device of QEMU's that reports errors (`aer=on`).
const VIRTIO: u16 = 0x1af4;
const ENTROPY: u16 = 0x1044;
/// Where its registers are: the number of queues (virtio 1.2, 4.1.4.3).
const COMMON_BAR: u8 = 4;
const QUEUES: usize = 0x12;
/// Nothing is mapped there; `edu` reaches it.
const NOWHERE: u64 = 0x0800_0000;
/// Messages that are asked for, more than the description allows.
const TOO_MANY: u16 = 4;
/// Refusals in a row: more than the queue of events holds.
const REFUSALS: u32 = 40;
/// Bad TLP (PCIe 5.0, 7.8.4.5), which the host injects at mark `correctable`.
const BAD_TLP: u32 = 1 << 6;
/// Completion Timeout and Malformed TLP (7.8.4.2), at marks `non-fatal` and `fatal`.
const COMPLETION_TIMEOUT: u32 = 1 << 14;
const MALFORMED_TLP: u32 = 1 << 18;

/// Holds an `edu` device and a virtio device, and hears of what happens to them.
pub fn events(probe: &Probe) -> Result<(), Error> {
    let client = &probe.client;
    let edu = client.assign_ids(edu_driver::VENDOR, edu_driver::DEVICE)?;
    let card = client.assign_ids(VIRTIO, ENTROPY)?;
    probe
        .platform
        .log(format_args!("@assigned {}", card.address()));
    blocked(probe, &edu)?;
    errors(probe, &card)?;
    refused(probe, &card)
}

/// The device writes where nothing is mapped.
fn blocked(probe: &Probe, device: &Device<'_, 'static, SeL4Platform>) -> Result<(), Error> {
    let buffer = probe.client.buffer(4096, PagePreference::Small)?;
    buffer.map(client::ANY_IOVA, Access::ReadWrite)?;
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(Switch::On)?;
    edu.store(0, NOWHERE, 64, Completion::Poll);
    let event = wait_for(probe, EventKind::Fault)?;
    let record = probe.client.next_fault()?;
    probe.check(
        "fault",
        event.device == device.address()
            && event.detail >= 1
            && record.is_some_and(|fault| fault.device == event.device),
        format_args!("{event:?}, {record:x?}"),
    );
    device.bus_master(Switch::Off)
}

/// The host has the card report one error of each kind.
fn errors(probe: &Probe, card: &Device<'_, 'static, SeL4Platform>) -> Result<(), Error> {
    // QEMU before 8.0 sends no message about a correctable error: it is found with the next one.
    probe.platform.log(format_args!("@mark correctable"));
    probe.platform.log(format_args!("@mark non-fatal"));
    let (mut correctable, mut non_fatal) = (None, None);
    while correctable.is_none() || non_fatal.is_none() {
        let event = wait_for(probe, EventKind::Error)?;
        match event.error() {
            Some(DeviceError::Correctable(_)) => correctable = Some(event),
            _ => non_fatal = Some(event),
        }
    }
    probe.platform.log(format_args!("@mark fatal"));
    let fatal = Some(wait_for(probe, EventKind::Error)?);
    let expected = [
        (
            "correctable_error",
            correctable,
            DeviceError::Correctable(BAD_TLP),
        ),
        (
            "non_fatal_error",
            non_fatal,
            DeviceError::NonFatal(COMPLETION_TIMEOUT),
        ),
        ("fatal_error", fatal, DeviceError::Fatal(MALFORMED_TLP)),
    ];
    for (name, event, error) in expected {
        let is_right =
            |event: Event| event.device == card.address() && event.error() == Some(error);
        probe.check(
            name,
            event.is_some_and(is_right),
            format_args!("{event:x?}"),
        );
    }
    // They were taken from its registers: nothing is told twice.
    let again = probe.client.next_event()?;
    probe.check("told_once", again.is_none(), format_args!("{again:x?}"));
    let registers = card.map_bar_pages(COMMON_BAR, 0, 1)?;
    let queues = registers.read16(QUEUES);
    probe.check(
        "works_after_errors",
        queues == 1,
        format_args!("{queues} queues"),
    );
    Ok(())
}

/// More messages than the quota has, again and again, and nobody reads what that tells.
fn refused(probe: &Probe, card: &Device<'_, 'static, SeL4Platform>) -> Result<(), Error> {
    let slots = probe
        .client
        .window()
        .take(TOO_MANY)
        .ok_or(Error::WindowFull(TOO_MANY.into()))?;
    let mut refusals = 0;
    for _ in 0..REFUSALS {
        let refused = card
            .port()
            .msi_enable(Mechanism::MsiX, 0, TOO_MANY, slots.first);
        let rule = refused.err().map(|refusal| refusal.rule);
        refusals += u32::from(rule == Some(Rule::VectorQuota));
    }
    probe.client.window().give_back(slots);
    let (mut quota, mut others, mut lost) = (0u32, 0u32, 0u32);
    while let Some(event) = probe.client.next_event()? {
        lost += event.lost;
        match event.kind {
            EventKind::Quota if event.device == card.address() => quota += 1,
            _ => others += 1,
        }
    }
    probe.check(
        "quota",
        quota > 0 && others == 0,
        format_args!("{quota} events of a quota reached, {others} others"),
    );
    probe.check(
        "overflow_is_told",
        refusals == REFUSALS && lost > 0 && quota + lost == REFUSALS,
        format_args!("{refusals} refusals: {quota} events in the queue, {lost} said to be lost"),
    );
    Ok(())
}
