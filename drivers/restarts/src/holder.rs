//! A driver that asks no server for anything once it is set up: what it holds must go on working, whoever dies.

use client::report::{check, metric};
use client::{ANY_IOVA, Access, Error, Mechanism, Memory, PagePreference, Platform, Switch};
use edu_driver::{Completion, DEVICE, Edu, MOST, VENDOR};
use system::layout::event;

use crate::{Own, completed, interrupt, pattern};

/// Interrupts between one transfer and the next.
const INTERRUPTS: u32 = 500;

pub fn run(client: &Own<'_>) -> Result<(), Error> {
    let platform = client.platform();
    let device = client.assign_ids(VENDOR, DEVICE)?;
    platform.log(format_args!("@assigned {}", device.address()));
    let mut edu = Edu(device.map_bar(0)?);
    let buffer = client.buffer(2 * 4096, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;
    platform.log(format_args!("@mark holding"));

    let (mut rounds, mut wrong, mut raised, mut lost) = (0u32, 0u64, 0u64, 0u64);
    let mut over = false;
    while !over {
        rounds += 1;
        let out: [u8; MOST as usize] = core::array::from_fn(|at| pattern(rounds, at));
        memory.write(0, &out);
        memory.write(4096, &[0; 4096]);
        edu.fetch(iova, 0, MOST, Completion::Interrupt);
        let there = completed(client, &mut edu, event::OWN, &mut over)?;
        edu.store(0, iova + 4096, MOST, Completion::Interrupt);
        let back = completed(client, &mut edu, event::OWN, &mut over)?;
        raised += 2;
        lost += u64::from(!there) + u64::from(!back);
        let mut got = [0; MOST as usize];
        memory.read(4096, &mut got);
        wrong += got
            .iter()
            .zip(&out)
            .filter(|(got, sent)| got != sent)
            .count() as u64;
        for _ in 0..INTERRUPTS {
            raised += 1;
            lost += u64::from(!interrupt(client, &mut edu, event::OWN, &mut over)?);
        }
    }
    check(
        platform,
        "no_byte_wrong",
        rounds > 0 && wrong == 0,
        format_args!("{rounds} times {MOST} bytes out and back, {wrong} wrong"),
    );
    check(
        platform,
        "no_interrupt_lost",
        raised > 0 && lost == 0,
        format_args!("{raised} interrupts, {lost} lost"),
    );
    metric(platform, "transfers", u64::from(rounds) * 2);
    metric(platform, "interrupts", raised);
    interrupts.disable()?;
    buffer.free()?;
    drop(edu);
    device.release()
}
