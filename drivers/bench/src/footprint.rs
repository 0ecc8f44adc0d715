//! The memory that a device in use takes: what the servers' figures say before
//! and after, in bytes.
//!
//! Counted: page tables of the IOMMU, and the capability slots that servers
//! and client use (32 bytes each, seL4 `structures_64.bf`, `cte`). The kernel
//! keeps nothing else for a device; servers' own records have their place from
//! the start, and the client's page tables are there before it has a device.

use client::{ANY_IOVA, Access, Client, Error, Inspector, Mechanism, PagePreference, Platform};
use client::{Sbdf, Switch};
use sel4_client::{SeL4Platform, ticks};
use system::layout::event;

use crate::device::BUFFER;

/// Bytes of a capability slot.
const SLOT: u64 = 32;
/// Bytes of a page table.
const TABLE: u64 = 4096;
/// Ticks a millisecond under instruction counting, where a tick is a nanosecond.
const TICKS_A_MS: u64 = 1_000_000;

/// Makes the device usable for the first time, and tells when the device was in hand and what memory it took.
pub fn first_use(
    client: &Client<'static, SeL4Platform>,
    inspector: &Inspector<'static, SeL4Platform>,
    address: Sbdf,
) -> Result<(), Error> {
    let platform = client.platform();
    let before = used(client, inspector)?;
    let device = client.assign(address)?;
    let (whole, part) = (ticks() / TICKS_A_MS, ticks() % TICKS_A_MS / 1000);
    platform.log(format_args!("@assigned {}", device.address()));
    platform.log(format_args!(
        "@metric boot_to_first_assign {whole}.{part:03}"
    ));

    let buffer = client.buffer(BUFFER, PagePreference::Small)?;
    buffer.map(ANY_IOVA, Access::ReadWrite)?;
    let registers = device.map_bar_large(0)?;
    device.bus_master(Switch::On)?;
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    let after = used(client, inspector)?;
    let bytes = after.saturating_sub(before);
    platform.log(format_args!("@metric memory_per_assigned_device {bytes}"));

    interrupts.disable()?;
    drop(registers);
    buffer.free()?;
    device.release()
}

/// Bytes that all servers and this client use.
fn used(
    client: &Client<'static, SeL4Platform>,
    inspector: &Inspector<'static, SeL4Platform>,
) -> Result<u64, Error> {
    let info = client.info();
    let mut slots = u64::from(client.window().in_use());
    let mut tables = 0;
    for &(shard, ..) in &info.pci {
        slots += u64::from(inspector.pci(shard).figures()?.slots_used);
    }
    if let Some(shard) = info.iommu {
        let figures = inspector.iommu(shard).figures()?;
        slots += u64::from(figures.slots_used);
        tables += u64::from(figures.tables_used);
    }
    slots += u64::from(inspector.msi(0).figures()?.slots_used);
    Ok(slots * SLOT + tables * TABLE)
}
