//! The interrupts that servers have for themselves: a remapping unit's for blocked DMA, and those of ports where cards come
//! and go. What was provoked is counted, and what the servers then told: both by interrupt alone, for nobody looks meanwhile.

use client::{Error, EventKind, Inspector, Platform, Sbdf, Switch, report};
use edu_driver::{Completion, DEVICE, Edu, VENDOR};
use ipc_proto::VectorUse;
use system::layout::event;

use crate::Probe;

/// Nothing is mapped there; `edu` reaches it.
const NOWHERE: u64 = 0x0800_0000;
/// Blocked DMAs of one holding: a device with more in a row is stopped.
const BATCH: u64 = 8;
/// A transfer takes 100 ms of the device's time.
const PATIENCE_MICROS: u64 = 5_000_000;
/// How long nothing has to come after all.
const QUIET_MICROS: u64 = 50_000;
/// Vectors of the kernel, of which some are the servers' own.
const VECTORS: u16 = 108;

/// The vectors of servers are among those of the kernel, and nobody else's.
fn vectors(probe: &Probe, least: u16) -> Result<(), Error> {
    let inspector = Inspector::new(probe.platform, probe.client.info()).ok_or(Error::NotFound)?;
    let shard = inspector.msi(0).figures()?.vectors;
    let (mut own, mut twice) = (0, false);
    for (at, row) in inspector.vectors(0).enumerate() {
        let row = row?;
        own += u16::from(row.purpose == VectorUse::Server);
        let mut before = inspector.vectors(0).take(at);
        twice |= before.any(|other| other.is_ok_and(|other| other.vector == row.vector));
    }
    probe.check(
        "vectors_of_servers",
        own >= least && own + shard == VECTORS && !twice,
        format_args!("{own} of servers and {shard} for devices of {VECTORS}, one twice: {twice}"),
    );
    Ok(())
}

/// Messages between the unit's interrupt and the driver.
#[derive(Debug, Default)]
struct Faults {
    provoked: u64,
    signals: u64,
    records: u64,
    /// Of these, records of the right device and page.
    right: u64,
    lost: u64,
    events: u64,
}

/// `times` blocked DMAs, one by one: each is told once.
pub fn faults(probe: &Probe, times: u64) -> Result<(), Error> {
    let client = &probe.client;
    let inspector = Inspector::new(probe.platform, client.info()).ok_or(Error::NotFound)?;
    vectors(probe, 3)?;
    let counted = || {
        let shard = client.info().iommu.unwrap_or(0);
        Ok::<_, Error>(inspector.iommu(shard).figures()?.faults)
    };
    let before = counted()?;
    let mut faults = Faults::default();
    while faults.provoked < times {
        batch(probe, BATCH.min(times - faults.provoked), &mut faults)?;
    }
    let more = client.wait_for(event::FAULT, QUIET_MICROS)?;
    let counted = counted()? - before;
    let all = [
        faults.provoked,
        faults.signals,
        faults.records,
        faults.right,
        counted,
    ];
    probe.check(
        "each_fault_is_told",
        all == [times; 5] && faults.lost == 0 && more == 0,
        format_args!("{faults:?}, counted by the server: {counted}, {more:#x} after all"),
    );
    report::metric(probe.platform, "faults", faults.right);
    Ok(())
}

fn batch(probe: &Probe, times: u64, faults: &mut Faults) -> Result<(), Error> {
    let client = &probe.client;
    let device = client.assign_ids(VENDOR, DEVICE)?;
    if faults.provoked == 0 {
        let platform = probe.platform;
        platform.log(format_args!("@assigned {}", device.address()));
    }
    let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
    device.bus_master(Switch::On)?;
    for _ in 0..times {
        let at = NOWHERE + 4096 * faults.provoked;
        edu.store(0, at, 64, Completion::Poll);
        faults.provoked += 1;
        let came = client.wait_for(event::FAULT, PATIENCE_MICROS)?;
        faults.signals += u64::from(came != 0);
        while let Some(fault) = client.next_fault()? {
            faults.records += 1;
            faults.lost += u64::from(fault.lost);
            let right = fault.device == device.address() && fault.address & !0xfff == at;
            faults.right += u64::from(right);
        }
        while let Some(event) = client.next_event()? {
            faults.events += u64::from(event.kind == EventKind::Fault);
        }
        while edu.busy() {
            client.wait_for(0, 1_000)?;
        }
    }
    drop(edu);
    device.release()
}

/// The next event, which is of this kind.
fn next(probe: &Probe, kind: EventKind) -> Result<Option<Sbdf>, Error> {
    loop {
        if let Some(event) = probe.client.next_event()? {
            return Ok((event.kind == kind && event.lost == 0).then_some(event.device));
        }
        if probe.client.wait_for(event::DEVICE, PATIENCE_MICROS)? == 0 {
            return Ok(None);
        }
    }
}

/// The host plugs a card in and pulls it `times` times, at marks `insert` and `remove`: each is told once.
pub fn ports(probe: &Probe, times: u64) -> Result<(), Error> {
    vectors(probe, 3)?;
    let (mut plugged, mut added) = (0, 0);
    let (mut asked, mut pulled, mut removed) = (0, 0, 0);
    for _ in 0..times {
        probe.platform.log(format_args!("@mark insert"));
        plugged += 1;
        let Some(card) = next(probe, EventKind::Added)? else {
            break;
        };
        added += 1;
        // Who holds it is told when it is to go.
        let card = probe.client.assign(card)?;
        let address = card.address();
        probe.platform.log(format_args!("@mark remove"));
        pulled += 1;
        asked += u64::from(next(probe, EventKind::RemovalRequested)? == Some(address));
        card.release()?;
        removed += u64::from(next(probe, EventKind::Removed)? == Some(address));
    }
    probe.client.wait_for(0, QUIET_MICROS)?;
    let more = probe.client.next_event()?;
    let all = [plugged, added, pulled, asked, removed];
    probe.check(
        "each_card_is_told",
        all == [times; 5] && more.is_none(),
        format_args!(
            "{plugged} plugged in, {added} told; {pulled} pulled, {asked} asked for, {removed} told; {more:?} after all"
        ),
    );
    report::metric(probe.platform, "cards", removed);
    Ok(())
}
