//! The tables: every operation of every interface.
//!
//! Units: sizes in bytes unless a name says pages; addresses of devices are
//! [`hw::Sbdf`]; window slots count from the start of the caller's grant
//! window; times in microseconds.

use crate::interface::interface;

interface! {
    /// What a pci-server shard does: devices of its buses, for clients
    /// (`Client`), holders of a device (`Device`) and the root task (`Supervisor`).
    mod pci = 1;

    /// Compares versions; tells the shard's number and its segment and buses.
    [Client] Hello = 1: hello(version: u64) -> HelloReply { version: u64, shard: u16, segment: u16, first_bus: u8, last_bus: u8 }
    /// The `index`-th device of this shard that the description grants the caller. `EndOfList` past the last.
    /// `ids` is device id << 16 | vendor id; `class` is class << 16 | subclass << 8 | interface.
    [Client] DeviceAt = 2: device_at(index: u16) -> DeviceAtReply { device: Sbdf, ids: u32, class: u32, state: DeviceState }
    /// One granted device by address: its state and what an assignment would promise.
    [Client] Query = 3: query(device: Sbdf) -> QueryReply { ids: u32, class: u32, state: DeviceState, properties: Properties }
    /// Takes the device: context attached, device capability placed in window slot `slot`. All or nothing.
    [Client] Assign = 4: assign(device: Sbdf, slot: u16) -> AssignReply { properties: Properties }

    /// Gives the device back. When the reply arrives, no capability, mapping, vector or DMA path to it is left.
    [Device] Release = 16: release() -> ReleaseReply {}
    /// Address, ids and promises of the held device.
    [Device] Info = 17: info() -> InfoReply { device: Sbdf, ids: u32, class: u32, properties: Properties }
    /// Reads configuration space through the register policy.
    [Device] ConfigRead = 18: config_read(offset: u16, width: Width) -> ConfigReadReply { value: u32 }
    /// Writes configuration space through the register policy; refused when no bit of the register may be written.
    [Device] ConfigWrite = 19: config_write(offset: u16, width: Width, value: u32) -> ConfigWriteReply {}
    /// Kind and size of BAR `bar` (0..=5), and its pages of 4 KiB from the first to the last that is withheld (count 0:
    /// none). Some in between may be free: `BarFrames` tells.
    [Device] Bar = 20: bar(bar: u8) -> BarReply { kind: BarKind, bytes: u64, withheld_first: u32, withheld_count: u32 }
    /// Places frames for `count` pages of 4 KiB of a memory BAR from page `first` in window slots `slot`... One request
    /// places at most 256: `placed` says how many.
    [Device] BarFrames = 21: bar_frames(bar: u8, first: u32, count: u16, slot: u16) -> BarFramesReply { placed: u16 }
    /// Lets the device issue memory requests, or stops it.
    [Device] BusMaster = 22: bus_master(switch: Switch) -> BusMasterReply {}
    /// Resets the device; configuration and interrupt set-up are restored. Answered when the device is back.
    [Device] Reset = 23: reset() -> ResetReply { kind: ResetKind }
    /// Enables `count` messages (MSI: from 0; MSI-X: from table entry `first`) and places their interrupt
    /// handlers in window slots `slot`... The caller binds them to its notification.
    [Device] MsiEnable = 24: msi_enable(mechanism: Mechanism, first: u16, count: u16, slot: u16) -> MsiEnableReply { count: u16 }
    /// Disables interrupts and frees the vectors of the device.
    [Device] MsiDisable = 25: msi_disable() -> MsiDisableReply {}
    /// Messages that the device has: MSI count (0: no MSI), MSI-X table entries (0: no MSI-X).
    [Device] MsiInfo = 26: msi_info() -> MsiInfoReply { msi: u16, msix: u16 }

    /// The client's PD is gone: take back every device it holds. Answered at once; the shard signals the
    /// supervisor when `Pending` has fallen to zero.
    [Supervisor] ClientGone = 48: client_gone(client: ClientId) -> ClientGoneReply { devices: u16 }
    /// Revocations that are still under way.
    [Supervisor] Pending = 49: pending() -> PendingReply { count: u16 }
    /// Figures of resources: devices, assignments, capability slots and bytes of device memory in use, operations
    /// served and refused since the start, requests that are parked now.
    [Supervisor] Figures = 50: figures() -> FiguresReply { devices: u32, assigned: u32, slots_used: u32, untyped_used: u64, operations: u64, refused: u64, parked: u64 }
    /// The `index`-th device of the shard with its holder (`holder` = client id + 1, 0 for none) and what it holds:
    /// frames of BARs and messages enabled. `EndOfList` past the last.
    [Supervisor] Holder = 51: holder(index: u32) -> HolderReply { device: Sbdf, ids: u32, class: u32, state: DeviceState, holder: u16, frames: u32, messages: u16 }
    /// Address, size and kind of a BAR of the `index`-th device.
    [Supervisor] HolderBar = 52: holder_bar(index: u32, bar: u8) -> HolderBarReply { kind: BarKind, base: u64, bytes: u64 }
}

interface! {
    /// What an iommu-server shard does: DMA buffers for clients (`Client`,
    /// `Buffer`), contexts for pci-server shards (`Shard`).
    mod iommu = 2;

    /// Compares versions; tells the caller's quota and what of it is used.
    [Client] Hello = 1: hello(version: u64) -> HelloReply { version: u64, quota: u64, used: u64 }
    /// Allocates `bytes` of zeroed DMA memory (a multiple of 4 KiB) and places the buffer capability in window slot `slot`.
    [Client] Alloc = 2: alloc(bytes: u64, pages: PagePreference, slot: u16) -> AllocReply { page_bits: u8, pages: u32 }
    /// The oldest fault record of the caller's devices. `access` is what was tried; `count` the faults since the
    /// last record that could not be kept. `EndOfList` when there is none.
    [Client] FaultNext = 3: fault_next() -> FaultNextReply { device: Sbdf, address: u64, access: Access, reason: u8, lost: u32 }
    /// Makes another client's buffer usable in the caller's context: takes the buffer capability along and places
    /// the caller's own capability for it in window slot `slot`.
    [Client + buffer] Import = 4: import(slot: u16) -> ImportReply { page_bits: u8, pages: u32 }

    /// Places frames of pages `first`... (pages of the buffer's size) in window slots `slot`...
    [Buffer] Frames = 16: frames(first: u32, count: u16, slot: u16) -> FramesReply { placed: u16 }
    /// Maps the whole buffer in the holder's context at `iova`, or where the server chooses (`ANY_IOVA`).
    [Buffer] Map = 17: map(iova: u64, access: Access) -> MapReply { iova: u64 }
    /// Takes the mapping away; when the reply arrives no cached translation is left.
    [Buffer] Unmap = 18: unmap() -> UnmapReply {}
    /// Unmaps, revokes every frame and capability of the buffer, and returns its memory (scrubbed before reuse).
    [Buffer] Free = 19: free() -> FreeReply {}
    /// Size, page size, and address in the context (`ANY_IOVA` when not mapped).
    [Buffer] Info = 20: info() -> InfoReply { bytes: u64, page_bits: u8, iova: u64 }

    /// Moves the device from the blocking context to the client's.
    [Shard] Attach = 32: attach(device: Sbdf, client: ClientId) -> AttachReply { properties: Properties }
    /// Moves the device back to the blocking context; when the reply arrives no DMA of it reaches memory.
    [Shard] Detach = 33: detach(device: Sbdf) -> DetachReply {}
    /// What an attachment of the device would promise.
    [Shard] Promise = 34: promise(device: Sbdf) -> PromiseReply { properties: Properties }

    /// The client's PD is gone and its devices are detached: free its buffers and its context.
    [Supervisor] ClientGone = 48: client_gone(client: ClientId) -> ClientGoneReply { bytes: u64 }
    /// Figures of resources.
    [Supervisor] Figures = 50: figures() -> FiguresReply { pool_bytes: u64, pool_free: u64, tables_used: u32, domains_used: u32, slots_used: u32, buffers: u32, attached: u32, faults: u64, operations: u64, refused: u64 }
    /// The `index`-th attached device. `EndOfList` past the last.
    [Supervisor] AttachedAt = 51: attached_at(index: u16) -> AttachedAtReply { device: Sbdf, client: ClientId, domain: u16 }
}

interface! {
    /// What an msi-server shard does: vectors for pci-server shards (`Shard`).
    mod msi = 3;

    /// Compares versions; tells the caller's quota and what of it is used.
    [Client] Hello = 1: hello(version: u64) -> HelloReply { version: u64, quota: u16, used: u16 }

    /// Takes `count` vectors for a device of a client (a power of two, aligned and consecutive), places their
    /// interrupt handlers in the client's window slots `slot`... The message of vector n is `address`, `data` + n.
    [Shard] Alloc = 32: alloc(device: Sbdf, client: ClientId, count: u16, slot: u16) -> AllocReply { address: u64, data: u32, first: u16 }
    /// Takes every vector of the device back. The device must be quiet: its messages masked or disabled.
    [Shard] Free = 33: free(device: Sbdf) -> FreeReply { count: u16 }

    /// The client's PD is gone: check that no vector is left with it.
    [Supervisor] ClientGone = 48: client_gone(client: ClientId) -> ClientGoneReply { vectors: u16 }
    /// Figures of resources.
    [Supervisor] Figures = 50: figures() -> FiguresReply { vectors: u16, free: u16, slots_used: u32, operations: u64, refused: u64 }
    /// The `index`-th vector in use. `EndOfList` past the last.
    [Supervisor] VectorAt = 51: vector_at(index: u16) -> VectorAtReply { vector: u16, device: Sbdf, client: ClientId, data: u32 }
}

interface! {
    /// What the root task does for every PD, as supervisor.
    mod supervisor = 4;

    /// The PD has done its start-up and serves, or works.
    [Pd] Ready = 1: ready() -> ReadyReply {}
    /// The PD has finished; it is taken down like a dead one. Not answered.
    [Pd] Exit = 2: exit(code: u32) -> ExitReply {}
    /// Stops another PD for a test of death in mid-work (as a fault would): refused unless the description says
    /// `testing = true`.
    [Pd] Kill = 3: kill(pd: u16) -> KillReply {}
    /// Switches another PD's thread off, or on again, for a test that a stalled PD stalls nobody else: refused
    /// unless the description says `testing = true`.
    [Pd] Suspend = 4: suspend(pd: u16, switch: Switch) -> SuspendReply {}
}

interface! {
    /// What the timer service does.
    mod timer = 5;

    /// Signals the caller's event notification after `micros` microseconds (0: never). One at a time a PD;
    /// the newest counts.
    [Pd] Arm = 1: arm(micros: u64) -> ArmReply {}
    /// Microseconds since the service began.
    [Pd] Now = 2: now() -> NowReply { micros: u64 }
}

interface! {
    /// What the console service does besides draining log rings.
    mod console = 6;

    /// Answers when all that the caller has logged is on the serial line.
    [Pd] Flush = 1: flush() -> FlushReply {}
}
