//! Messages that go on without end while their vector is taken back: from other cores, which nobody stops. Whoever has the vector
//! next sees none of them.
//!
//! `torrent`: raises its device's message as fast as it can, for another core, and gives the device's capability to its neighbour.
//! `dam <torrents>`: disables the messages of one after another over that, while all go on, and has the vector at once.

use client::{Error, Mechanism, Switch, report};
use edu_driver::{DEVICE, Edu, VENDOR};
use heapless::Vec;
use ipc_proto::VectorUse;
use system::layout::event;
use system::model::MAX_CHANNELS_A_CLIENT;

use crate::Probe;
use crate::standing::Observer;

/// How often the message of each torrent is taken away.
const ROUNDS: u32 = 40;
/// Messages between two looks whether that is enough.
const AT_ONCE: u64 = 64;
/// Between two looks, and how many, until all are at it.
const PAUSE_MICROS: u64 = 300;
const LOOKS: u32 = 20_000;
/// What is one's own has come by then.
const PATIENCE_MICROS: u64 = 2_000_000;
const FLAG: u64 = event::OWN;

/// Raises messages until it has been stopped so often.
pub fn run(probe: &Probe) -> Result<(), Error> {
    let client = &probe.client;
    let device = client.assign_ids(VENDOR, DEVICE)?;
    let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
    device.bus_master(Switch::On)?;
    let end = client.info().channels.first().ok_or(Error::NotFound)?;
    let channel = client.channel(&end.name).ok_or(Error::NotFound)?;
    channel.give_slot(device.slot())?;
    let (mut raised, mut least) = (0, u64::MAX);
    let mut arrived = 0;
    for round in 0..ROUNDS {
        let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, FLAG)?;
        let core = round % u32::from(probe.cores);
        interrupts.move_to(0, 1, core as u8)?;
        // Since the last one that came: raised for nobody.
        let mut since = 0;
        loop {
            for _ in 0..AT_ONCE {
                edu.raise(1);
                edu.acknowledge(1);
            }
            raised += AT_ONCE;
            since += AT_ONCE;
            // Where one processor plays all cores, each goes on until it waits.
            client.timer().now()?;
            if client.poll(FLAG) != 0 {
                arrived += 1;
                since = 0;
            }
            if client.poll(channel.flag()) != 0 {
                break;
            }
        }
        least = least.min(since);
        // They are disabled already; what is left is to empty the slots.
        drop(interrupts);
    }
    probe.check(
        "went_on",
        least > AT_ONCE,
        format_args!(
            "{raised} raised, came {arrived} times; after its vector was taken {least} at least"
        ),
    );
    Ok(())
}

/// Takes vectors away from under torrents.
pub fn dam(probe: &Probe, torrents: usize) -> Result<(), Error> {
    let client = &probe.client;
    let observer = Observer::new(client)?;
    let device = client.assign_ids(VENDOR, DEVICE)?;
    let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
    device.bus_master(Switch::On)?;
    let mut ends = Vec::<_, MAX_CHANNELS_A_CLIENT>::new();
    for end in &client.info().channels {
        let channel = client.channel(&end.name).ok_or(Error::NotFound)?;
        let other = loop {
            match channel.take_narrowed()? {
                Some(other) => break other,
                None => client.wait_for(channel.flag(), PATIENCE_MICROS)?,
            };
        };
        // There are no more than there is room for.
        let _ = ends.push((channel, other));
    }
    let (mut rounds, mut whole, mut same, mut own, mut astray) = (0, 0, 0, 0, 0);
    let before = observer.absorbed()?;
    for round in 0..u64::from(ROUNDS) {
        for (before, (channel, other)) in ends.iter().enumerate() {
            // In the last round those before have ended, and left vectors free.
            let ended = if round == u64::from(ROUNDS) - 1 {
                before
            } else {
                0
            };
            let vectors = all_at_it(probe, &observer, torrents.saturating_sub(ended))?;
            client.wait_for(0, 1 + round * 37 % 400)?;
            other.port().msi_disable()?;
            let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, FLAG)?;
            let vector = observer.vector(device.address())?;
            if ended == 0 {
                whole += 1;
                same += u32::from(vector.is_some_and(|vector| vectors.contains(&vector)));
            }
            astray += u32::from(client.wait_for(FLAG, PAUSE_MICROS)? != 0);
            edu.raise(1);
            own += u32::from(client.wait_for(FLAG, PATIENCE_MICROS)? == FLAG);
            edu.acknowledge(1);
            astray += u32::from(client.wait_for(FLAG, PAUSE_MICROS)? != 0);
            interrupts.disable()?;
            rounds += 1;
            channel.signal();
        }
    }
    probe.check(
        "nothing_comes_through",
        rounds == ROUNDS * torrents as u32 && (same, own, astray) == (whole, rounds, 0),
        format_args!(
            "{rounds} times a vector was taken, the same was had at once {same} of {whole} times: {astray} messages of others, {own} of {rounds} own"
        ),
    );
    report::metric(
        probe.platform,
        "torrent_absorbed",
        observer.absorbed()? - before,
    );
    Ok(())
}

/// Waits until so many devices have a message enabled; their vectors.
fn all_at_it(
    probe: &Probe,
    observer: &Observer<'_>,
    torrents: usize,
) -> Result<Vec<u16, MAX_CHANNELS_A_CLIENT>, Error> {
    for _ in 0..LOOKS {
        let standing = observer.standing()?;
        let rows = standing.table.iter();
        let messages = rows.filter(|row| row.purpose == VectorUse::Message);
        let vectors: Vec<u16, MAX_CHANNELS_A_CLIENT> = messages
            .map(|row| row.vector)
            .take(MAX_CHANNELS_A_CLIENT)
            .collect();
        if vectors.len() == torrents {
            return Ok(vectors);
        }
        probe.client.wait_for(0, PAUSE_MICROS)?;
    }
    Err(Error::NotFound)
}
