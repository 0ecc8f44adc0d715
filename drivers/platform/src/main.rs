//! Shows on a booted image what pci-server does for the platform: the list of
//! functions, isolation groups, hot-plug, surprise removal, events, virtual functions,
//! resets of a bus, narrowed capabilities, large frames of BARs.
//!
//! Arguments, the first word says what: `list`, `dump`, `rescan`, `plug <cycles>`,
//! `surprise`, `events`, `late-bridge`, `remove`, `virtual <count>`, `groups`, `bus-reset`, `narrow`, `large-bar`.

#![no_std]
#![no_main]

mod bus;
mod large;
mod plug;
mod rights;
mod surprise;
mod survey;
mod transfer;
mod trouble;
mod virtual_functions;

use client::report::check;
use client::{Client, Error};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;

sel4_client::program!(main);

/// What a part of the program works with.
struct Probe {
    platform: &'static SeL4Platform,
    info: &'static ClientInfo,
    client: Client<'static, SeL4Platform>,
}

impl Probe {
    fn check(&self, name: &str, ok: bool, detail: core::fmt::Arguments<'_>) {
        check(self.platform, name, ok, detail);
    }
}

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let outcome = Client::connect(platform, info).and_then(|client| {
        let probe = Probe {
            platform,
            info,
            client,
        };
        let mut words = info.args.split_whitespace();
        let what = words.next().unwrap_or_default();
        let number = words.next().and_then(|word| word.parse().ok());
        match what {
            "list" => survey::list(&probe),
            "dump" => survey::dump(&probe),
            "rescan" => survey::rescan(&probe),
            "late-bridge" => plug::late_bridge(&probe),
            "surprise" => surprise::pulls(&probe),
            "events" => trouble::events(&probe),
            "plug" => plug::cycles(&probe, number.unwrap_or(1)),
            "remove" => plug::remove(&probe),
            "virtual" => virtual_functions::enable(&probe, number.unwrap_or(1)),
            "groups" => bus::groups(&probe),
            "bus-reset" => bus::reset(&probe),
            "narrow" => rights::narrow(&probe),
            "large-bar" => large::bars(&probe),
            _ => Err(Error::NotFound),
        }
    });
    if let Err(error) = &outcome {
        check(
            platform,
            "platform",
            false,
            format_args!("{:?}: {error}", info.args),
        );
    }
    u32::from(outcome.is_err())
}
