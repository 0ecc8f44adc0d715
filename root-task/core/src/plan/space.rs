//! The address space of a PD: its own pages, other frames, and the page tables
//! that both need. Everything is where `system::layout::va` says.

use alloc::vec::Vec;

use ipc_proto::log::RING_BYTES;
use system::layout::{MAILBOX_BITS, SERVER_CORE, ledger_pages, priority, va};
use system::model::Name;

use super::build::{DeviceUse, NO_BLOCK, table_block_bits, uses_kernel};
use super::{
    Content, Foreign, Given, Inputs, Kind, Mapping, Pd, PlanError, Privileges, Run, channels,
};
use crate::image::{Access, Image, Segment};
use crate::memory::Slots;
use crate::objects::{self, Layout, Pages, Part, Tables};
use crate::region::{LARGE_PAGE, PAGE, Region};

/// Stack of a server, in pages.
const SERVER_STACK_PAGES: u16 = 32;
/// Pages for a PD's information.
const INFO_PAGES: u32 = (va::INFO_BYTES / PAGE) as u32;

/// A PD with its address space, without memory and capabilities.
pub(super) fn draft(
    inputs: &Inputs<'_>,
    device: &DeviceUse,
    image: &Image,
    (number, kind, name, program): (u16, Kind, Name, usize),
    slots: &mut Slots,
) -> Result<Pd, PlanError> {
    let client = match kind {
        Kind::Client(id) => inputs.system.clients.get(usize::from(id)),
        _ => None,
    };
    let cores = inputs.machine.cores.max(1);
    let (cnode_bits, priority, core) = match kind {
        Kind::Console => (9, priority::CONSOLE, SERVER_CORE),
        Kind::Timer => (9, priority::TIMER, SERVER_CORE),
        Kind::Iommu(_) => (14, priority::IOMMU, SERVER_CORE),
        Kind::Msi(_) => (9, priority::MSI, SERVER_CORE),
        Kind::Pci(shard) => (14, priority::PCI, shard % cores),
        Kind::Client(_) => (
            8,
            client.map_or(1, |client| client.priority),
            client.map_or(0, |client| client.core),
        ),
    };
    let mut runs = Vec::new();
    for (index, segment) in image.segments.iter().enumerate() {
        let pages = segment.region.pages();
        runs.push(Run {
            vaddr: pages.start(),
            // An image is smaller than the gap between two fixed places of the layout.
            pages: (pages.bytes() / PAGE) as u32,
            access: segment.access,
            content: Content::Segment(index),
        });
    }
    let own = |vaddr, pages, access, content| Run {
        vaddr,
        pages,
        access,
        content,
    };
    let stack = client.map_or(SERVER_STACK_PAGES, |client| client.stack_pages);
    runs.push(own(va::INFO, INFO_PAGES, Access::Read, Content::Info));
    runs.push(own(
        va::IPC_BUFFER,
        1,
        Access::ReadWrite,
        Content::IpcBuffer,
    ));
    let stack_bottom = va::STACK_TOP - u64::from(stack) * PAGE;
    runs.push(own(
        stack_bottom,
        stack.into(),
        Access::ReadWrite,
        Content::Zero,
    ));
    let ledger = match kind {
        Kind::Iommu(_) => ledger_pages::IOMMU,
        Kind::Msi(_) => ledger_pages::MSI,
        Kind::Pci(_) => ledger_pages::PCI,
        Kind::Console | Kind::Timer | Kind::Client(_) => 0,
    };
    if kind.is_shard() {
        runs.extend(kept(image));
    }
    if ledger > 0 {
        runs.push(own(va::LEDGER, ledger, Access::ReadWrite, Content::Ledger));
    }
    let ring = Mapping {
        vaddr: va::LOG_RING,
        bytes: RING_BYTES as u64,
        frames: Foreign::Ring(number),
    };
    let mut mappings = alloc::vec![ring];
    regions(inputs, device, kind, &mut mappings);
    Ok(Pd {
        number,
        name,
        kind,
        program,
        priority,
        core,
        cnode_bits,
        window_bits: client.map(|client| client.window_bits),
        privileges: client.map_or_else(Privileges::default, |client| Privileges {
            inspect: client.inspect,
            admin: client.admin,
        }),
        metered: client.is_some_and(|client| client.interrupt_rate != 0),
        layout: Layout::new(&[], inputs.kernel.size_of, slots)?,
        block: NO_BLOCK,
        tables: Tables::default(),
        runs,
        mappings,
        grants: Vec::new(),
        first_free: 0,
        first_master: 0,
        given: Given::default(),
    })
}

/// The pages that keep what the writable segment of an image (a program has one) holds at the start; none where it
/// holds nothing but zeros.
fn kept(image: &Image) -> Option<Run> {
    let writable = |segment: &Segment| segment.access == Access::ReadWrite;
    let index = image.segments.iter().position(writable)?;
    let segment = image.segments.get(index)?;
    let filled = Region::sized(segment.region.start(), segment.filled())?;
    Some(Run {
        vaddr: va::KEPT,
        pages: (filled.pages().bytes() / PAGE) as u32,
        access: Access::Read,
        content: Content::Kept(index),
    })
}

/// Device registers and memory of a server, from `va::REGIONS` up. Each begins as far beyond a large page
/// as its physical address does, so that large pages fit.
fn regions(inputs: &Inputs<'_>, device: &DeviceUse, kind: Kind, mappings: &mut Vec<Mapping>) {
    let wants: &[usize] = match kind {
        Kind::Pci(shard) => device
            .ecam
            .get(usize::from(shard))
            .map_or(&[], Vec::as_slice),
        Kind::Iommu(_) => &device.units,
        Kind::Timer => device.timer.as_slice(),
        _ => &[],
    };
    let mut at = va::REGIONS;
    for want in wants {
        let Some(region) = device.wants.get(*want).map(|want| want.region) else {
            continue;
        };
        let vaddr = at + region.start() % LARGE_PAGE;
        mappings.push(Mapping {
            vaddr,
            bytes: region.bytes(),
            frames: Foreign::Device(*want),
        });
        at = (vaddr + region.bytes()).next_multiple_of(LARGE_PAGE);
    }
    if matches!(kind, Kind::Iommu(_)) && !uses_kernel(inputs) {
        let bytes = u64::from(inputs.system.table_pages) * PAGE;
        let unit = if table_block_bits(inputs.system.table_pages) >= 21 {
            LARGE_PAGE
        } else {
            PAGE
        };
        mappings.push(Mapping {
            vaddr: at,
            bytes: bytes.next_multiple_of(unit),
            frames: Foreign::IommuTables,
        });
    }
}

/// Counts a PD's objects and gives them slots.
pub(super) fn lay_out(
    inputs: &Inputs<'_>,
    pd: &mut Pd,
    slots: &mut Slots,
) -> Result<(), PlanError> {
    let mut tables = Tables::default();
    for run in &pd.runs {
        if let Some(range) = Region::sized(run.vaddr, u64::from(run.pages) * PAGE) {
            tables.cover(range, Pages::Small);
        }
    }
    for mapping in &pd.mappings {
        let Some(range) = Region::sized(mapping.vaddr, mapping.bytes) else {
            continue;
        };
        for (part, pages) in by_page_size(range) {
            tables.cover(part, pages);
        }
        if mapping.frames == Foreign::IommuTables
            && table_block_bits(inputs.system.table_pages) < 21
        {
            tables.cover(range, Pages::Small);
        }
    }
    // Room to map frames at run time: clients for what they are granted, pci-server for MSI-X tables.
    if matches!(pd.kind, Kind::Client(_) | Kind::Pci(_)) {
        tables.cover(
            Region::sized(va::SMALL, va::SMALL_BYTES).unwrap_or(NEVER),
            Pages::Small,
        );
    }
    if matches!(pd.kind, Kind::Client(_)) {
        tables.cover(
            Region::sized(va::LARGE, va::LARGE_BYTES).unwrap_or(NEVER),
            Pages::Large,
        );
    }
    let client = pd
        .client()
        .and_then(|id| inputs.system.clients.get(usize::from(id)));
    let frames = pd.runs.iter().map(|run| run.pages).sum();
    let server = u32::from(pd.kind.is_server());
    use objects::Kind as Object;
    let wanted = [
        // A server has no window: its private CNode is all of its CSpace.
        (Part::TopCNode, Object::CNode(1), 1 - server),
        (Part::PrivateCNode, Object::CNode(pd.cnode_bits), 1),
        (
            Part::Window,
            Object::CNode(pd.window_bits.unwrap_or(1)),
            u32::from(pd.window_bits.is_some()),
        ),
        (
            Part::OwnUntyped,
            Object::Untyped(client.map_or(12, |c| c.untyped_bits)),
            u32::from(client.is_some()),
        ),
        (
            Part::Mailboxes,
            Object::CNode(MAILBOX_BITS),
            channels::mailboxes(inputs.system, pd.client()),
        ),
        (Part::Tcb, Object::Tcb, 1),
        (Part::Endpoint, Object::Endpoint, server),
        (Part::Events, Object::Notification, 1),
        (Part::VSpace, Object::VSpace, 1),
        (Part::Pdpts, Object::Pdpt, tables.pdpts.len() as u32),
        (
            Part::Directories,
            Object::PageDirectory,
            tables.directories.len() as u32,
        ),
        (Part::Tables, Object::PageTable, tables.tables.len() as u32),
        (Part::Frames, Object::Frame, frames),
    ];
    pd.tables = tables;
    pd.layout = Layout::new(&wanted, inputs.kernel.size_of, slots)?;
    Ok(())
}

/// A region that is never used: the layout's fixed places are not empty.
const NEVER: Region = match Region::new(va::IMAGE, va::INFO) {
    Some(region) => region,
    None => panic!("the layout has room for images"),
};

/// The parts of a range of addresses that large pages fill, and those at its ends that they do not.
fn by_page_size(range: Region) -> impl Iterator<Item = (Region, Pages)> {
    let first = range.start().next_multiple_of(LARGE_PAGE).min(range.end());
    let last = (range.end() - range.end() % LARGE_PAGE).max(first);
    [
        (Region::new(range.start(), first), Pages::Small),
        (Region::new(first, last), Pages::Large),
        (Region::new(last, range.end()), Pages::Small),
    ]
    .into_iter()
    .filter_map(|(part, pages)| Some((part?, pages)))
}
