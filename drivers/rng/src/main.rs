//! The crates.io virtio entropy driver: fetches random bytes twice and checks
//! that they look like some and differ.

#![no_std]
#![no_main]

use client::report::check;
use client::{Client, Device, Platform};
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
