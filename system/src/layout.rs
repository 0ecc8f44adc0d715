//! [`layout`](self): where things are in every PD's address space and
//! capability space. The root task builds it, the runtime and the client
//! library rely on it; both read it from here.
//!
//! **Capability space.** A client has a top CNode of two entries: entry 0 is
//! its private CNode, entry 1 its grant window. Addresses are
//! `entry << 16 | index`, so a private slot's address is its number and a
//! window slot's is [`window`]`(number)`. A server has its private CNode alone, which
//! spares the kernel a step at each of its calls; a slot's address is its number there, too.
//!
//! **Address space.** Fixed places; nothing else is mapped. The page below
//! the stack is never mapped.

/// Bits of an index below the top CNode.
pub const INDEX_BITS: u32 = 16;

/// Address of grant-window slot `slot` in the client's own CSpace.
#[must_use]
pub const fn window(slot: u16) -> u64 {
    1 << INDEX_BITS | slot as u64
}

/// Private slots that have the same meaning in every PD.
pub mod slot {
    /// The PD's own private CNode.
    pub const CNODE: u64 = 1;
    /// The PD's own VSpace.
    pub const VSPACE: u64 = 2;
    /// The supervisor's endpoint (badge kind `Pd`).
    pub const SUPERVISOR: u64 = 3;
    /// Notification that tells the console service about new text in the log ring.
    pub const LOG: u64 = 4;
    /// The console service's endpoint (badge kind `Pd`).
    pub const CONSOLE: u64 = 5;
    /// The timer service's endpoint (badge kind `Pd`).
    pub const TIMER: u64 = 6;
    /// The PD's own event notification, without a badge and with all rights: to wait on, and to mint signals
    /// from. Bound to the thread in servers.
    pub const EVENTS: u64 = 7;
    /// Servers: the endpoint they serve, unbadged, all rights.
    pub const ENDPOINT: u64 = 8;
    /// Servers: where a capability that comes along is received. Always empty between requests.
    pub const RECEIVE: u64 = 9;
    /// Clients: untyped memory for their own kernel objects (size in `ClientInfo`).
    pub const UNTYPED: u64 = 10;
    /// Clients: their grant window's CNode.
    pub const WINDOW: u64 = 11;
    /// Servers: the interrupt control capability (msi-server), or interrupt handler (timer, iommu-server).
    pub const IRQ: u64 = 12;
    /// Console and root: I/O ports of the serial line.
    pub const SERIAL: u64 = 13;
    /// Where the kernel sends the PD's faults (badge kind `Fault`): the kernel looks a fault endpoint up in the
    /// faulting thread's own CSpace. A PD that empties the slot only loses the report of its own death.
    pub const FAULT: u64 = 14;
    /// msi-server shards: their own thread, to go to another core and see that it has taken all messages.
    pub const THREAD: u64 = 15;
    /// Clients: pci-server shard n's endpoint is `PCI + n` (badge kind `Client`).
    pub const PCI: u64 = 16;
    /// Clients and pci-server shards: iommu-server shard n's endpoint is `IOMMU + n`.
    pub const IOMMU: u64 = 32;
    /// Clients and pci-server shards: msi-server shard n's endpoint is `MSI + n`.
    pub const MSI: u64 = 48;
    /// Clients that may look: pci-server shard n's endpoint is `INSPECT_PCI + n` (badge kind `Inspect`).
    pub const INSPECT_PCI: u64 = 64;
    /// Clients that may look: iommu-server shard n's endpoint is `INSPECT_IOMMU + n`.
    pub const INSPECT_IOMMU: u64 = 80;
    /// Clients that may look: msi-server shard n's endpoint is `INSPECT_MSI + n`.
    pub const INSPECT_MSI: u64 = 96;
    /// Clients that administer: pci-server shard n's endpoint is `ADMIN_PCI + n` (badge kind `Admin`).
    pub const ADMIN_PCI: u64 = 112;
    /// First slot whose meaning the PD's information says.
    pub const FIRST_GIVEN: u64 = 128;
}

/// Slots of a channel's mailbox: 2^this. The end with side 0 posts in the lower half, the other in the upper.
pub const MAILBOX_BITS: u8 = 4;

/// The core of the services, and of iommu-server and msi-server shards.
pub const SERVER_CORE: u8 = 0;

/// Most shards of one kind.
pub const MAX_SHARDS: usize = 16;

/// Pages of 4 KiB of a server shard's ledger at [`va::LEDGER`].
pub mod ledger_pages {
    /// pci-server: two words and more of each function, and whatever of each assignment.
    pub const PCI: u32 = 192;
    /// iommu-server: buffers, contexts, and what the pool was split into.
    pub const IOMMU: u32 = 192;
    /// msi-server: blocks of vectors and lines.
    pub const MSI: u32 = 8;
}

/// PD numbers that are fixed; the others follow: iommu, msi and pci shards, then the clients.
pub mod pd {
    /// The root task: it has a log ring like every PD, and serves the supervisor's endpoint.
    pub const ROOT: u16 = 0;
    /// The console service.
    pub const CONSOLE: u16 = 1;
    /// The timer service.
    pub const TIMER: u16 = 2;
}
/// Most PDs, the root task included.
pub const MAX_PDS: usize = 64;

/// Virtual addresses.
pub mod va {
    /// The program's image begins here.
    pub const IMAGE: u64 = 0x40_0000;
    /// The PD's information (read-only), see [`crate::info::PdInfo`].
    pub const INFO: u64 = 0x1000_0000;
    /// Bytes of the information region, all of them mapped.
    pub const INFO_BYTES: u64 = 0x4000;
    /// The IPC buffer.
    pub const IPC_BUFFER: u64 = 0x1010_0000;
    /// The log ring.
    pub const LOG_RING: u64 = 0x1020_0000;
    /// One past the stack's last byte.
    pub const STACK_TOP: u64 = 0x2000_0000;
    /// Server shards: their ledger ([`super::ledger_pages`]), which is kept when the server is restarted.
    pub const LEDGER: u64 = 0x2800_0000;
    /// Server shards: what their image's writable segment held at the start (read-only), for a restart.
    pub const KEPT: u64 = 0x2c00_0000;
    /// Console service: the ring of PD n is at `RINGS + n * ipc_proto::log::RING_BYTES`.
    pub const RINGS: u64 = 0x3000_0000;
    /// Servers: device registers and memory that the information lists, from here up.
    pub const REGIONS: u64 = 0x4000_0000;
    /// Clients: where 4 KiB frames can be mapped; page tables are in place for [`SMALL_BYTES`].
    pub const SMALL: u64 = 0x10_0000_0000;
    /// Bytes of it.
    pub const SMALL_BYTES: u64 = 64 << 20;
    /// Clients: where 2 MiB frames can be mapped (1 GiB, page directory in place).
    pub const LARGE: u64 = 0x20_0000_0000;
    /// Bytes of it.
    pub const LARGE_BYTES: u64 = 1 << 30;
}

/// Flags of signals on a server's or client's event notification
/// (`ipc_proto::Badge::event`; the kernel ORs several together).
pub mod event {
    /// The timer that the PD armed has run out.
    pub const TIMER: u64 = 1 << 0;
    /// Console: a log ring has new text. iommu-server: the unit's fault interrupt (unit n: `INTERRUPT << n`, n < 8).
    /// pci-server: a port reports hot-plug or an error.
    pub const INTERRUPT: u64 = 1 << 1;
    /// Client: the other end of its channel n has signalled (`CHANNEL << n`, n < 8).
    pub const CHANNEL: u64 = 1 << 2;
    /// pci-server: an iommu-server has trouble with a device of the shard (`TroubleNext`).
    pub const TROUBLE: u64 = 1 << 10;
    /// pci-server: an msi-server wants the interrupt line of a device switched off (`LineTrouble`), or a message of one
    /// (`MessageTrouble`).
    pub const LINE_TROUBLE: u64 = 1 << 11;
    /// msi-server: a vector that nobody is bound to was raised.
    pub const ABSORBED: u64 = 1 << 1;
    /// msi-server: line n of its list was raised (`LINES << n`, n < 16).
    pub const LINES: u64 = 1 << 2;
    /// Flags that an msi-server has for its lines and, behind them ([`metered`]), for metered vectors: an event has 24.
    pub const MSI_FLAGS: usize = 22;
    /// msi-server: the n-th metered vector was raised (`metered(lines) << n`, where it has so many lines).
    #[must_use]
    pub const fn metered(lines: usize) -> u64 {
        LINES << if lines < MSI_FLAGS { lines } else { MSI_FLAGS }
    }
    /// Client: an iommu-server has a fault record for it.
    pub const FAULT: u64 = 1 << 12;
    /// Client: a pci-server has news about a device (`EventNext`).
    pub const DEVICE: u64 = 1 << 13;
    /// Supervisor: its second thread, which restarts servers, has something to tell.
    pub const MEDIC: u64 = 1 << 0;
    /// Supervisor: its third thread has taken a client's memory back.
    pub const RECLAIMED: u64 = 1 << 1;
    /// Supervisor: pci-server shard n finished a revocation that it owed (`SHARD_DONE << n`, n < 8 modulo).
    pub const SHARD_DONE: u64 = 1 << 14;
    /// Client: an interrupt line that a device of it raises was raised (`LineAck`).
    pub const LINE: u64 = 1 << 15;
    /// First flag that a client may use for itself, e.g. for its interrupts.
    pub const OWN: u64 = 1 << 16;
}

/// Priorities that are fixed; clients' come from the description, at most [`priority::CLIENT_MAX`].
pub mod priority {
    /// The supervisor's second thread, which restarts servers.
    pub const MEDIC: u8 = 255;
    /// Supervisor.
    pub const ROOT: u8 = 254;
    /// Timer service.
    pub const TIMER: u8 = 250;
    /// msi-server shards.
    pub const MSI: u8 = 240;
    /// iommu-server shards.
    pub const IOMMU: u8 = 230;
    /// pci-server shards.
    pub const PCI: u8 = 220;
    /// Console service.
    pub const CONSOLE: u8 = 200;
    /// Highest that a client may have.
    pub const CLIENT_MAX: u8 = 180;
    /// A client's when the description says nothing.
    pub const CLIENT_DEFAULT: u8 = 100;
}
