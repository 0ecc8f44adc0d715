//! Cards that are pulled out without notice: while they move data, in the
//! middle of a reset, in the middle of an assignment, and while nobody has them. The holder is
//! told, nothing hangs, nothing is left, and the next card works.

use client::{
    ANY_IOVA, Access, Device, Error, EventKind, Inspector, Mechanism, PagePreference, Platform,
    Sbdf, Switch, Width,
};
use edu_driver::{Completion, Edu, MOST};
use sel4_client::SeL4Platform;
use system::layout::event;

use crate::plug::wait_for;
use crate::{Probe, transfer};

/// Requests to a device before it is said to be still there.
const TRIES: u32 = 1_000_000;
/// Assignments before the pull.
const ROUNDS: u32 = 20;
/// Resets one after the other; each takes 100 ms or more.
const RESETS: u32 = 100;

/// What the servers say is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InUse {
    assigned: u32,
    slots: u32,
    untyped: u64,
    attached: u32,
    vectors_free: u16,
}

impl InUse {
    fn read(probe: &Probe, shard: u8) -> Result<Self, Error> {
        let inspector = Inspector::new(probe.platform, probe.info).ok_or(Error::NotFound)?;
        let pci = inspector.pci(shard).figures()?;
        let iommu = inspector
            .iommu(probe.info.iommu.ok_or(Error::NotFound)?)
            .figures()?;
        Ok(Self {
            assigned: pci.assigned,
            slots: pci.slots_used,
            untyped: pci.untyped_used,
            attached: iommu.attached,
            vectors_free: inspector.msi(0).figures()?.free,
        })
    }
}

/// The host puts a card in at marks `insert-edu` and `insert-nvme`, and pulls it at mark `pull`.
pub fn pulls(probe: &Probe) -> Result<(), Error> {
    let first = insert(probe, "edu")?;
    probe.platform.log(format_args!("@assigned {first}"));
    let shard = probe.client.shard_of(first)?;
    let before = InUse::read(probe, shard)?;
    in_use(probe, first)?;
    nothing_left(probe, shard, before)?;
    in_reset(probe, insert(probe, "nvme")?)?;
    nothing_left(probe, shard, before)?;
    in_assignment(probe, insert(probe, "edu")?)?;
    nothing_left(probe, shard, before)?;

    let last = insert(probe, "edu")?;
    let outcome = transfer::round_trip(probe, &probe.client.assign(last)?)?;
    probe.check(
        "another_card_works",
        outcome.is_whole(),
        format_args!(
            "{} wrong bytes, {} of 2 transfers completed by MSI",
            outcome.wrong, outcome.completions
        ),
    );
    pull(probe);
    gone(probe, last)?;
    nothing_left(probe, shard, before)?;
    // What the streamer holds was there before: it ends now.
    for end in &probe.client.info().channels {
        probe.platform.signal(end.signal.into());
    }
    Ok(())
}

fn insert(probe: &Probe, what: &str) -> Result<Sbdf, Error> {
    probe.platform.log(format_args!("@mark insert-{what}"));
    Ok(wait_for(probe, EventKind::Added)?.device)
}

fn pull(probe: &Probe) {
    probe.platform.log(format_args!("@mark pull"));
}

/// Waits for the word that it is gone; nobody asked before.
fn gone(probe: &Probe, device: Sbdf) -> Result<(), Error> {
    let told = wait_for(probe, EventKind::Removed)?;
    let absent = probe.client.assign(device).map(drop).err();
    probe.check(
        "removed",
        told.device == device && absent.is_some(),
        format_args!("{told:?}, assigning it: {absent:?}"),
    );
    Ok(())
}

fn nothing_left(probe: &Probe, shard: u8, before: InUse) -> Result<(), Error> {
    let now = InUse::read(probe, shard)?;
    probe.check(
        "nothing_left",
        now == before,
        format_args!("{before:?} before, {now:?} after"),
    );
    Ok(())
}

/// Reads until it is refused. `None`: it never was.
fn read_until_refused(device: &Device<'_, 'static, SeL4Platform>) -> Option<(u32, Error)> {
    (0..TRIES).find_map(|tries| {
        let error = device.config_read(0, Width::Dword).err()?;
        Some((tries, error))
    })
}

/// Mapped, with interrupts on and a transfer under way.
fn in_use(probe: &Probe, at: Sbdf) -> Result<(), Error> {
    let client = &probe.client;
    let device = client.assign(at)?;
    let registers = device.map_bar(0)?;
    let frame = registers.first_slot();
    let was = probe.platform.physical_address(frame);
    let buffer = client.buffer(4096, PagePreference::Small)?;
    let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;
    let mut edu = Edu(registers);
    edu.fetch(iova, 0, MOST, Completion::Interrupt);
    pull(probe);
    let refused = read_until_refused(&device);
    probe.check(
        "pulled_in_use",
        refused.is_some(),
        format_args!("(reads before, refusal): {refused:?}"),
    );
    gone(probe, at)?;
    let is = probe.platform.physical_address(frame);
    probe.check(
        "mapping_is_gone",
        was.is_ok() && is.is_err(),
        format_args!("frame of the BAR {was:x?} before, {is:x?} after"),
    );
    drop(interrupts);
    Ok(())
}

/// While it is reset, which takes a while: the reset ends with a refusal.
fn in_reset(probe: &Probe, at: Sbdf) -> Result<(), Error> {
    let device = probe.client.assign(at)?;
    pull(probe);
    let refused = (0..RESETS).find_map(|done| Some((done, device.reset().err()?)));
    probe.check(
        "pulled_in_reset",
        refused.is_some(),
        format_args!("(resets before, refusal): {refused:?}"),
    );
    gone(probe, at)
}

/// While it is assigned and given back over and over; the host hears of it in the middle of a round.
fn in_assignment(probe: &Probe, at: Sbdf) -> Result<(), Error> {
    let once = |done| {
        let device = probe.client.assign(at)?;
        if done == ROUNDS {
            pull(probe);
        }
        device.bus_master(Switch::On)?;
        let registers = device.map_bar(0)?;
        drop(registers);
        device.release()
    };
    let refused = (0..TRIES).find_map(|done| Some((done, once(done).err()?)));
    probe.check(
        "pulled_in_assignment",
        refused.is_some_and(|(done, _)| done >= ROUNDS),
        format_args!("(rounds before, refusal): {refused:?}"),
    );
    gone(probe, at)
}
