//! What operations cost among few functions and among many: the same device in the same surroundings, once in a shard of
//! about ten functions and once in a shard of a thousand, in one run.

use client::report::{check, metric};
use client::{
    ANY_IOVA, Access, Client, Error, Inspector, Mechanism, PagePreference, Platform, Sbdf, Width,
};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;
use system::layout::event;

use crate::row::{ALL, Row, overhead};

/// What is allowed between the two, in percent.
const ALLOWED: u64 = 5;
/// Functions of the small shard, at most, and of the large one, at least.
const FEW: u32 = 10;
const MANY: u32 = 1_000;
/// Command and Status (PCIe 5.0, 7.5.1.1). Zeros in Status change nothing.
const COMMAND: u16 = 0x04;

/// The rows, in the order of [`rows`].
const ROWS: [&str; 9] = [
    "query",
    "assign",
    "release",
    "config_read32",
    "config_write32",
    "dma_map_4k",
    "dma_unmap_4k",
    "msi_enable",
    "msi_disable",
];

/// Medians of all rows, with one device.
fn rows(
    client: &Client<'static, SeL4Platform>,
    device: Sbdf,
    overhead: u64,
) -> Result<[u64; ROWS.len()], Error> {
    let mut rows = [const { Row::new(0) }; ROWS.len()];
    for row in &mut rows {
        *row = Row::new(overhead);
    }
    let [
        query,
        assign,
        release,
        read,
        write,
        map,
        unmap,
        enable,
        disable,
    ] = &mut rows;
    let port = client.pci(client.shard_of(device)?);
    let buffer = client.buffer(4096, PagePreference::Small)?;
    for _ in 0..ALL {
        query.time(|| port.query(device))?;
        let held = assign.time(|| client.assign(device))?;
        let command = held.config_read(COMMAND, Width::Word)?;
        read.time(|| held.config_read(0, Width::Dword))?;
        write.time(|| held.config_write(COMMAND, Width::Dword, command))?;
        map.time(|| buffer.map(ANY_IOVA, Access::ReadWrite))?;
        unmap.time(|| buffer.unmap())?;
        let interrupts =
            enable.time(|| held.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN))?;
        disable.time(|| interrupts.disable())?;
        release.time(|| held.release())?;
    }
    Ok(rows.map(|mut row| row.median()))
}

/// Both, side by side. The first device of the description is in the small shard.
///
/// # Errors
/// A refusal.
pub fn run(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let inspector = Inspector::new(platform, info).ok_or(Error::NotFound)?;
    let mut devices = [(0, None); 2];
    for found in client.devices() {
        let device = found?.device;
        let shard = client.shard_of(device)?;
        let functions = inspector.pci(shard).figures()?.devices;
        let place = &mut devices[usize::from(functions > FEW)];
        // The first function there; the others are its neighbours.
        if place.1.is_none() {
            *place = (functions, Some(device));
        }
    }
    let [(few, small), (many, large)] = devices;
    let overhead = overhead();
    let among_few = rows(&client, small.ok_or(Error::NotFound)?, overhead)?;
    let among_many = rows(&client, large.ok_or(Error::NotFound)?, overhead)?;
    let mut worst = 0;
    for ((row, few), many) in ROWS.into_iter().zip(among_few).zip(among_many) {
        platform.log(format_args!("@metric {row}.few {few}"));
        platform.log(format_args!("@metric {row}.many {many}"));
        let difference = (few.abs_diff(many) * 1_000).div_ceil(few.max(1));
        worst = worst.max(difference);
    }
    metric(platform, "difference_permille", worst);
    check(
        platform,
        "costs_do_not_grow",
        many >= MANY && few <= FEW && among_few.iter().all(|row| *row > 0) && worst < 10 * ALLOWED,
        format_args!(
            "{ROWS:?} among {few} and {many} functions differ by {worst} in a thousand at most"
        ),
    );
    Ok(())
}
