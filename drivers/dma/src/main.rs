//! The same DMA on every kind of IOMMU: a teaching device moves bytes where it
//! may and where it may not, and memory is compared byte by byte.
//!
//! Needs an edu device. Arguments: what the assignment has to promise beside
//! isolated DMA, in words: `interrupts` (isolated), `faults` (reported);
//! `alias`: faults come under another requester id, that of a bridge;
//! `unlogged`: faults are promised, but this machine's unit (QEMU's of AMD) does
//! not record them, so that nothing is said of them;
//! `private`: before that one of two edu devices of the client has a context of
//! its own, and each reaches nothing of the other's.

#![no_std]
#![no_main]

mod attempts;
mod mover;
mod private;

use client::report::check;
use client::{Client, Error, Platform, Properties, Switch};
use edu_driver::{DEVICE, Edu, VENDOR};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;

use mover::{Mover, Records};

sel4_client::program!(main);

pub(crate) type OurClient = Client<'static, SeL4Platform>;

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let outcome = run(platform, info);
    if let Err(error) = &outcome {
        check(platform, "dma_probe", false, format_args!("{error}"));
    }
    u32::from(outcome.is_err())
}

/// Whether a word is among the arguments.
fn said(info: &ClientInfo, word: &str) -> bool {
    info.args.split_whitespace().any(|said| said == word)
}

fn run(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    if said(info, "private") {
        private::run(platform, &client)?;
    }
    let device = client.assign_ids(VENDOR, DEVICE)?;
    platform.log(format_args!("@assigned {}", device.address()));
    let promises = device.properties();
    let promised = Properties {
        dma_isolated: true,
        interrupts_isolated: said(info, "interrupts"),
        faults_reported: said(info, "faults"),
        translation_cached: false,
        reset: promises.reset,
        vectors: 0,
    };
    check(
        platform,
        "promises",
        promises == promised,
        format_args!("{promises:?}"),
    );
    let records = match (said(info, "unlogged"), said(info, "alias")) {
        (true, _) => Records::Unlogged,
        (_, true) => Records::OfABridge,
        _ if promises.faults_reported => Records::OfTheDevice,
        _ => Records::None,
    };
    let registers = device.map_bar(0)?;
    let mut mover = Mover::new(&client, Edu(registers), device.address(), records);
    device.bus_master(Switch::On)?;
    attempts::run(platform, &client, &mut mover)
}
