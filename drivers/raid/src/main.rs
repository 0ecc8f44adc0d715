//! Attacks that need more than one client: what a device does before it is
//! anybody's, after its holder died, into memory that is another's by now,
//! through a conventional bridge, through a shared buffer, with forged
//! interrupt messages, and very often. `drivers/intruder` has what one hostile
//! client can try alone.
//!
//! The first word of the arguments is the role, one a client; the others are
//! the role's own. Every check is one thing tried and what became of it.

#![no_std]
#![no_main]

mod bridge;
mod flood;
mod forge;
mod recycled;
mod scene;
mod sharing;
mod storm;

use client::Error;
use client::report::check;
use sel4_client::SeL4Platform;
use system::info::ClientInfo;

use scene::Scene;

sel4_client::program!(main);

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let (role, rest) = match info.args.split_once(' ') {
        Some((role, rest)) => (role, rest),
        None => (info.args.as_str(), ""),
    };
    match Scene::begin(platform, info).and_then(|scene| play(&scene, role, rest)) {
        Ok(()) => {
            check(platform, "ran", true, format_args!("{role}: to its end"));
            0
        }
        Err(error) => {
            check(platform, "ran", false, format_args!("{role}: {error}"));
            1
        }
    }
}

fn play(scene: &Scene, role: &str, rest: &str) -> Result<(), Error> {
    match role {
        "producer" => sharing::producer(scene),
        "consumer" => sharing::consumer(scene),
        "toucher" => sharing::toucher(scene),
        "mayfly" => sharing::mayfly(scene),
        "raider" => recycled::raider(scene),
        "heir" => recycled::heir(scene, rest),
        "bridge" => bridge::behind(scene, rest),
        "outsider" => bridge::outsider(scene, rest),
        "forger" => forge::forger(scene),
        "target" => forge::target(scene),
        "exception" => forge::exception(scene),
        "gauge" => flood::gauge(scene, rest),
        "metered" => flood::metered(scene),
        "flood" => flood::flood(scene),
        "storm" => storm::storm(scene),
        "meter" => storm::meter(scene),
        _ => Err(Error::NotFound),
    }
}
