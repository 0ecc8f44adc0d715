//! The crates.io virtio block driver reading a whole disk: `virtio-drivers`
//! knows nothing of this project, its `Hal` and its configuration access come
//! from the client library. Prints the SHA-256 digest of what it read.

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
    let mut digest = Sha256::new();
    let mut chunk = [0; CHUNK];
    let mut sector = 0;
    while sector < sectors {
        let bytes =
            CHUNK.min(usize::try_from((sectors - sector) * SECTOR_SIZE as u64).unwrap_or(CHUNK));
        let part = chunk.get_mut(..bytes).ok_or_else(|| because("chunk"))?;
        disk.read_blocks(usize::try_from(sector).map_err(because)?, part)
            .map_err(because)?;
        digest.update(&*part);
        sector += (bytes / SECTOR_SIZE) as u64;
    }
    metric(platform, "disk_bytes_read", sectors * SECTOR_SIZE as u64);
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
