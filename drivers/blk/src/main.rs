//! The crates.io virtio block driver reading a whole disk: `virtio-drivers`
//! knows nothing of this project, its `Hal` and its configuration access come
//! from the client library. Prints the SHA-256 digest of what it read.
//!
//! Arguments: nothing; or `passes <n>`: reads the disk so often, and says the longest time between two answers; or
//! `until <channel>`: the same, until that channel's other end signals.

#![no_std]
#![no_main]

use client::report::{check, metric};
use client::{Client, Device, Platform};
use sel4_client::SeL4Platform;
use sel4_client::virtio::{Reason, VirtioHal, attach, because};
use sha2::{Digest, Sha256};
use spin::Once;
use system::info::ClientInfo;
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};

sel4_client::program!(main);

static CLIENT: Once<Client<'static, SeL4Platform>> = Once::new();
static DEVICE: Once<Device<'static, 'static, SeL4Platform>> = Once::new();

const VIRTIO: u16 = 0x1af4;
const BLOCK: u16 = 0x1042;
/// Bytes a request; the whole goes through bounce memory.
const CHUNK: usize = 32 * 1024;
/// A stream that has stood still for so long has stopped, in microseconds.
const STOPPED_MICROS: u64 = 2_000_000;

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    match read_disk(platform, info) {
        Ok(()) => sel4_client::exit(platform, 0),
        Err(reason) => {
            check(platform, "disk_digest", false, format_args!("{reason}"));
            1
        }
    }
}

fn read_disk(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Reason> {
    let client = Client::connect(platform, info).map_err(because)?;
    let client = CLIENT.call_once(|| client);
    let device = client.assign_ids(VIRTIO, BLOCK).map_err(because)?;
    let device = DEVICE.call_once(|| device);
    platform.log(format_args!("@assigned {}", device.address()));
    let transport = attach(client, device).map_err(because)?;
    let mut disk = VirtIOBlk::<VirtioHal, _>::new(transport).map_err(because)?;

    let sectors = disk.capacity();
    let (most, until) = match info.args.split_once(' ') {
        Some(("passes", number)) => (number.parse().map_err(because)?, 0),
        Some(("until", name)) => {
            let channel = client.channel(name).ok_or_else(|| because("no channel"))?;
            (u32::MAX, channel.flag())
        }
        _ => (1u32, 0),
    };
    let mut passes = 0;
    let mut digest = Sha256::new();
    let mut chunk = [0; CHUNK];
    let mut same = true;
    let mut longest = 0;
    let mut last = None;
    while passes < most && (until == 0 || client.poll(until) == 0) {
        let mut sector = 0;
        let mut sum = Sha256::new();
        while sector < sectors {
            let left = usize::try_from((sectors - sector) * SECTOR_SIZE as u64);
            let bytes = CHUNK.min(left.unwrap_or(CHUNK));
            let part = chunk.get_mut(..bytes).ok_or_else(|| because("chunk"))?;
            disk.read_blocks(usize::try_from(sector).map_err(because)?, part)
                .map_err(because)?;
            sum.update(&*part);
            sector += (bytes / SECTOR_SIZE) as u64;
            if most > 1 {
                let now = client.timer().now().map_err(because)?.micros;
                longest = longest.max(last.map_or(0, |last| now - last));
                last = Some(now);
            }
        }
        passes += 1;
        if passes == 1 {
            digest = sum;
        } else {
            same &= sum.finalize() == digest.clone().finalize();
        }
    }
    metric(
        platform,
        "disk_bytes_read",
        u64::from(passes) * sectors * SECTOR_SIZE as u64,
    );
    if most > 1 {
        check(
            platform,
            "stream_never_stopped",
            same && longest < STOPPED_MICROS,
            format_args!(
                "{passes} passes, the same each time: {same}; {longest} us at most between two answers"
            ),
        );
    }
    check(
        platform,
        "disk_digest",
        sectors != 0,
        format_args!(
            "sha256={} bytes={}",
            Hex(&digest.finalize()),
            sectors * SECTOR_SIZE as u64
        ),
    );
    core::mem::forget(disk);
    Ok(())
}

struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
