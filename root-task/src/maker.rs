//! Carrying out the plan: [`Maker`] makes every object, fills every address
//! space and CSpace, and starts threads. It decides nothing.

mod cspace;

use alloc::format;
use alloc::string::String;
use alloc::vec;

use ipc_proto::Badge;
use root_core::carve::pieces_of;
use root_core::image::Access;
use root_core::objects::{Kind as Object, Part};
use root_core::plan::{Binding, Cap, Content, Foreign, Inputs, Irq, IrqSource, Pd, Plan, Run};
use root_core::region::PAGE;
use sel4::bootinfo::slot as boot_slot;
use sel4::irq::{Polarity, Trigger, Vector};
use sel4::tcb::Then;
use sel4::{
    AsidPool, CNode, Caching, CapData, Endpoint, Error, Frame, FrameSize, IrqControl, IrqHandler,
    Notification, ObjectType, PageDirectory, PageTable, Pdpt, Rights, Tcb, TcbConfiguration,
    VSpace,
};
use sel4_glue::root::{SHOWN_PAGES, Space};
use system::layout::{INDEX_BITS, slot, va};

use crate::cutting::{cut, frame_size, make};
use crate::medic;
use crate::stock::{Stock, own};

pub use cspace::mint;

/// Pages of a log ring.
pub const RING_PAGES: u32 = (ipc_proto::log::RING_BYTES / 4096) as u32;

/// What the root task has that PDs get parts of.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// The supervisor's endpoint.
    pub endpoint: Endpoint,
    /// The medic's: where server shards go with what others go to the supervisor with.
    pub medic: Endpoint,
    /// The medic's notification.
    pub alarm: Notification,
    /// The supervisor's notification.
    pub events: Notification,
    /// Slot of the serial line's ports.
    pub serial: u32,
    /// Slot of the ports of configuration space, where it is reached through them.
    pub config_ports: Option<u32>,
}

/// Makes what the plan says.
#[derive(Debug)]
pub struct Maker<'a> {
    plan: &'a Plan,
    own: Own,
}

/// The kernel's object of a kind.
pub const fn object(kind: Object) -> ObjectType {
    match kind {
        Object::Untyped(bits) => ObjectType::Untyped(bits),
        Object::CNode(bits) => ObjectType::CNode(bits),
        Object::Tcb => ObjectType::Tcb,
        Object::Endpoint => ObjectType::Endpoint,
        Object::Notification => ObjectType::Notification,
        Object::VSpace => ObjectType::VSpace,
        Object::Pdpt => ObjectType::Pdpt,
        Object::PageDirectory => ObjectType::PageDirectory,
        Object::PageTable => ObjectType::PageTable,
        Object::Frame => ObjectType::Frame(FrameSize::Small),
    }
}

/// Adds what was being done to a kernel error.
fn doing<T>(result: sel4::Result<T>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

impl<'a> Maker<'a> {
    /// A maker of this plan.
    pub const fn new(plan: &'a Plan, own: Own) -> Self {
        Self { plan, own }
    }

    /// The plan.
    pub const fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// Cuts memory, makes what PDs share, and the objects of all servers.
    pub fn begin(&self) -> Result<(), String> {
        cut(&self.plan.device_cuts).map_err(|error| format!("cutting device memory: {error}"))?;
        cut(&self.plan.ram_cuts).map_err(|error| format!("cutting RAM: {error}"))?;
        let rings = self.plan.rings;
        let pages = rings.count * RING_PAGES;
        let frame = ObjectType::Frame(FrameSize::Small);
        doing(
            make(rings.block.slot.into(), frame, rings.frames, pages),
            "log rings",
        )?;
        for page in 0..pages {
            let copy =
                own(rings.copies + page).copy_from(own(rings.frames + page), Rights::READ_WRITE);
            doing(copy, "log rings for the console")?;
        }
        let tables = self.plan.iommu_tables;
        let size = if tables.frame_bits == FrameSize::Large.bits() {
            FrameSize::Large
        } else {
            FrameSize::Small
        };
        if tables.frames > 0 {
            let made = make(
                tables.block.slot.into(),
                ObjectType::Frame(size),
                tables.slot,
                tables.frames,
            );
            doing(made, "memory for IOMMU tables")?;
        }
        for server in self.plan.of(|kind| kind.is_server()) {
            self.objects(server)?;
        }
        self.interrupts()
    }

    /// Makes a PD's kernel objects from its block.
    fn objects(&self, pd: &Pd) -> Result<(), String> {
        for run in &pd.layout.runs {
            let made = make(pd.block.slot.into(), object(run.kind), run.slot, run.count);
            made.map_err(|error| format!("{}: {:?}: {error}", pd.name, run.part))?;
        }
        Ok(())
    }

    /// Sets up the interrupts of servers; each signals its PD's notification.
    fn interrupts(&self) -> Result<(), String> {
        let control = IrqControl::at(boot_slot::IRQ_CONTROL);
        for irq in &self.plan.irqs {
            let vector = Vector::new(irq.vector)
                .ok_or("an interrupt vector that the kernel does not have")?;
            let made = match irq.source {
                IrqSource::Pin(pin) => control.get_ioapic(
                    own(irq.slot),
                    (0, pin.into()),
                    Trigger::Edge,
                    Polarity::ActiveHigh,
                    vector,
                ),
                IrqSource::Message => control.get_msi(own(irq.slot), cspace::NO_DEVICE, vector),
            };
            doing(made, "interrupt of a server")?;
            if irq.binding == Binding::Root {
                self.bind(irq)?;
            }
        }
        Ok(())
    }

    /// Has an interrupt signal its PD's event notification.
    fn bind(&self, irq: &Irq) -> Result<(), String> {
        let pd = self.plan.pd(irq.pd).ok_or("no such PD")?;
        let events = self.slot_of(pd, Part::Events)?;
        let badge = Badge::from_word(Badge::event(irq.flags)).ok_or("flags that no badge holds")?;
        let (spare, _) = self.plan.slots_left;
        let signal = mint(own(spare), events.into(), Rights::WRITE, badge);
        doing(signal, "badged notification")?;
        let handler = IrqHandler::at(irq.slot.into());
        let bound = handler.set_notification(Notification::at(spare.into()));
        // The kernel keeps a capability of its own.
        doing(own(spare).delete(), "badged notification")?;
        doing(bound, "interrupt of a server")
    }

    /// Makes a client's objects and gives servers what they have of it.
    pub fn client_objects(&self, pd: &Pd) -> Result<(), String> {
        self.objects(pd)?;
        for server in self.plan.of(|kind| kind.is_server()) {
            for grant in &server.grants {
                let of = match grant.cap {
                    Cap::Window { of } | Cap::Signal { of, .. } | Cap::Notification { of } => of,
                    _ => continue,
                };
                if of == pd.number {
                    self.give(server, grant)?;
                }
            }
        }
        Ok(())
    }

    /// Fills a PD's address space and CSpace, and sets up its thread, which does not run yet.
    pub fn furnish(
        &self,
        pd: &Pd,
        inputs: &Inputs<'_>,
        space: &mut Space<Stock>,
    ) -> Result<(), String> {
        self.address_space(pd, inputs, space)
            .map_err(|error| format!("{}: {error}", pd.name))?;
        self.cspace(pd)?;
        self.thread(pd)
            .map_err(|error| format!("{}: {error}", pd.name))
    }

    /// Lets a PD's thread run.
    pub fn start(&self, pd: &Pd) -> Result<(), String> {
        doing(self.tcb(pd)?.resume(), "start")
    }

    /// A PD's thread.
    pub fn tcb(&self, pd: &Pd) -> Result<Tcb, String> {
        self.slot_of(pd, Part::Tcb).map(|slot| Tcb::at(slot.into()))
    }

    fn slot_of(&self, pd: &Pd, part: Part) -> Result<u32, String> {
        pd.layout
            .slot(part)
            .ok_or_else(|| format!("{}: the plan has no {part:?}", pd.name))
    }

    fn address_space(
        &self,
        pd: &Pd,
        inputs: &Inputs<'_>,
        space: &mut Space<Stock>,
    ) -> Result<(), String> {
        let vspace = VSpace::at(self.slot_of(pd, Part::VSpace)?.into());
        doing(
            AsidPool::at(boot_slot::ASID_POOL).assign(vspace),
            "address space identifier",
        )?;
        let first = |part| pd.layout.slot(part).unwrap_or(0);
        for (slot, address) in (first(Part::Pdpts)..).zip(&pd.tables.pdpts) {
            doing(
                Pdpt::at(slot.into()).map(vspace, *address),
                "page directory pointer table",
            )?;
        }
        for (slot, address) in (first(Part::Directories)..).zip(&pd.tables.directories) {
            doing(
                PageDirectory::at(slot.into()).map(vspace, *address),
                "page directory",
            )?;
        }
        for (slot, address) in (first(Part::Tables)..).zip(&pd.tables.tables) {
            doing(
                PageTable::at(slot.into()).map(vspace, *address),
                "page table",
            )?;
        }
        let mut frame = self.slot_of(pd, Part::Frames)?;
        for run in &pd.runs {
            self.fill(pd, run, frame, inputs, space)?;
            let rights = match run.access {
                Access::Read | Access::ReadExecute => Rights::READ,
                Access::ReadWrite => Rights::READ_WRITE,
            };
            for page in 0..run.pages {
                let address = run.vaddr + u64::from(page) * PAGE;
                let mapped = Frame::at(u64::from(frame + page)).map(
                    vspace,
                    address,
                    rights,
                    Caching::WriteBack,
                );
                mapped.map_err(|error| format!("page at {address:#x}: {error}"))?;
            }
            frame += run.pages;
        }
        self.foreign(pd, vspace)
    }

    /// Writes what a run of pages holds at the start. New frames are zeros.
    fn fill(
        &self,
        pd: &Pd,
        run: &Run,
        first: u32,
        inputs: &Inputs<'_>,
        space: &mut Space<Stock>,
    ) -> Result<(), String> {
        match run.content {
            Content::Zero | Content::IpcBuffer | Content::Ledger => Ok(()),
            Content::Info => {
                let info = self
                    .plan
                    .info(inputs, pd)
                    .map_err(|error| format!("{error}"))?;
                let bytes = (u64::from(run.pages) * PAGE) as usize;
                let mut page = vec![0; bytes];
                let (length, rest) = page
                    .split_first_chunk_mut::<4>()
                    .ok_or("no room for information")?;
                let written = postcard::to_slice(&*info, rest)
                    .map_err(|error| format!("information: {error}"))?;
                *length = (written.len() as u32).to_le_bytes();
                doing(
                    space.show(first.into(), run.pages, |to| to.copy_from_slice(&page)),
                    "information",
                )
            }
            Content::Segment(number) | Content::Kept(number) => {
                let image = self.plan.image(pd).ok_or("no image")?;
                let segment = image.segments.get(number).ok_or("no segment")?;
                let name = self
                    .plan
                    .programs
                    .get(pd.program)
                    .map_or("", |(name, _)| name.as_str());
                let file = inputs.programs.find(name).ok_or("no program")?;
                // What is kept lies elsewhere than what it is kept of.
                let origin = segment.region.pages().start();
                let filled = (0..run.pages)
                    .take_while(|page| segment.on_page(origin + u64::from(*page) * PAGE).is_some());
                let filled = filled.count() as u32;
                let mut done = 0;
                while done < filled {
                    let some = (filled - done).min(SHOWN_PAGES);
                    let shown = space.show(u64::from(first + done), some, |to| {
                        for (page, to) in
                            (u64::from(done)..).zip(to.chunks_exact_mut(PAGE as usize))
                        {
                            copy_page(segment, origin + page * PAGE, file, to);
                        }
                    });
                    doing(shown, "image")?;
                    done += some;
                }
                Ok(())
            }
        }
    }

    /// Maps frames that are not from the PD's own block.
    fn foreign(&self, pd: &Pd, vspace: VSpace) -> Result<(), String> {
        let map = |slot: u32, address: u64, caching| {
            let mapped = Frame::at(slot.into()).map(vspace, address, Rights::READ_WRITE, caching);
            mapped.map_err(|error| format!("frame at {address:#x}: {error}"))
        };
        for mapping in &pd.mappings {
            match mapping.frames {
                Foreign::Ring(of) => {
                    let rings = self.plan.rings;
                    // At its own fixed place the writer's frame, elsewhere the copy.
                    let frames = if mapping.vaddr == va::LOG_RING {
                        rings.frames
                    } else {
                        rings.copies
                    };
                    for page in 0..RING_PAGES {
                        let slot = frames + u32::from(of) * RING_PAGES + page;
                        map(
                            slot,
                            mapping.vaddr + u64::from(page) * PAGE,
                            Caching::WriteBack,
                        )?;
                    }
                }
                Foreign::Device(want) => {
                    let mut address = mapping.vaddr;
                    for (slot, _, piece) in pieces_of(&self.plan.device_cuts, want) {
                        let size =
                            frame_size(piece).ok_or("an untyped where a frame was planned")?;
                        map(slot, address, Caching::Uncacheable)?;
                        address += size.bytes();
                    }
                }
                Foreign::IommuTables => {
                    let tables = self.plan.iommu_tables;
                    for frame in 0..tables.frames {
                        let address = mapping.vaddr + (u64::from(frame) << tables.frame_bits);
                        map(tables.slot + frame, address, Caching::WriteBack)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn thread(&self, pd: &Pd) -> Result<(), String> {
        let tcb = self.tcb(pd)?;
        let frames = self.slot_of(pd, Part::Frames)?;
        let before = pd
            .runs
            .iter()
            .take_while(|run| run.content != Content::IpcBuffer)
            .map(|run| run.pages);
        let buffer = Frame::at(u64::from(frames + before.sum::<u32>()));
        let image = self.plan.image(pd).ok_or("no image")?;
        let (cspace, cspace_data) = match pd.layout.slot(Part::TopCNode) {
            // Addresses are `entry << INDEX_BITS | index`: one bit picks the entry.
            Some(top) => (top, CapData::guard((u64::BITS - INDEX_BITS - 1) as u8)),
            // The kernel finds a capability in one step.
            None => (
                self.slot_of(pd, Part::PrivateCNode)?,
                CapData::cspace_root(pd.cnode_bits),
            ),
        };
        let configured = tcb.configure(&TcbConfiguration {
            fault_endpoint: slot::FAULT,
            cspace: CNode::at(cspace.into()),
            cspace_data,
            vspace: VSpace::at(self.slot_of(pd, Part::VSpace)?.into()),
            ipc_buffer: Some((va::IPC_BUFFER, buffer)),
            authority: Tcb::at(boot_slot::TCB),
            priority: pd.priority,
            max_controlled_priority: pd.priority,
        });
        doing(configured, "thread")?;
        if pd.kind.is_server() {
            let events = Notification::at(self.slot_of(pd, Part::Events)?.into());
            doing(tcb.bind_notification(events), "event notification")?;
        }
        doing(tcb.set_affinity(pd.core.into()), "core")?;
        let registers = medic::first_registers(image, 0);
        doing(tcb.write_registers(&registers, Then::Leave), "registers")
    }

    /// Takes back every copy of what a client was given, wherever it passed one on.
    pub fn disown(&self, pd: &Pd) -> Result<(), String> {
        for (master, _) in pd.masters() {
            doing(own(master).revoke(), "copies of a master")?;
            doing(own(master).delete(), "master")?;
        }
        Ok(())
    }
}

/// How many slots of a PD's objects hold a capability, found out by trying to copy it to `spare`, which is empty.
pub fn occupied(pd: &Pd, spare: u32) -> u32 {
    let slots = pd
        .layout
        .runs
        .iter()
        .flat_map(|run| run.slot..run.slot + run.count)
        .chain(pd.masters().map(|(master, _)| master));
    let held = slots.filter(|slot| {
        let copied = own(spare).copy_from(own(*slot), Rights::ALL);
        if copied.is_ok() {
            // It was filled a moment ago.
            let _ = own(spare).delete();
        }
        // An empty source is not found; any other refusal is about something that is there.
        copied != Err(Error::FailedLookup)
    });
    held.count() as u32
}

/// Copies what a file has for one page.
fn copy_page(segment: &root_core::image::Segment, page: u64, file: &[u8], to: &mut [u8]) {
    if let Some((at, range)) = segment.on_page(page)
        && let Some(from) = file.get(range)
        && let Some(to) = to.get_mut(at..).and_then(|to| to.get_mut(..from.len()))
    {
        to.copy_from_slice(from);
    }
}
