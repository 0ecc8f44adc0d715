//! Servers die under load, and nobody but their callers notices.
//!
//! Arguments, one program a client of the scenario:
//!
//! - `killer <kills> <span> <seed>`: has each server shard killed so often, then all of them in turn by chance, each time
//!   after at most `span` microseconds ([`killer`]). It looks at every server all the time: how long nobody is
//!   answered, and whether what the others hold is as it was. Needs `inspect`.
//! - `holder`: sets a device up once, and from then on uses it without a server: transfers and interrupts ([`holder`]).
//! - `churner`: takes a device, sets it up, uses it and gives it back, over and over ([`churner`]).
//! - `once`: each server shard is killed and made to fault, while nobody holds anything ([`killer::once`]).
//! - `breaker`, `waiter`, `user`: two server shards are given up ([`given_up`]).
//!
//! Holder and churner go on until the killer's last kill: its client signals them over a channel.

#![no_std]
#![no_main]

mod churner;
mod given_up;
mod holder;
mod killer;

use client::report::check;
use client::{Client, Error, Mmio};
use edu_driver::{COMPLETED, Edu};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;
use system::layout::event;

sel4_client::program!(main);

/// The killer's signal that all kills were done, over a client's only channel.
const OVER: u64 = event::CHANNEL;
/// A transfer takes 100 ms of the device's time; nothing takes so long, in microseconds.
const PATIENCE: u64 = 5_000_000;

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let mut words = info.args.split(' ');
    let job = words.next().unwrap_or_default();
    let outcome = Client::connect(platform, info).and_then(|client| match job {
        "killer" => killer::run(&client, words),
        "once" => killer::once(&client),
        "holder" => holder::run(&client),
        "churner" => churner::run(&client),
        "breaker" => given_up::breaker(&client),
        "waiter" => given_up::waiter(&client),
        "user" => given_up::user(&client),
        _ => Err(Error::NotFound),
    });
    if let Err(error) = &outcome {
        check(platform, "restarts_ran", false, format_args!("{error}"));
    }
    u32::from(outcome.is_err())
}

/// This program's client.
type Own<'p> = Client<'p, SeL4Platform>;

/// Waits for `flag`. `false`: it did not come. Tells in `over` when the end was signalled meanwhile.
fn wait(client: &Own<'_>, flag: u64, over: &mut bool) -> Result<bool, Error> {
    let mut left = flag;
    while left != 0 {
        let came = client.wait_for(flag | OVER, PATIENCE)?;
        if came == 0 {
            return Ok(false);
        }
        *over |= came & OVER != 0;
        left &= !came;
    }
    Ok(true)
}

/// One interrupt by register: raised, awaited and acknowledged. Did it come?
fn interrupt<M: Mmio>(
    client: &Own<'_>,
    edu: &mut Edu<M>,
    flag: u64,
    over: &mut bool,
) -> Result<bool, Error> {
    edu.raise(1);
    let came = wait(client, flag, over)?;
    edu.acknowledge(1);
    Ok(came)
}

/// The interrupt at the end of a transfer. Did it come, and say that?
fn completed<M: Mmio>(
    client: &Own<'_>,
    edu: &mut Edu<M>,
    flag: u64,
    over: &mut bool,
) -> Result<bool, Error> {
    let came = wait(client, flag, over)?;
    let status = edu.raised();
    edu.acknowledge(status);
    Ok(came && status & COMPLETED != 0 && !edu.busy())
}

/// The byte at `at` of the `round`-th transfer.
fn pattern(round: u32, at: usize) -> u8 {
    let mixed = (at as u32 ^ round.rotate_left(16)).wrapping_mul(2_654_435_761);
    mixed.to_be_bytes()[0]
}
