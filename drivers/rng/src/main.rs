//! The crates.io virtio entropy driver: fetches random bytes twice and checks
//! that they look like some and differ.
//!
//! Arguments: nothing; `ats`: the device has to be allowed to keep translations, and has to answer when it is to
//! forget them; `no-ats`: it could, and must not be allowed to.

#![no_std]
#![no_main]

use client::report::check;
use client::{
    ANY_IOVA, Access, CapabilityListKind, Client, Device, Error, PagePreference, Platform, Width,
};
use sel4_client::SeL4Platform;
use sel4_client::virtio::{PlatformTransport, Reason, VirtioHal, attach, because};
use spin::Once;
use system::info::ClientInfo;
use virtio_drivers::device::rng::VirtIORng;

sel4_client::program!(main);

static CLIENT: Once<Client<'static, SeL4Platform>> = Once::new();
static DEVICE: Once<Device<'static, 'static, SeL4Platform>> = Once::new();

const VIRTIO: u16 = 0x1af4;
const ENTROPY: u16 = 0x1044;
const BYTES: usize = 256;

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    match fetch_entropy(platform, info) {
        Ok(()) => sel4_client::exit(platform, 0),
        Err(reason) => {
            check(platform, "entropy", false, format_args!("{reason}"));
            1
        }
    }
}

fn fetch_entropy(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Reason> {
    let client = Client::connect(platform, info).map_err(because)?;
    let client = CLIENT.call_once(|| client);
    let device = client.assign_ids(VIRTIO, ENTROPY).map_err(because)?;
    let device = DEVICE.call_once(|| device);
    platform.log(format_args!("@assigned {}", device.address()));
    match info.args.as_str() {
        "ats" => keeps(platform, client, device, true).map_err(because)?,
        "no-ats" => keeps(platform, client, device, false).map_err(because)?,
        _ => {}
    }
    let transport = attach(client, device).map_err(because)?;
    let mut source = VirtIORng::<VirtioHal, _>::new(transport).map_err(because)?;

    let mut first = [0; BYTES];
    let mut second = [0; BYTES];
    fill(&mut source, &mut first)?;
    fill(&mut source, &mut second)?;
    let mut seen = [false; 256];
    first
        .iter()
        .for_each(|&byte| seen[usize::from(byte)] = true);
    // Of 256 random bytes about 162 values are distinct; fewer than 120 has a chance below 1 in 10^15.
    let distinct = seen.iter().filter(|&&value| value).count();
    check(
        platform,
        "entropy",
        distinct >= 120 && first != second,
        format_args!(
            "{BYTES} bytes twice, {distinct} distinct values, the two differ: {}",
            first != second
        ),
    );
    core::mem::forget(source);
    Ok(())
}

/// The extended capability of address translation services, its control register and "enable" (PCIe 5.0, 10.5.1).
const ATS: u16 = 0x000f;
const ATS_CONTROL: u16 = 6;
const ATS_ENABLE: u32 = 1 << 15;
/// Mappings that come and go.
const ROUNDS: u32 = 100;

/// Whether the device may keep translations is as it should be, and unmapping ends when it has answered: a device
/// that did not would be taken away.
fn keeps(
    platform: &'static SeL4Platform,
    client: &'static Client<'static, SeL4Platform>,
    device: &'static Device<'static, 'static, SeL4Platform>,
    wanted: bool,
) -> Result<(), Error> {
    let capability = client
        .capabilities(device.address())
        .filter_map(Result::ok)
        .find(|entry| entry.list == CapabilityListKind::Extended && entry.id == ATS)
        .ok_or(Error::NotFound)?;
    let enabled = || -> Result<bool, Error> {
        let control = device.config_read(capability.offset + ATS_CONTROL, Width::Word)?;
        Ok(control & ATS_ENABLE != 0)
    };
    let promised = device.properties().translation_cached;
    let before = enabled()?;
    // In its reset it can answer nobody; afterwards it is as before.
    device.reset()?;
    let after = enabled()?;
    check(
        platform,
        if wanted { "ats_is_on" } else { "ats_is_off" },
        [promised, before, after] == [wanted; 3],
        format_args!("promised: {promised}, on: {before}, after a reset: {after}"),
    );
    let buffer = client.buffer(16 * 4096, PagePreference::Small)?;
    let mut rounds = 0;
    for _ in 0..ROUNDS {
        buffer.map(ANY_IOVA, Access::ReadWrite)?;
        buffer.unmap()?;
        rounds += 1;
    }
    check(
        platform,
        "unmapping_is_answered",
        rounds == ROUNDS,
        format_args!("{rounds} of {ROUNDS} mappings came and went"),
    );
    Ok(())
}

fn fill(
    source: &mut VirtIORng<VirtioHal, PlatformTransport>,
    mut into: &mut [u8],
) -> Result<(), Reason> {
    while !into.is_empty() {
        match source.request_entropy(into).map_err(because)? {
            0 => return Err(because("the device gave no bytes")),
            got => into = into.get_mut(got..).unwrap_or(&mut []),
        }
    }
    Ok(())
}
