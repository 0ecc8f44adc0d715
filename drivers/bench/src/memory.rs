//! Rows of DMA memory: allocating buffers, letting the client's devices reach them, taking that away.

use client::{ANY_IOVA, Access, Client, Error, PagePreference, Platform};
use sel4_client::SeL4Platform;

use crate::row::{ALL, Row};

/// Bytes of the buffer that is mapped page by page.
const PAGE: u64 = 4096;

/// Mapping an existing buffer of one page into the client's context, and unmapping it.
pub fn mapping(client: &Client<'static, SeL4Platform>, overhead: u64) -> Result<(), Error> {
    let platform = client.platform();
    let buffer = client.buffer(PAGE, PagePreference::Small)?;
    let (mut map, mut unmap) = (Row::new(overhead), Row::new(overhead));
    for _ in 0..ALL {
        map.time(|| buffer.map(ANY_IOVA, Access::ReadWrite))?;
        unmap.time(|| buffer.unmap())?;
    }
    map.report(platform, "dma_map_4k");
    unmap.report(platform, "dma_unmap_4k");
    Ok(())
}
