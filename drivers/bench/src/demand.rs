//! What a piece of work takes of each server: its turns' ticks, beside the
//! ticks that the client sees. The model of `images` is made of these figures
//! (docs/performance.md).

use client::{
    ANY_IOVA, Access, Client, Device, Error, Inspector, Mechanism, PagePreference, Platform, Sbdf,
    Width,
};
use sel4_client::{SeL4Platform, ticks};
use system::layout::event;

use crate::device::BUFFER;

/// Rounds over which a mean is taken.
const ROUNDS: u64 = 100;
/// The same, of what takes long.
const FEW_ROUNDS: u64 = 10;
/// Size of a large buffer.
const LARGE: u64 = 2 << 20;

type OurClient = Client<'static, SeL4Platform>;
type OurInspector = Inspector<'static, SeL4Platform>;

/// Ticks of all turns of the pci-server, the iommu-server and the msi-server.
fn turns(client: &OurClient, inspector: &OurInspector) -> Result<[u64; 3], Error> {
    let mut pci = 0;
    for &(shard, ..) in &client.info().pci {
        pci += inspector.pci(shard).turns()?.ticks;
    }
    let iommu = client.info().iommu.ok_or(Error::NoIommuShard)?;
    let iommu = inspector.iommu(iommu).turns()?.ticks;
    Ok([pci, iommu, inspector.msi(0).turns()?.ticks])
}

/// Does a piece of work [`ROUNDS`] times, and tells the mean of what it took.
fn tell(
    client: &OurClient,
    inspector: &OurInspector,
    name: &str,
    mut work: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let platform = client.platform();
    let before = turns(client, inspector)?;
    let start = ticks();
    for _ in 0..ROUNDS {
        work()?;
    }
    let total = (ticks() - start) / ROUNDS;
    let after = turns(client, inspector)?;
    platform.log(format_args!("@metric demand.{name}.total {total}"));
    let servers = ["pci", "iommu", "msi"].into_iter();
    for (server, (before, after)) in servers.zip(before.into_iter().zip(after)) {
        let each = after.saturating_sub(before) / ROUNDS;
        platform.log(format_args!("@metric demand.{name}.{server} {each}"));
    }
    Ok(())
}

/// What others wait for: the turns of the iommu-server that make a buffer of the largest size a client has by default
/// (`largest_buffer`), and those that free it. The memory is not fresh: the kernel clears it.
pub fn large_buffers(client: &OurClient, inspector: &OurInspector) -> Result<(), Error> {
    let platform = client.platform();
    let iommu = client.info().iommu.ok_or(Error::NoIommuShard)?;
    let spent = || inspector.iommu(iommu).turns().map(|turns| turns.ticks);
    for (name, pages, private) in [
        ("private", PagePreference::Small, true),
        ("shared", PagePreference::Small, false),
        ("large_page", PagePreference::Large, false),
    ] {
        let (mut made, mut freed) = (0, 0);
        // The first round's memory may be fresh.
        for round in 0..=FEW_ROUNDS {
            let start = spent()?;
            let buffer = match private {
                true => client.buffer(LARGE, pages)?,
                false => client.shared_buffer(LARGE, pages)?,
            };
            let middle = spent()?;
            buffer.free()?;
            if round > 0 {
                made += middle.saturating_sub(start) / FEW_ROUNDS;
                freed += spent()?.saturating_sub(middle) / FEW_ROUNDS;
            }
        }
        platform.log(format_args!("@metric turns.2m_{name}.make {made}"));
        platform.log(format_args!("@metric turns.2m_{name}.free {freed}"));
    }
    Ok(())
}

/// The pieces of work. In `device` every turn of the iommu-server and the msi-server is part of one of the
/// pci-server's; in `buffer` and `map` none is.
pub fn all(client: &OurClient, inspector: &OurInspector, address: Sbdf) -> Result<(), Error> {
    tell(client, inspector, "device", || {
        let device = client.assign(address)?;
        device
            .enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?
            .disable()?;
        device.release()
    })?;
    tell(client, inspector, "buffer", || {
        let buffer = client.buffer(BUFFER, PagePreference::Small)?;
        buffer.map(ANY_IOVA, Access::ReadWrite)?;
        buffer.free()
    })?;
    let device: Device<'_, 'static, SeL4Platform> = client.assign(address)?;
    let buffer = client.buffer(4096, PagePreference::Small)?;
    tell(client, inspector, "map", || {
        buffer.map(ANY_IOVA, Access::ReadWrite)?;
        buffer.unmap()
    })?;
    tell(client, inspector, "read", || {
        device.config_read(0, Width::Dword).map(drop)
    })?;
    buffer.free()?;
    device.release()
}
