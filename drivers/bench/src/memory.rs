//! Rows of DMA memory: allocating buffers, letting the client's devices reach them, taking that away.

use client::{ANY_IOVA, Access, Client, Error, PagePreference};
use sel4_client::SeL4Platform;

use crate::device::BUFFER;
use crate::row::{ALL, Row};

type OurClient = Client<'static, SeL4Platform>;

/// Mapping existing buffers into the client's context, and unmapping them: a page, and large pages.
pub fn mapping(client: &OurClient, overhead: u64) -> Result<(), Error> {
    let platform = client.platform();
    for (bytes, pages, keys) in [
        (
            4 << 10,
            PagePreference::Small,
            ["dma_map_4k", "dma_unmap_4k"],
        ),
        (
            64 << 10,
            PagePreference::Small,
            ["dma_map_64k", "dma_unmap_64k"],
        ),
        (
            2 << 20,
            PagePreference::Large,
            ["dma_map_2m", "dma_unmap_2m"],
        ),
        (
            16 << 20,
            PagePreference::Large,
            ["dma_map_16m", "dma_unmap_16m"],
        ),
    ] {
        let buffer = client.buffer(bytes, pages)?;
        let (mut map, mut unmap) = (Row::new(overhead), Row::new(overhead));
        for _ in 0..ALL {
            map.time(|| buffer.map(ANY_IOVA, Access::ReadWrite))?;
            unmap.time(|| buffer.unmap())?;
        }
        let [of_map, of_unmap] = keys;
        map.report(platform, of_map);
        unmap.report(platform, of_unmap);
        buffer.free()?;
    }
    Ok(())
}

/// Allocating 64 KiB, mapped in this PD, and giving them back.
pub fn allocation(client: &OurClient, overhead: u64) -> Result<(), Error> {
    let (mut alloc, mut free) = (Row::new(overhead), Row::new(overhead));
    for _ in 0..ALL {
        let buffer = alloc.time(|| client.buffer(BUFFER, PagePreference::Small))?;
        free.time(|| buffer.free())?;
    }
    alloc.report(client.platform(), "dma_alloc_64k");
    free.report(client.platform(), "dma_free_64k");
    Ok(())
}
