//! The tables: every operation of every interface.
//!
//! Units: sizes in bytes unless a name says pages; addresses of devices are
//! [`hw::Sbdf`]; window slots count from the start of the caller's grant
//! window; times in microseconds.

use crate::interface::interface;

interface! {
    /// What a pci-server shard does: devices of its buses, for clients
    /// (`Client`), holders of a device (`Device`), the root task (`Supervisor`), and clients that may look at
    /// everything (`Inspect`) or administer the platform (`Admin`).
    mod pci = 1;

    /// Compares versions; tells the shard's number and its segment and buses.
    [Client] Hello = 1: hello(version: u64) -> HelloReply { version: u64, shard: u16, segment: u16, first_bus: u8, last_bus: u8 }
    /// The `index`-th device of this shard that the description grants the caller. `EndOfList` past the last.
    /// `ids` is device id << 16 | vendor id; `class` is class << 16 | subclass << 8 | interface.
    [Client] DeviceAt = 2: device_at(index: u16) -> DeviceAtReply { device: Sbdf, ids: u32, class: u32, state: DeviceState }
    /// One granted device by address: its state and what an assignment would promise.
    [Client] Query = 3: query(device: Sbdf) -> QueryReply { ids: u32, class: u32, state: DeviceState, properties: Properties }
    /// Takes the device: context attached, device capability placed in window slot `slot`. All or nothing.
    /// `context` says whether its DMA goes through the client's shared context (number 0) or one of its own, whose
    /// number comes back. The first device of an isolation group reserves the whole group for the client.
    [Client] Assign = 4: assign(device: Sbdf, slot: u16, context: ContextChoice) -> AssignReply { properties: Properties, context: u16 }
    /// Would `Assign` succeed now? The same refusals, and nothing is changed.
    [Client] TestAssign = 5: test_assign(device: Sbdf) -> TestAssignReply { properties: Properties }
    /// The `index`-th member of a granted device's isolation group (the device is one itself), and what ties it to the
    /// others. `EndOfList` past the last. A member outside the caller's grants tells its address and nothing else.
    [Client] GroupAt = 6: group_at(device: Sbdf, index: u16) -> GroupAtReply { member: Sbdf, tie: GroupTie, granted: Switch }
    /// Where a granted device is: proximity domain (`NO_PROXIMITY` where firmware names none), the port above it (its
    /// own address on a root bus), and that port's physical slot number, if it has one (0: none).
    [Client] Topology = 7: topology(device: Sbdf) -> TopologyReply { proximity: u32, port: Sbdf, slot: u16, hotplug: Switch }
    /// The oldest event of the caller's queue; `lost` events before it did not fit. `EndOfList` when there is none.
    [Client] EventNext = 8: event_next() -> EventNextReply { event: EventKind, device: Sbdf, detail: u64, lost: u32 }
    /// The `index`-th capability of a granted device, standard ones first. `EndOfList` past the last.
    [Client] CapabilityAt = 9: capability_at(device: Sbdf, index: u16) -> CapabilityAtReply { list: CapabilityListKind, id: u16, version: u8, offset: u16 }
    /// The `index`-th region that firmware reserved for DMA of a granted device (RMRR, IVMD): its bytes, and whether the
    /// description allows them. `EndOfList` past the last.
    [Client] ReservedAt = 10: reserved_at(device: Sbdf, index: u16) -> ReservedAtReply { base: u64, bytes: u64, allowed: Switch }

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
    /// handlers in window slots `slot`... The caller binds them to its notification. Where `delivery` is `Metered` there are
    /// no handlers: the caller says with `MsiBind` what each message signals.
    [Device] MsiEnable = 24: msi_enable(mechanism: Mechanism, first: u16, count: u16, slot: u16) -> MsiEnableReply { count: u16, delivery: Delivery }
    /// Disables interrupts and frees the vectors of the device.
    [Device] MsiDisable = 25: msi_disable() -> MsiDisableReply {}
    /// Messages that the device has: MSI count (0: no MSI), MSI-X table entries (0: no MSI-X).
    [Device] MsiInfo = 26: msi_info() -> MsiInfoReply { msi: u16, msix: u16 }
    /// Reads a register of a memory BAR on a page that is withheld because of the MSI-X table: never the table itself.
    [Device] BarRead = 27: bar_read(bar: u8, offset: u64, width: Width) -> BarReadReply { value: u32 }
    /// Writes such a register.
    [Device] BarWrite = 28: bar_write(bar: u8, offset: u64, width: Width, value: u32) -> BarWriteReply {}
    /// Places a narrower capability of the device in window slot `slot`, to be handed on: what configuration space it
    /// may touch, which BARs (one bit each), how many messages it may enable, whether it may control the device
    /// (bus mastering, reset, release). Never more than the caller has; revoked with the device.
    [Device] Narrow = 29: narrow(config: ConfigRight, bars: u8, messages: u16, control: Switch, slot: u16) -> NarrowReply {}
    /// Enables `count` virtual functions of a held physical function (0: none; refused while one is held). Each is a
    /// device of its own then, granted by the description like any other.
    [Device] VirtualFunctions = 30: virtual_functions(count: u16) -> VirtualFunctionsReply { first: Sbdf, stride: u16, count: u16 }
    /// The holder agrees that the bus of the device is reset; `missing` functions of that bus still object.
    [Device] AgreeBusReset = 31: agree_bus_reset() -> AgreeBusResetReply { port: Sbdf, missing: u16 }
    /// Resets the bus of the device, where the holder of every function on it has agreed (free ones do not object).
    /// Agreements end with it. Answered when all are back; configuration and interrupts are restored.
    [Device] BusReset = 32: bus_reset() -> BusResetReply { functions: u16 }
    /// Masks or unmasks `count` messages from `first`. A message that was raised meanwhile arrives after the unmasking, once.
    /// Unmasking also lets metered messages come again that were switched off because they came too often
    /// (`EventKind::MessageOff`), also where the device has no masks; the holder is signalled once then.
    [Device] MsiMask = 33: msi_mask(first: u16, count: u16, switch: Switch) -> MsiMaskReply {}
    /// Pending bits of up to 64 messages from `first`.
    [Device] MsiPending = 34: msi_pending(first: u16, count: u16) -> MsiPendingReply { pending: u64 }

    /// Places frames for `count` pages of 2 MiB of a memory BAR from page `first` in window slots `slot`..., as
    /// `BarFrames` does with small ones. Only of BARs that the description wants alone in large pages (`NotLarge`
    /// else), and not where frames of 4 KiB were placed before: those stay until the device is released.
    [Device] BarLarge = 35: bar_large(bar: u8, first: u16, count: u16, slot: u16) -> BarLargeReply { placed: u16 }

    /// Lets the device raise its interrupt pin. Each time the caller is signalled `event::LINE`, and acknowledges it at
    /// the msi-server (`LineAck`) when the device does not raise it any more. Not together with messages.
    [Device] IntxEnable = 36: intx_enable() -> IntxEnableReply { line: u16 }
    /// Switches the pin off.
    [Device] IntxDisable = 37: intx_disable() -> IntxDisableReply {}
    /// Sends `count` messages from `first` to another core from now on. None is lost. Messages of MSI go together.
    [Device] MsiAffinity = 38: msi_affinity(first: u16, count: u16, core: u8) -> MsiAffinityReply {}

    /// What a metered message signals from now on: `flags` on the holder's event notification. Several may signal the same.
    [Device] MsiBind = 39: msi_bind(message: u16, flags: u64) -> MsiBindReply {}

    /// The client's PD is gone: take back every device it holds. Answered at once; the shard signals the
    /// supervisor when `Pending` has fallen to zero.
    [Supervisor] ClientGone = 48: client_gone(client: ClientId) -> ClientGoneReply { devices: u16 }
    /// Revocations that are still under way.
    [Supervisor] Pending = 49: pending() -> PendingReply { count: u16 }
    /// Figures of resources: devices, assignments, capability slots and bytes of device memory in use, operations
    /// served and refused since the start, requests that are parked now.
    [Supervisor | Inspect] Figures = 50: figures() -> FiguresReply { devices: u32, assigned: u32, slots_used: u32, untyped_used: u64, operations: u64, refused: u64, parked: u64 }
    /// The `index`-th device of the shard with its holder (`holder` = client id + 1, 0 for none) and what it holds:
    /// frames of BARs and messages enabled. `EndOfList` past the last.
    [Supervisor | Inspect] Holder = 51: holder(index: u32) -> HolderReply { device: Sbdf, ids: u32, class: u32, state: DeviceState, holder: u16, frames: u32, messages: u16 }
    /// Address, size and kind of a BAR of the `index`-th device; `bar` 6 is its expansion ROM, which is off and stays so.
    /// Sizes of what the platform keeps are not asked for: 0.
    [Supervisor | Inspect] HolderBar = 52: holder_bar(index: u32, bar: u8) -> HolderBarReply { kind: BarKind, base: u64, bytes: u64 }
    /// How the shard has spent its time since the start: ticks of the time-stamp counter in all turns of its loop (a
    /// request or an event, until it waits again), and in the longest; of all that, kernel calls with their ticks, and
    /// requests to servers below.
    [Supervisor | Inspect] Turns = 53: turns() -> TurnsReply { ticks: u64, longest: u64, kernel_calls: u64, kernel_ticks: u64, requests: u64 }
    /// The `index`-th device that a client holds in this shard. `EndOfList` past the last.
    [Supervisor] HeldAt = 54: held_at(client: ClientId, index: u16) -> HeldAtReply { device: Sbdf, ids: u32, class: u32 }
    /// As `HolderBar`, of a device by address.
    [Supervisor] HeldBar = 55: held_bar(device: Sbdf, bar: u8) -> HeldBarReply { kind: BarKind, base: u64, bytes: u64 }

    /// Why nobody gets a device (0 where somebody may): for a dump. The text of each code is [`WithheldCode`]'s.
    [Inspect] Why = 64: why(device: Sbdf) -> WhyReply { code: WithheldCode, bar: u8 }
    /// 64 bytes of configuration space from `offset` (a multiple of 64), as eight little-endian words; registers whose
    /// reading has side effects read as zero. `OutsideShard` beyond the function's space.
    [Inspect] RawConfig = 65: raw_config(device: Sbdf, offset: u16) -> RawConfigReply { w0: u64, w1: u64, w2: u64, w3: u64, w4: u64, w5: u64, w6: u64, w7: u64 }
    /// The `index`-th narrowed capability of all devices, with its rights. `EndOfList` past the last.
    [Inspect] ViewAt = 66: view_at(index: u16) -> ViewAtReply { device: Sbdf, holder: u16, config: ConfigRight, bars: u8, messages: u16, control: Switch }
    /// An enabled message as the device's registers have it: where it is sent, whether it is masked (its own mask, that of
    /// all, or messages not sent at all) and whether it is pending. What a device has no register for is `Off`.
    [Inspect] MessageAt = 67: message_at(device: Sbdf, message: u16) -> MessageAtReply { mechanism: Mechanism, address: u64, data: u32, masked: Switch, pending: Switch }

    /// Scans the buses again: what was plugged in without a word is found, what is gone is revoked, slots without power
    /// that hold a card get it. `ticks` of the time-stamp counter were spent on `functions` functions.
    [Admin] Rescan = 80: rescan() -> RescanReply { functions: u32, added: u32, removed: u32, ticks: u64 }
    /// Takes a device (and all that is behind it) from its holder for good, and the power from its slot if it has one.
    /// Answered when it may be pulled out.
    [Admin] Remove = 81: remove(device: Sbdf) -> RemoveReply { functions: u16 }
}

interface! {
    /// What an iommu-server shard does: DMA buffers for clients (`Client`,
    /// `Buffer`), contexts for pci-server shards (`Shard`).
    mod iommu = 2;

    /// Compares versions; tells the caller's quota and what of it is used.
    [Client] Hello = 1: hello(version: u64) -> HelloReply { version: u64, quota: u64, used: u64 }
    /// Allocates `bytes` of zeroed DMA memory (a multiple of 4 KiB) and places the buffer capability in window slot `slot`.
    /// It can be shared (`Import`).
    [Client] Alloc = 2: alloc(bytes: u64, pages: PagePreference, slot: u16) -> AllocReply { page_bits: u8, pages: u32 }
    /// The oldest fault record of the caller's devices. `access` is what was tried; `count` the faults since the
    /// last record that could not be kept. `EndOfList` when there is none.
    [Client] FaultNext = 3: fault_next() -> FaultNextReply { device: Sbdf, address: u64, access: Access, reason: u8, lost: u32 }
    /// Makes another client's buffer usable in the caller's context: takes the buffer capability along and places
    /// the caller's own capability for it in window slot `slot`.
    [Client + buffer] Import = 4: import(slot: u16) -> ImportReply { page_bits: u8, pages: u32 }
    /// Allocates `bytes` of zeroed DMA memory in pages of 4 KiB that its holder shares with nobody: `Import` and `Frames`
    /// refuse it (`PrivateBuffer`), because the server keeps no frames of it. It makes them in window slots `frames`..., one
    /// a page, and places the buffer capability in slot `slot`.
    [Client] AllocPrivate = 5: alloc_private(bytes: u64, slot: u16, frames: u16) -> AllocPrivateReply { pages: u32 }

    /// Places frames of pages `first`... (pages of the buffer's size) in window slots `slot`...
    [Buffer] Frames = 16: frames(first: u32, count: u16, slot: u16) -> FramesReply { placed: u16 }
    /// Maps the whole buffer in the holder's context at `iova`, or where the server chooses (`ANY_IOVA`).
    /// `context` is 0 for the shared one, else the number that an assignment gave.
    [Buffer] Map = 17: map(iova: u64, access: Access, context: u16) -> MapReply { iova: u64 }
    /// Takes the mapping away; when the reply arrives no cached translation is left.
    [Buffer] Unmap = 18: unmap() -> UnmapReply {}
    /// Unmaps, revokes every frame and capability of the buffer, and returns its memory (scrubbed before reuse).
    [Buffer] Free = 19: free() -> FreeReply {}
    /// Size, page size, and address in the context (`ANY_IOVA` when not mapped).
    [Buffer] Info = 20: info() -> InfoReply { bytes: u64, page_bits: u8, iova: u64 }

    /// Moves the device (with all its requester-id aliases) from the blocking context to one of the client's.
    /// `ats_queue` is the depth of its invalidate queue (1 to 32) if it may cache translations (ATS), else 0; whether it
    /// is to be enabled is in the reply's `translation_cached`.
    [Shard] Attach = 32: attach(device: Sbdf, client: ClientId, context: ContextChoice, ats_queue: u8) -> AttachReply { properties: Properties, context: u16 }
    /// Moves the device back to the blocking context; when the reply arrives no DMA of it reaches memory.
    [Shard] Detach = 33: detach(device: Sbdf) -> DetachReply {}
    /// What an attachment of the device would promise.
    [Shard] Promise = 34: promise(device: Sbdf) -> PromiseReply { properties: Properties }
    /// Makes `count` messages (`address`, `data` + n) deliverable by this device alone: what to program into it instead.
    /// The same comes back where interrupts are not remapped.
    [Shard] Remap = 35: remap(device: Sbdf, address: u64, data: u32, count: u16) -> RemapReply { address: u64, data: u32 }
    /// Takes every message of the device back; when the reply arrives none of them can be raised.
    [Shard] Unremap = 36: unremap(device: Sbdf) -> UnremapReply {}
    /// A requester id that firmware or topology gives the device besides its own.
    [Shard] Alias = 37: alias(device: Sbdf, alias: Sbdf) -> AliasReply {}
    /// A device of the shard that gives trouble: too many faults, or no answer to a device-TLB invalidation. The server
    /// signals the shard when there is one. `EndOfList` when there is none.
    [Shard] TroubleNext = 38: trouble_next() -> TroubleNextReply { device: Sbdf, trouble: Trouble, count: u32 }
    /// Whether an attached device may keep translations from now on: `ats_queue` as in an attachment. With 0, when the
    /// reply arrives, it has forgotten all that it kept, and no unit waits for its answer any more: to be said before a
    /// reset, in which it cannot answer, and taken back afterwards. The reply says whether it may.
    [Shard] Cache = 40: cache(device: Sbdf, ats_queue: u8) -> CacheReply { allowed: Switch }
    /// The `index`-th region that firmware reserved for the device's DMA. `EndOfList` past the last.
    [Shard] ReservedAt = 39: reserved_at(device: Sbdf, index: u16) -> ReservedAtReply { base: u64, bytes: u64, allowed: Switch }
    /// Delivers messages of the block that `Remap` has answered with `remapped` (the address, and the data in the upper
    /// half) to the core that `address` names, and else as before; `messages` counts from the block's first. What is
    /// programmed into the device stays, and no message is lost.
    [Shard] Reroute = 41: reroute(device: Sbdf, remapped: u64, messages: Messages, address: u64) -> RerouteReply {}

    /// The client's PD is gone and its devices are detached: free its buffers and its context. A turn frees some of them:
    /// to be said again while buffers are `left`. What was refused in any turn is told in the last.
    [Supervisor] ClientGone = 48: client_gone(client: ClientId) -> ClientGoneReply { bytes: u64, left: u16 }
    /// Figures of resources.
    [Supervisor | Inspect] Figures = 50: figures() -> FiguresReply { pool_bytes: u64, pool_free: u64, tables_used: u32, domains_used: u32, slots_used: u32, buffers: u32, attached: u32, faults: u64, operations: u64, refused: u64 }
    /// The `index`-th attached device. `EndOfList` past the last.
    [Supervisor | Inspect] AttachedAt = 51: attached_at(index: u16) -> AttachedAtReply { device: Sbdf, client: ClientId, domain: u16 }
    /// How the shard has spent its time since the start: ticks of the time-stamp counter in all turns of its loop (a
    /// request or an event, until it waits again), and in the longest; of all that, kernel calls with their ticks, and
    /// requests to servers below.
    [Supervisor | Inspect] Turns = 53: turns() -> TurnsReply { ticks: u64, longest: u64, kernel_calls: u64, kernel_ticks: u64, requests: u64 }
}

interface! {
    /// What an msi-server shard does: vectors for pci-server shards (`Shard`), interrupt lines for their holders (`Client`).
    mod msi = 3;

    /// Compares versions; tells the caller's quota and what of it is used.
    [Client] Hello = 1: hello(version: u64) -> HelloReply { version: u64, quota: u16, used: u16 }
    /// The caller's device does not raise its line (any more): it may come again when all who share it have said so.
    [Client] LineAck = 2: line_ack(device: Sbdf) -> LineAckReply {}

    /// Takes vectors for messages of a device of a client (a power of two, aligned and consecutive), for the client's
    /// core, and places their interrupt handlers in the client's window slots `slot`... The message of vector n is
    /// `address`, `data` + n.
    [Shard] Alloc = 32: alloc(device: Sbdf, client: ClientId, messages: Messages, slot: u16) -> AllocReply { address: u64, data: u32, first: u16 }
    /// Takes every vector of the device back. The device must be quiet: its messages masked or disabled.
    [Shard] Free = 33: free(device: Sbdf) -> FreeReply { count: u16 }
    /// Moves messages of the device to another core: the address that sends them there. The rest of each message stays.
    [Shard] Retarget = 34: retarget(device: Sbdf, messages: Messages, core: u8) -> RetargetReply { address: u64 }
    /// The client's device raises an interrupt line from now on.
    [Shard] LineJoin = 35: line_join(device: Sbdf, client: ClientId, line: u16) -> LineJoinReply {}
    /// The device does not raise its line any more: its interrupt is switched off.
    [Shard] LineLeave = 36: line_leave(device: Sbdf) -> LineLeaveReply {}
    /// A device of the shard whose interrupt is to be switched off: nobody acknowledges it (`count` 0), or it comes too
    /// often. It stays on its line until `LineLeave`. The server signals the shard when there is one. `EndOfList` when
    /// there is none.
    [Shard] LineTrouble = 37: line_trouble() -> LineTroubleReply { device: Sbdf, count: u32 }
    /// What a metered message of the device signals from now on: `flags` on its client's event notification.
    [Shard] Bind = 38: bind(device: Sbdf, message: u16, flags: u64) -> BindReply {}
    /// A metered message that came too often: `count` times since it was let come. The server passes it on no more; the
    /// shard switches it off at the device. It signals the shard (as for lines) when there is one. `EndOfList` when there
    /// is none.
    [Shard] MessageTrouble = 39: message_trouble() -> MessageTroubleReply { device: Sbdf, message: u16, count: u32 }
    /// Passes metered messages of the device on again, and signals each one's holder once, for what may have come meanwhile.
    /// To be said before they are switched on at the device. `left` of the device's are still not passed on.
    [Shard] Resume = 40: resume(device: Sbdf, messages: Messages) -> ResumeReply { left: u16 }
    /// What a client can have of this server: vectors that are kept for it and are free, vectors that are free for
    /// everybody, and how many more than it holds it may have.
    [Shard] Promise = 41: promise(client: ClientId) -> PromiseReply { kept: u16, common: u16, left: u16 }

    /// The client's PD is gone: its handlers are taken back. Vectors that are left with it belong to devices that do not
    /// obey, and are kept from everybody until their shard frees them.
    [Supervisor] ClientGone = 48: client_gone(client: ClientId) -> ClientGoneReply { vectors: u16 }
    /// Figures of resources. `absorbed`: signals that vectors gave which nobody was bound to.
    [Supervisor | Inspect] Figures = 50: figures() -> FiguresReply { vectors: u16, free: u16, slots_used: u32, operations: u64, refused: u64, absorbed: u64 }
    /// The `index`-th vector that is not free. What is not known is 0: how often it was `raised` is known of lines and of
    /// metered vectors, of which `passed` says whether they are passed on, and `flags` what they signal on their client's event
    /// notification; what a vector that is not metered signals is its client's own affair. `EndOfList` past the last.
    [Supervisor | Inspect] VectorAt = 51: vector_at(index: u16) -> VectorAtReply { vector: u16, purpose: VectorUse, device: Sbdf, client: ClientId, message: u16, core: u8, data: u32, delivery: Delivery, raised: u64, passed: Switch, flags: u64 }
    /// The `index`-th device on an interrupt line: how often the line was raised, and whether an acknowledgement of the
    /// device is waited for. `EndOfList` past the last.
    [Supervisor | Inspect] LineAt = 52: line_at(index: u16) -> LineAtReply { line: u16, vector: u16, device: Sbdf, client: ClientId, raised: u64, waits: Switch }
    /// How the shard has spent its time since the start: ticks of the time-stamp counter in all turns of its loop (a
    /// request or an event, until it waits again), and in the longest; of all that, kernel calls with their ticks, and
    /// requests to servers below.
    [Supervisor | Inspect] Turns = 53: turns() -> TurnsReply { ticks: u64, longest: u64, kernel_calls: u64, kernel_ticks: u64, requests: u64 }
    /// What a client may hold, what is kept free for it and what it holds. `EndOfList` past the last client.
    [Supervisor | Inspect] ShareAt = 54: share_at(client: ClientId) -> ShareAtReply { quota: u16, reserved: u16, used: u16 }
    /// The `index`-th vector that a client holds for messages of a device. `EndOfList` past the last.
    [Supervisor] VectorOf = 55: vector_of(device: Sbdf, index: u16) -> VectorOfReply { vector: u16 }
}

interface! {
    /// What the root task does for every PD, as supervisor.
    mod supervisor = 4;

    /// The PD has done its start-up and serves, or works.
    [Pd] Ready = 1: ready() -> ReadyReply {}
    /// The PD has finished; it is taken down like a dead one. Not answered.
    [Pd] Exit = 2: exit(code: u32) -> ExitReply {}
    /// Stops another PD for a test of death in mid-work (as a fault would): refused unless the description says
    /// `testing = true`. A client is taken down, a server shard is restarted.
    [Pd] Kill = 3: kill(pd: u16) -> KillReply {}
    /// Switches another PD's thread off, or on again, for a test that a stalled PD stalls nobody else: refused
    /// unless the description says `testing = true`.
    [Pd] Suspend = 4: suspend(pd: u16, switch: Switch) -> SuspendReply {}
    /// Makes a server shard fault where it is, for a test: it is restarted as after a fault of its own. Refused like `Kill`.
    [Pd] Crash = 5: crash(pd: u16) -> CrashReply {}
    /// Kills server shard `pd` (0: another at random each time) `kills` times, each after a random time of at most `span`
    /// microseconds since the one before, with random numbers of `seed`: in the middle of whatever it is doing then.
    /// Replaces what was asked for before. Refused like `Kill`.
    [Pd] Chaos = 6: chaos(pd: u16, seed: u64, kills: u32, span: u32) -> ChaosReply {}
    /// How often server shard `pd` was restarted, when it died last and when it said that it was ready again, in ticks of
    /// the time-stamp counter (0: not yet); `left` kills of `Chaos` are still to come. Refused like `Kill`.
    [Pd] Deaths = 7: deaths(pd: u16) -> DeathsReply { restarts: u32, died: u64, ready: u64, left: u32 }
    /// As `Crash`, with a fault that counts as the server's own: it is given up when there were too many, and the run has
    /// failed. Refused like `Kill`.
    [Pd] Fail = 8: fail(pd: u16) -> FailReply {}
    /// Stops server shard `pd` as `Kill` does and lets it hang before its restart has begun: it is given up when its time is
    /// over. Refused like `Kill`.
    [Pd] Hang = 9: hang(pd: u16) -> HangReply {}
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
