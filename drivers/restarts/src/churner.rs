//! A driver that asks every server for everything, over and over: its requests are broken off by deaths, and the client
//! library asks again.

use client::report::{check, metric};
use client::{
    ANY_IOVA, Access, Device, Error, Mechanism, Memory, PagePreference, Rule, Sbdf, Switch, Width,
};
use edu_driver::{Completion, DEVICE, Edu, IDENTIFICATION, MOST, VENDOR};
use sel4_client::SeL4Platform;
use system::layout::event;

use crate::{OVER, Own, completed, interrupt, pattern};

/// Every so many cycles bytes are moved: a transfer takes long.
const TRANSFER_EVERY: u32 = 32;
/// How often, and how far apart in microseconds, a device is asked for that is in a reset: which takes 0.1 s.
const LOOKS: u32 = 1_000;
const PAUSE: u64 = 2_000;

/// What came of the cycles.
#[derive(Default)]
pub struct Sum {
    cycles: u32,
    interrupts: u64,
    lost: u64,
    bytes: u64,
    wrong: u64,
}

impl Sum {
    /// Before a cycle in which bytes are moved.
    pub fn transferring() -> Self {
        Self {
            cycles: TRANSFER_EVERY / 16,
            ..Self::default()
        }
    }

    /// Did everything come, and bytes with it?
    pub fn is_right(&self) -> bool {
        self.bytes > 0 && self.wrong == 0 && self.lost == 0
    }
}

pub fn run(client: &Own<'_>) -> Result<(), Error> {
    let platform = client.platform();
    let ids = u32::from(DEVICE) << 16 | u32::from(VENDOR);
    let found = client
        .devices()
        .find_map(|found| found.ok().filter(|found| found.ids == ids));
    let address = found.ok_or(Error::NotFound)?.device;
    let mut sum = Sum::default();
    let mut over = false;
    while !over {
        sum.cycles += 1;
        cycle(client, address, &mut sum, &mut over)?;
        over |= client.poll(OVER) != 0;
    }
    check(
        platform,
        "no_byte_wrong",
        sum.bytes > 0 && sum.wrong == 0,
        format_args!("{} bytes moved, {} wrong", sum.bytes, sum.wrong),
    );
    check(
        platform,
        "no_interrupt_lost",
        sum.interrupts > 0 && sum.lost == 0,
        format_args!("{} interrupts, {} lost", sum.interrupts, sum.lost),
    );
    check(
        platform,
        "slots_returned",
        client.window().in_use() == 0,
        format_args!("{} window slots in use", client.window().in_use()),
    );
    metric(platform, "cycles", u64::from(sum.cycles));
    Ok(())
}

/// The device. If its release was broken off it may still be in the reset that belongs to that.
fn assigned<'c, 'p>(
    client: &'c Own<'p>,
    address: Sbdf,
    over: &mut bool,
) -> Result<Device<'c, 'p, SeL4Platform>, Error> {
    for _ in 0..LOOKS {
        match client.assign(address) {
            Err(error) if error.rule() == Some(Rule::DeviceBusy) => {
                *over |= client.wait_for(OVER, PAUSE)? & OVER != 0;
            }
            answer => return answer,
        }
    }
    client.assign(address)
}

/// The device is taken, used and given back.
pub fn cycle(client: &Own<'_>, address: Sbdf, sum: &mut Sum, over: &mut bool) -> Result<(), Error> {
    let device = assigned(client, address, over)?;
    let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
    let buffer = client.buffer(2 * 4096, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    device.bus_master(Switch::On)?;
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    for _ in 0..4 {
        sum.interrupts += 1;
        sum.lost += u64::from(!interrupt(client, &mut edu, event::OWN, over)?);
        let ids = device.config_read(0, Width::Dword)?;
        let same = ids == u32::from(DEVICE) << 16 | u32::from(VENDOR);
        sum.wrong += u64::from(!same || edu.identification() != IDENTIFICATION);
    }
    if sum.cycles % TRANSFER_EVERY == TRANSFER_EVERY / 16 {
        let out: [u8; MOST as usize] = core::array::from_fn(|at| pattern(sum.cycles, at));
        memory.write(0, &out);
        edu.fetch(iova, 0, MOST, Completion::Interrupt);
        let there = completed(client, &mut edu, event::OWN, over)?;
        edu.store(0, iova + 4096, MOST, Completion::Interrupt);
        let back = completed(client, &mut edu, event::OWN, over)?;
        sum.interrupts += 2;
        sum.lost += u64::from(!there) + u64::from(!back);
        let mut got = [0; MOST as usize];
        memory.read(4096, &mut got);
        sum.bytes += MOST;
        sum.wrong += got
            .iter()
            .zip(&out)
            .filter(|(got, sent)| got != sent)
            .count() as u64;
    }
    interrupts.disable()?;
    buffer.unmap()?;
    buffer.free()?;
    drop(edu);
    device.release()
}
