//! The whole plan: every PD with its address space, its CSpace and its
//! information, down to slots. [`Plan::make`] computes it; the binary carries
//! it out object by object, and [`crate::distribution`] judges it.
//!
//! - `build`: the steps from facts to plan.
//! - `channels`: what joins clients.
//! - `grants`: which capabilities each PD gets.
//! - `info`: what each PD is told.
//! - `pages`: what lies on its own pages.
//! - `space`: its address space.

mod build;
mod channels;
mod grants;
mod info;
mod kind;
mod pages;
mod space;
#[cfg(test)]
pub(crate) mod tests;

pub use channels::{Channel, End};
pub use grants::{CONFIG_PORTS, SERIAL_PORTS};
pub use kind::Kind;
pub use pages::{Content, Run};

use alloc::vec::Vec;

use ipc_proto::Badge;
use system::info::{IoSpaceInfo, UntypedPiece};
use system::layout::pd;
use system::model::{Name, System};
use thiserror::Error;

use crate::carve::{CarveError, Cut, Want};
use crate::facts::Machine;
use crate::image::{Image, ImageError};
use crate::memory::{Block, MemoryError};
use crate::objects::{Layout, SizeOf, Tables};
use crate::policy::PolicyError;
use crate::region::{PAGE, Region};
use crate::shards::{Conflict, Shard, ShardError};

/// What the plan is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The description.
    pub system: &'a System,
    /// The programs.
    pub programs: &'a dyn ProgramSource,
    /// Untypeds (slots) that the root task uses for itself.
    pub reserved: &'a [u32],
    /// The kernel's constants.
    pub kernel: Kernel,
}

/// Numbers of the kernel that is built with.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Sizes of its objects.
    pub size_of: SizeOf,
    /// Most objects of one retype.
    pub fan_out: u32,
    /// Fingerprint of its interface.
    pub abi_fingerprint: u64,
    /// CPU vector of interrupt vector 0.
    pub cpu_vector_base: u8,
}

/// Where programs come from.
pub trait ProgramSource {
    /// The ELF file of this name.
    fn find(&self, name: &str) -> Option<&[u8]>;
}

impl ProgramSource for system::bundle::Bundle<'_> {
    fn find(&self, name: &str) -> Option<&[u8]> {
        if name == system::bundle::SYSTEM {
            None
        } else {
            Self::find(self, name)
        }
    }
}

impl crate::policy::Programs for dyn ProgramSource + '_ {
    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PlanError {
    /// The description breaks a rule.
    #[error("{0}")]
    Policy(#[from] PolicyError),
    /// The host bridges cannot be shared out.
    #[error("{0}")]
    Shards(#[from] ShardError),
    /// Device memory cannot be cut so.
    #[error("{0}")]
    Carve(#[from] CarveError),
    /// RAM or slots do not suffice.
    #[error("{0}")]
    Memory(#[from] MemoryError),
    /// A program cannot be loaded.
    #[error("program `{program}`: {error}")]
    Program {
        /// Which.
        program: Name,
        /// Why not.
        error: ImageError,
    },
    /// A list that a server is told has more entries than it holds.
    #[error("{what}: more than {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A PD's private CNode is too small for what it is given.
    #[error("{0}: its CSpace has no room for what it is given")]
    CSpaceFull(Name),
}

/// Frames that are not from the PD's own block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// The log ring of a PD.
    Ring(u16),
    /// Device memory: what a want was given.
    Device(usize),
    /// The memory for IOMMU tables.
    IommuTables,
}

/// A mapping of frames that are not the PD's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Where.
    pub vaddr: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Which frames.
    pub frames: Foreign,
}

/// A capability that a PD is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cap {
    /// Its own private CNode.
    OwnCNode,
    /// Its own address space.
    OwnVSpace,
    /// Its own event notification, to wait on and to make badged copies of.
    OwnEvents,
    /// The endpoint that it serves, to receive from.
    OwnEndpoint,
    /// Its own thread, to send it to another core.
    OwnThread,
    /// Its own grant window.
    OwnWindow,
    /// Memory for its own kernel objects.
    OwnUntyped,
    /// The right to call another PD's endpoint (PD number 0: the root task's).
    Call {
        /// Whose endpoint.
        of: u16,
        /// Its badge.
        badge: Badge,
    },
    /// The right to signal another PD's event notification.
    Signal {
        /// Whose.
        of: u16,
        /// Event flags in its badge.
        flags: u64,
    },
    /// The right to wake the medic: to kill a server for a test.
    Alarm,
    /// A client's grant window.
    Window {
        /// Whose.
        of: u16,
    },
    /// A client's event notification without a badge, to signal: what its metered interrupts signal is made from it.
    Notification {
        /// Whose.
        of: u16,
    },
    /// The mailbox of a channel: a number in [`Plan::channels`].
    Mailbox(usize),
    /// Untyped memory.
    Untyped {
        /// Slot of the root task's capability for it.
        slot: u32,
        /// Its addresses.
        region: Region,
    },
    /// The one handler of messages with this kernel vector, made for this PD: all others are copies of it.
    Vector(u16),
    /// The one handler of an I/O APIC line: a number in [`Plan::lines`].
    Line(usize),
    /// The kernel's I/O spaces: whoever has it can let any device reach any frame that it has.
    IoSpace,
    /// One interrupt: a number in [`Plan::irqs`].
    Irq(usize),
    /// A range of I/O ports.
    Ports {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
}

/// A capability and the slot of the PD's private CNode where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Slot.
    pub slot: u32,
    /// Capability.
    pub cap: Cap,
}

/// Where an interrupt comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IrqSource {
    /// A pin of the IOAPIC: edge-triggered, active high.
    Pin(u8),
    /// A message, of a device that is no PCI function.
    Message,
}

/// Who binds an interrupt to its PD's event notification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// The PD itself, when it starts.
    Own,
    /// The root task, before the PD starts.
    Root,
}

/// An interrupt that the root task sets up for a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Irq {
    /// Its kernel vector.
    pub vector: u8,
    /// What raises it.
    pub source: IrqSource,
    /// PD whose event notification it signals.
    pub pd: u16,
    /// Event flags of the signal.
    pub flags: u64,
    /// Who binds it to the notification.
    pub binding: Binding,
    /// Slot of the root CNode for its handler.
    pub slot: u32,
}

/// A protection domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pd {
    /// Its number, also its index in [`Plan::pds`] plus 1: the root task is number 0.
    pub number: u16,
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Its program, by number in [`Plan::programs`].
    pub program: usize,
    /// Priority.
    pub priority: u8,
    /// Core.
    pub core: u8,
    /// Slots of its private CNode: 2^bits.
    pub cnode_bits: u8,
    /// Slots of its grant window: 2^bits (clients).
    pub window_bits: Option<u8>,
    /// What it may do beyond its devices (clients); none for servers.
    pub privileges: Privileges,
    /// Are its interrupts counted and passed on by the msi-server (clients)?
    pub metered: bool,
    /// Its kernel objects.
    pub layout: Layout,
    /// The memory they are made of.
    pub block: Block,
    /// Its page tables.
    pub tables: Tables,
    /// Its own pages, in the order of its frames.
    pub runs: Vec<Run>,
    /// Other frames mapped into it.
    pub mappings: Vec<Mapping>,
    /// Its capabilities, ascending by slot.
    pub grants: Vec<Grant>,
    /// First private slot that is empty.
    pub first_free: u32,
    /// Slot of the root CNode for the first of its masters (clients): [`Pd::masters`].
    pub first_master: u32,
    /// Where the grants are whose slots its information tells.
    pub given: Given,
}

/// Slots that only some PDs have, and that their information tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Given {
    /// Servers: (window, event signal, notification) of each client, by client id.
    pub clients: Vec<(u32, u32, u32)>,
    /// pci-server: device untypeds; iommu-server: the pool. Ascending by address.
    pub untypeds: Vec<UntypedPiece>,
    /// iommu-server: handler of each unit's interrupt.
    pub irqs: Vec<u32>,
    /// iommu-server: the kernel's I/O spaces and the memory for their tables.
    pub io_space: Option<IoSpaceInfo>,
    /// pci-server: signal to the supervisor.
    pub done: u32,
    /// Timer service: signal of each PD, by PD number; 0 for none.
    pub signals: Vec<u32>,
    /// msi-server: handler of its first vector; those of the others follow.
    pub handlers: u32,
    /// The same of its lines, by number in [`Plan::lines`].
    pub line_handlers: Vec<u32>,
    /// Clients: pci-server shards that it may call.
    pub shards: Vec<u8>,
    /// Clients: mailbox and signal of each of its ends of channels, with the channel's number.
    pub channels: Vec<(usize, u32, u32)>,
    /// Clients: may it call the iommu-server?
    pub iommu: bool,
    /// iommu-server, msi-server: signal to each pci-server shard.
    pub shard_signals: Vec<u32>,
    /// pci-server: I/O ports of configuration space; 0 for none.
    pub config_ports: u32,
    /// pci-server: handler of its ports' interrupt, and which interrupt of the plan it is.
    pub port_interrupt: Option<(u32, usize)>,
}

/// What the description allows a client beyond its devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Privileges {
    /// It may look at every server.
    pub inspect: bool,
    /// It may administer the platform.
    pub admin: bool,
}

impl Pd {
    /// One past the highest slot of its private CNode.
    #[must_use]
    pub const fn slots_end(&self) -> u32 {
        1 << self.cnode_bits
    }

    /// The page below its stack, which is never mapped.
    #[must_use]
    pub fn stack_guard(&self) -> Option<Region> {
        let stack = self.runs.iter().find(|run| run.content == Content::Zero)?;
        Region::sized(stack.vaddr.checked_sub(PAGE)?, PAGE)
    }

    /// Its client id, if it is a client.
    #[must_use]
    pub const fn client(&self) -> Option<u16> {
        match self.kind {
            Kind::Client(id) => Some(id),
            _ => None,
        }
    }
}

/// The frames of all log rings, by PD number; four to a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rings {
    /// The memory.
    pub block: Block,
    /// PDs with a ring, the root task included.
    pub count: u32,
    /// Slot of the first frame: mapped by the ring's writer.
    pub frames: u32,
    /// Slot of the first copy: mapped by the console.
    pub copies: u32,
}

/// The memory for IOMMU tables: frames in order, side by side; none where the kernel makes tables of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableMemory {
    /// The memory.
    pub block: Block,
    /// Slot of the first frame.
    pub slot: u32,
    /// How many frames.
    pub frames: u32,
    /// Bytes of each, log2: 12 or 21.
    pub frame_bits: u8,
}

/// Everything that the root task will make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Retypes of RAM, in order.
    pub ram_cuts: Vec<Cut>,
    /// Retypes of device memory, in order.
    pub device_cuts: Vec<Cut>,
    /// What device memory is wanted for.
    pub wants: Vec<Want>,
    /// The log rings.
    pub rings: Rings,
    /// The IOMMU's table memory.
    pub iommu_tables: TableMemory,
    /// The DMA pool, ascending.
    pub pool: Vec<Block>,
    /// Interrupts of servers.
    pub irqs: Vec<Irq>,
    /// Interrupt lines that devices can be wired to, each with its kernel vector.
    pub lines: Vec<(u8, u16)>,
    /// Programs by name, checked.
    pub programs: Vec<(Name, Image)>,
    /// The PDs in the order in which they start.
    pub pds: Vec<Pd>,
    /// The channels between clients.
    pub channels: Vec<Channel>,
    /// The pci-server shards.
    pub shards: Vec<Shard>,
    /// Pages that no shard gets.
    pub conflicts: Vec<Conflict>,
    /// First slot of the root CNode that is still empty, and one past the last.
    pub slots_left: (u32, u32),
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// The first thing that does not work out.
    pub fn make(inputs: &Inputs<'_>) -> Result<Self, PlanError> {
        build::build(inputs)
    }

    /// The PD with this number; `None` for the root task's and numbers that no PD has.
    #[must_use]
    pub fn pd(&self, number: u16) -> Option<&Pd> {
        self.pds.get(usize::from(number.checked_sub(pd::ROOT + 1)?))
    }

    /// The PDs of a kind.
    pub fn of(&self, is: impl Fn(Kind) -> bool) -> impl Iterator<Item = &Pd> {
        self.pds.iter().filter(move |pd| is(pd.kind))
    }

    /// The PD of client `id`.
    #[must_use]
    pub fn client(&self, id: u16) -> Option<&Pd> {
        self.of(move |kind| kind == Kind::Client(id)).next()
    }

    /// The image of a PD.
    #[must_use]
    pub fn image(&self, pd: &Pd) -> Option<&Image> {
        self.programs.get(pd.program).map(|(_, image)| image)
    }
}
