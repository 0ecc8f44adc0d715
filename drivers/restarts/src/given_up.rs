//! Two server shards are given up: one that faults too often, and one that hangs in its restart. Whoever asks them is refused,
//! who waited for an answer too, and all else goes on.
//!
//! - [`breaker`]: has them fault and hang, and looks at them and at another shard;
//! - [`waiter`]: resets its device over and over, so that a request of it waits in the server when that faults;
//! - [`user`]: uses its device when the server is lost.

use client::report::check;
use client::{
    ANY_IOVA, Access, Device, Error, Inspector, Mechanism, Memory, PagePreference, Platform,
    Refusal, Rule, Switch, Width,
};
use edu_driver::{Completion, DEVICE, Edu, MOST, VENDOR};
use sel4_client::SeL4Platform;
use system::layout::event;

use crate::{OVER, Own, churner, completed, interrupt, pattern};

/// The shard that is to fault, and the one that is to hang.
const FAULTS: (&str, u8) = ("pci-server-1", 1);
const HANGS: (&str, u8) = ("msi-server-1", 1);
/// Clients that hold a device of the first.
const HOLDERS: u32 = 2;
/// Most looks at something that is to come, and the time between, in microseconds.
const LOOKS: u32 = 100_000;
const PAUSE: u64 = 100;
/// What a restart may take, in microseconds: the medic's bound, and a tenth more.
const PATIENCE: (u64, u64) = (10_000_000, 11_000_000);
/// Transfers and interrupts without the server.
const ROUNDS: u32 = 4;

pub fn breaker(client: &Own<'_>) -> Result<(), Error> {
    let platform = client.platform();
    let inspector = Inspector::new(platform, client.info()).ok_or(Error::NotFound)?;
    let (faults, hangs) = (number(client, FAULTS.0)?, number(client, HANGS.0)?);
    // `restarts` is 1: the first is put up with.
    wait_for_parked(client, &inspector)?;
    client.supervisor().fail(faults)?;
    let restarted = until(client, || {
        let deaths = client.supervisor().deaths(faults);
        deaths.is_ok_and(|deaths| deaths.restarts == 1 && deaths.ready != 0)
    });
    let parked = wait_for_parked(client, &inspector)?;
    client.supervisor().fail(faults)?;
    check(
        platform,
        "one_fault_is_put_up_with",
        restarted && parked > 0,
        format_args!("{parked} requests waited at the second"),
    );
    let answers = [
        inspector.pci(FAULTS.1).turns().map(|_| ()),
        inspector.pci(FAULTS.1).figures().map(|_| ()),
    ];
    check(
        platform,
        "whoever_asks_is_refused",
        answers.iter().all(is_refused),
        format_args!("{answers:?}"),
    );
    let known = client.supervisor().deaths(faults).map(|_| ());
    check(
        platform,
        "it_cannot_be_killed_any_more",
        known.is_err_and(|refusal| refusal.rule == Rule::ClientGone),
        format_args!("{known:?}"),
    );
    for end in &client.info().channels {
        platform.signal(end.signal.into());
    }

    let mut sum = churner::Sum::transferring();
    let ids = u32::from(DEVICE) << 16 | u32::from(VENDOR);
    let found = client
        .devices()
        .find_map(|found| found.ok().filter(|found| found.ids == ids));
    let address = found.ok_or(Error::NotFound)?.device;
    churner::cycle(client, address, &mut sum, &mut false)?;
    check(
        platform,
        "another_shard_goes_on",
        sum.is_right(),
        format_args!("{address} was taken, used and given back"),
    );

    let began = client.timer().now()?.micros;
    client.supervisor().hang(hangs)?;
    let answer = inspector.msi(HANGS.1).turns().map(|_| ());
    let took = client.timer().now()?.micros.saturating_sub(began);
    check(
        platform,
        "who_hangs_in_a_restart_is_given_up",
        is_refused(&answer) && (PATIENCE.0..PATIENCE.1).contains(&took),
        format_args!("{answer:?} after {took} us"),
    );
    Ok(())
}

pub fn waiter(client: &Own<'_>) -> Result<(), Error> {
    let device = client.assign_ids(VENDOR, DEVICE)?;
    let mut resets = 0;
    let answer = loop {
        match device.reset() {
            Ok(_) => resets += 1,
            // In the reset that was broken off.
            Err(error) if error.rule() == Some(Rule::DeviceBusy) => {
                client.wait_for(0, PAUSE)?;
            }
            Err(error) => break error,
        }
    };
    check(
        client.platform(),
        "who_waits_is_refused",
        answer.rule() == Some(Rule::ServerBroken),
        format_args!("{answer} after {resets} resets"),
    );
    Ok(())
}

pub fn user(client: &Own<'_>) -> Result<(), Error> {
    let platform = client.platform();
    let device: Device<'_, '_, SeL4Platform> = client.assign_ids(VENDOR, DEVICE)?;
    let mut edu = Edu(device.map_bar(0)?);
    let buffer = client.buffer(2 * 4096, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    let _interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;

    let mut over = false;
    for _ in 0..LOOKS {
        over |= client.wait_for(OVER, PAUSE)? & OVER != 0;
        if over {
            break;
        }
    }
    let refused = device.config_read(0, Width::Dword);
    check(
        platform,
        "its_holder_is_refused",
        over && refused
            .as_ref()
            .is_err_and(|error| error.rule() == Some(Rule::ServerBroken)),
        format_args!("{refused:?}"),
    );
    let mut right = true;
    for round in 0..ROUNDS {
        let out: [u8; MOST as usize] = core::array::from_fn(|at| pattern(round, at));
        memory.write(0, &out);
        memory.write(4096, &[0; 4096]);
        edu.fetch(iova, 0, MOST, Completion::Interrupt);
        right &= completed(client, &mut edu, event::OWN, &mut over)?;
        edu.store(0, iova + 4096, MOST, Completion::Interrupt);
        right &= completed(client, &mut edu, event::OWN, &mut over)?;
        right &= interrupt(client, &mut edu, event::OWN, &mut over)?;
        let mut got = [0; MOST as usize];
        memory.read(4096, &mut got);
        right &= got == out;
    }
    check(
        platform,
        "its_device_goes_on",
        right,
        format_args!("{ROUNDS} times {MOST} bytes out and back, and interrupts"),
    );
    Ok(())
}

/// Waits until all devices of the shard are held and a request waits in it; how many.
fn wait_for_parked(
    client: &Own<'_>,
    inspector: &Inspector<'_, SeL4Platform>,
) -> Result<u64, Error> {
    let mut parked = 0;
    let came = until(client, || {
        let told = inspector.pci(FAULTS.1).figures();
        let told = told.map_or((0, 0), |told| (told.assigned, told.parked));
        parked = told.1;
        told.0 == HOLDERS && parked > 0
    });
    if came {
        Ok(parked)
    } else {
        Err(Error::NotFound)
    }
}

/// Looks until something is so. `false`: it never was.
fn until(client: &Own<'_>, mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..LOOKS {
        if is_so() {
            return true;
        }
        if client.wait_for(0, PAUSE).is_err() {
            return false;
        }
    }
    false
}

fn is_refused(answer: &Result<(), Refusal>) -> bool {
    matches!(answer, Err(refusal) if refusal.rule == Rule::ServerBroken)
}

/// The number of a PD.
fn number(client: &Own<'_>, name: &str) -> Result<u16, Error> {
    let mut pds = client.info().pds.iter();
    let found = pds.find(|(of, _)| of.as_str() == name);
    found.map(|(_, number)| *number).ok_or(Error::NotFound)
}
