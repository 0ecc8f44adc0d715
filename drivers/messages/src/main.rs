//! Shows on a booted image that interrupts come as they should: each message of a device that raises them by order is
//! counted where it is raised and where it arrives.
//!
//! Arguments, one of: `edu`, `network`, `drive`, `virtio`, `usb msi`, `usb msix`: the device ([`sources`]) whose messages go through
//! [`suite`], with `cores <n>` behind it from core to core; `line` and what [`lines`] has; `scarce` ([`scarce`]); `metered` ([`metered`]);
//! `cycles <n>`
//! ([`cycles`]); `victim <n> <step> <way>` ([`deaths`]); `heir <victims>` ([`heir`]); `flight`
//! ([`flight`]); `faults <n>` and `ports <n>` ([`own`]);
//! `contender` and `reaper <contenders>` ([`reaper`]); `torrent` and `dam <torrents>` ([`torrent`]).

#![no_std]
#![no_main]

mod cycles;
mod deaths;
mod drive;
mod flight;
mod heir;
mod lines;
mod metered;
mod network;
mod own;
mod reaper;
mod scarce;
mod sources;
mod standing;
mod suite;
mod torrent;
mod usb;
mod virtio;

use client::report::check;
use client::{Client, Error, Mechanism};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;

sel4_client::program!(main);

/// What a part of the program works with.
pub struct Probe {
    platform: &'static SeL4Platform,
    client: Client<'static, SeL4Platform>,
    /// Cores to send messages to.
    cores: u8,
}

impl Probe {
    fn check(&self, name: &str, ok: bool, detail: core::fmt::Arguments<'_>) {
        check(self.platform, name, ok, detail);
    }
}

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let outcome = Client::connect(platform, info).and_then(|client| {
        let (what, cores) = info.args.split_once(" cores ").unwrap_or((&info.args, "1"));
        let probe = Probe {
            platform,
            client,
            cores: cores.parse().unwrap_or(1),
        };
        let mut words = what.split_whitespace();
        match (words.next(), words.next()) {
            (Some("line"), Some(what)) => lines::run(&probe, what),
            (Some("metered"), None) => metered::run(&probe),
            (Some("scarce"), None) => scarce::run(&probe),
            (Some("contender"), None) => reaper::victim(&probe),
            (Some("reaper"), Some(victims)) => {
                reaper::run(&probe, victims.parse().map_err(|_| Error::NotFound)?)
            }
            (Some("faults"), Some(times)) => {
                own::faults(&probe, times.parse().map_err(|_| Error::NotFound)?)
            }
            (Some("ports"), Some(times)) => {
                own::ports(&probe, times.parse().map_err(|_| Error::NotFound)?)
            }
            (Some("torrent"), None) => torrent::run(&probe),
            (Some("dam"), Some(torrents)) => {
                torrent::dam(&probe, torrents.parse().map_err(|_| Error::NotFound)?)
            }
            (Some("flight"), None) => flight::run(&probe),
            (Some("victim"), Some(_)) => {
                let arguments = what.split_once(' ').unwrap_or_default().1;
                deaths::run(&probe, arguments)
            }
            (Some("heir"), Some(victims)) => {
                heir::run(&probe, victims.parse().map_err(|_| Error::NotFound)?)
            }
            (Some("cycles"), Some(times)) => {
                cycles::run(&probe, times.parse().map_err(|_| Error::NotFound)?)
            }
            (Some("edu"), None) => sources::edu(&probe),
            (Some("drive"), None) => drive::run(&probe),
            (Some("virtio"), None) => virtio::run(&probe),
            (Some("network"), None) => network::run(&probe),
            (Some("usb"), Some("msi")) => usb::run(&probe, Mechanism::Msi),
            (Some("usb"), Some("msix")) => usb::run(&probe, Mechanism::MsiX),
            _ => Err(Error::NotFound),
        }
    });
    if let Err(error) = &outcome {
        check(
            platform,
            "messages",
            false,
            format_args!("{:?}: {error}", info.args),
        );
    }
    u32::from(outcome.is_err())
}
