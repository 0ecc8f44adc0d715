//! The bytes of every request and reply, checked in by hand: a change to a
//! table or an encoding shows here, and must raise `VERSION`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use hw::Sbdf;
use ipc_proto::{
    Access, BarKind, CapabilityListKind, ClientId, ConfigRight, ContextChoice, Delivery,
    DeviceState, EventKind, GroupTie, Mechanism, Message, Messages, Operation, PagePreference,
    Properties, ResetKind, Switch, Trouble, VectorUse, Width, WithheldCode, console, iommu, msi,
    pci, supervisor, timer,
};

fn line(of: &str, message: &Message) -> String {
    let words: Vec<_> = message
        .words()
        .iter()
        .map(|word| format!("{word:#x}"))
        .collect();
    format!("{of} label {:#x}: {}", message.label, words.join(" "))
        .trim_end()
        .to_owned()
}

fn lines() -> Vec<String> {
    let device = Sbdf::from_parts(1, 2, 3, 4).unwrap();
    let client = ClientId(5);
    let properties = Properties {
        dma_isolated: true,
        interrupts_isolated: false,
        faults_reported: true,
        translation_cached: true,
        reset: Some(ResetKind::Flr),
        vectors: 6,
    };
    let (ids, class) = (0x11e8_1234, 0x00ff_0000);
    let mut lines = Vec::new();
    macro_rules! golden {
        ($module:ident: $($name:ident { $($request:tt)* } => $reply:ident { $($fields:tt)* };)+) => {$(
            let request = $module::Request::$name { $($request)* };
            lines.push(line(&format!("{} {}", stringify!($module), stringify!($name)), &request.encode()));
            let reply = $module::$reply { $($fields)* };
            assert_eq!($module::$reply::decode(&reply.encode()), Ok(reply));
            lines.push(line(&format!("{} {} reply", stringify!($module), stringify!($name)), &reply.encode()));
        )+};
    }
    golden! { pci:
        Hello { version: 1 } => HelloReply { version: 1, shard: 2, segment: 1, first_bus: 0x80, last_bus: 0xff };
        DeviceAt { index: 9 } => DeviceAtReply { device, ids, class, state: DeviceState::Quarantined };
        Query { device } => QueryReply { ids, class, state: DeviceState::Assigned, properties };
        Assign { device, slot: 7, context: ContextChoice::Private } => AssignReply { properties, context: 3 };
        TestAssign { device } => TestAssignReply { properties };
        GroupAt { device, index: 1 } => GroupAtReply { member: device, tie: GroupTie::PortWithoutAcs, granted: Switch::On };
        Topology { device } => TopologyReply { proximity: 1, port: device, slot: 4, hotplug: Switch::On };
        EventNext {} => EventNextReply { event: EventKind::RemovalRequested, device, detail: 5_000_000, lost: 2 };
        CapabilityAt { device, index: 3 } => CapabilityAtReply { list: CapabilityListKind::Extended, id: 0x10, version: 1, offset: 0x140 };
        ReservedAt { device, index: 0 } => ReservedAtReply { base: 0x7a00_0000, bytes: 0x1_0000, allowed: Switch::Off };
        Release {} => ReleaseReply {};
        Info {} => InfoReply { device, ids, class, properties };
        ConfigRead { offset: 0x10, width: Width::Dword } => ConfigReadReply { value: 0xfebf_1000 };
        ConfigWrite { offset: 4, width: Width::Word, value: 6 } => ConfigWriteReply {};
        Bar { bar: 2 } => BarReply { kind: BarKind::Memory64, bytes: 0x4000, withheld_first: 2, withheld_count: 1 };
        BarFrames { bar: 0, first: 1, count: 2, slot: 3 } => BarFramesReply { placed: 2 };
        BusMaster { switch: Switch::On } => BusMasterReply {};
        Reset {} => ResetReply { kind: ResetKind::AfFlr };
        MsiEnable { mechanism: Mechanism::MsiX, first: 1, count: 2, slot: 3 } => MsiEnableReply { count: 2, delivery: Delivery::Metered };
        MsiBind { message: 2, flags: 0x10000 } => MsiBindReply {};
        MsiDisable {} => MsiDisableReply {};
        MsiInfo {} => MsiInfoReply { msi: 1, msix: 5 };
        BarRead { bar: 0, offset: 0x3008, width: Width::Dword } => BarReadReply { value: 0x5a };
        BarWrite { bar: 0, offset: 0x3008, width: Width::Byte, value: 7 } => BarWriteReply {};
        Narrow { config: ConfigRight::Read, bars: 0b11, messages: 2, control: Switch::Off, slot: 8 } => NarrowReply {};
        VirtualFunctions { count: 4 } => VirtualFunctionsReply { first: device, stride: 1, count: 4 };
        AgreeBusReset {} => AgreeBusResetReply { port: device, missing: 1 };
        BusReset {} => BusResetReply { functions: 2 };
        MsiMask { first: 1, count: 2, switch: Switch::On } => MsiMaskReply {};
        MsiPending { first: 1, count: 2 } => MsiPendingReply { pending: 0b10 };
        IntxEnable {} => IntxEnableReply { line: 21 };
        IntxDisable {} => IntxDisableReply {};
        MsiAffinity { first: 1, count: 2, core: 3 } => MsiAffinityReply {};
        BarLarge { bar: 2, first: 1, count: 4, slot: 6 } => BarLargeReply { placed: 3 };
        ClientGone { client } => ClientGoneReply { devices: 3 };
        Pending {} => PendingReply { count: 1 };
        Figures {} => FiguresReply { devices: 1, assigned: 2, slots_used: 3, untyped_used: 4, operations: 5, refused: 6, parked: 7 };
        Holder { index: 3 } => HolderReply { device, ids, class, state: DeviceState::Broken, holder: 6, frames: 2, messages: 1 };
        HolderBar { index: 3, bar: 1 } => HolderBarReply { kind: BarKind::Io, base: 0xc000, bytes: 0x20 };
        Turns {} => TurnsReply { ticks: 2, longest: 1, kernel_calls: 5, kernel_ticks: 3, requests: 4 };
        HeldAt { client, index: 2 } => HeldAtReply { device, ids, class };
        HeldBar { device, bar: 5 } => HeldBarReply { kind: BarKind::Memory64, base: 0xc000, bytes: 0x20 };
        Why { device } => WhyReply { code: WithheldCode::Malformed, bar: 2 };
        RawConfig { device, offset: 0x40 } => RawConfigReply { w0: 1, w1: 2, w2: 3, w3: 4, w4: 5, w5: 6, w6: 7, w7: 8 };
        MessageAt { device, message: 2 } => MessageAtReply { mechanism: Mechanism::MsiX, address: 0xfee0_1000, data: 0x44, masked: Switch::On, pending: Switch::Off };
        ViewAt { index: 2 } => ViewAtReply { device, holder: 6, config: ConfigRight::Write, bars: 1, messages: 0, control: Switch::On };
        Rescan {} => RescanReply { functions: 240, added: 1, removed: 2, ticks: 100_000 };
        Remove { device } => RemoveReply { functions: 1 };
    }
    golden! { iommu:
        Hello { version: 1 } => HelloReply { version: 1, quota: 0x10_0000, used: 0x1000 };
        Alloc { bytes: 0x4000, pages: PagePreference::Large, slot: 2 } => AllocReply { page_bits: 12, pages: 4 };
        FaultNext {} => FaultNextReply { device, address: 0x20_1000, access: Access::Write, reason: 5, lost: 1 };
        Import { slot: 4 } => ImportReply { page_bits: 21, pages: 1 };
        AllocPrivate { bytes: 0x5000, slot: 6, frames: 7 } => AllocPrivateReply { pages: 5 };
        Frames { first: 0, count: 4, slot: 8 } => FramesReply { placed: 4 };
        Map { iova: ipc_proto::ANY_IOVA, access: Access::ReadWrite, context: 3 } => MapReply { iova: 0x10_0000 };
        Unmap {} => UnmapReply {};
        Free {} => FreeReply {};
        Info {} => InfoReply { bytes: 0x4000, page_bits: 12, iova: 0x10_0000 };
        Attach { device, client, context: ContextChoice::Private, ats_queue: 32 } => AttachReply { properties, context: 3 };
        Detach { device } => DetachReply {};
        Promise { device } => PromiseReply { properties };
        Remap { device, address: 0xfee0_0000, data: 0x44, count: 4 } => RemapReply { address: 0xfee0_0010, data: 0 };
        Unremap { device } => UnremapReply {};
        Alias { device, alias: device } => AliasReply {};
        Cache { device, ats_queue: 8 } => CacheReply { allowed: Switch::On };
        TroubleNext {} => TroubleNextReply { device, trouble: Trouble::FaultStorm, count: 10 };
        ReservedAt { device, index: 0 } => ReservedAtReply { base: 0x7a00_0000, bytes: 0x1_0000, allowed: Switch::On };
        Reroute { device, remapped: 0x4_fee0_0010, messages: Messages { first: 1, count: 2 }, address: 0xfee0_3000 } => RerouteReply {};
        ClientGone { client } => ClientGoneReply { bytes: 0x4000, left: 3 };
        Figures {} => FiguresReply { pool_bytes: 1, pool_free: 2, tables_used: 3, domains_used: 4, slots_used: 5, buffers: 6, attached: 7, faults: 8, operations: 9, refused: 10 };
        AttachedAt { index: 1 } => AttachedAtReply { device, client, domain: 2 };
        Turns {} => TurnsReply { ticks: 2, longest: 1, kernel_calls: 5, kernel_ticks: 3, requests: 4 };
    }
    golden! { msi:
        Hello { version: 1 } => HelloReply { version: 1, quota: 4, used: 1 };
        LineAck { device } => LineAckReply {};
        Alloc { device, client, messages: Messages { first: 2, count: 4 }, slot: 9 } => AllocReply { address: 0xfee0_1000, data: 0x44, first: 20 };
        Free { device } => FreeReply { count: 4 };
        Retarget { device, messages: Messages { first: 2, count: 1 }, core: 3 } => RetargetReply { address: 0xfee0_3000 };
        LineJoin { device, client, line: 21 } => LineJoinReply {};
        LineLeave { device } => LineLeaveReply {};
        LineTrouble {} => LineTroubleReply { device, count: 1000 };
        Bind { device, message: 2, flags: 0x10000 } => BindReply {};
        MessageTrouble {} => MessageTroubleReply { device, message: 2, count: 1000 };
        Resume { device, messages: Messages { first: 2, count: 1 } } => ResumeReply { left: 1 };
        Promise { client } => PromiseReply { kept: 4, common: 60, left: 8 };
        ClientGone { client } => ClientGoneReply { vectors: 0 };
        Figures {} => FiguresReply { vectors: 100, free: 99, slots_used: 1, operations: 2, refused: 3, absorbed: 4 };
        VectorOf { device, index: 1 } => VectorOfReply { vector: 0x31 };
        VectorAt { index: 0 } => VectorAtReply { vector: 20, purpose: VectorUse::Message, device, client, message: 2, core: 3, data: 0x44, delivery: Delivery::Metered, raised: 9, passed: Switch::On, flags: 0x30 };
        LineAt { index: 0 } => LineAtReply { line: 21, vector: 90, device, client, raised: 7, waits: Switch::On };
        Turns {} => TurnsReply { ticks: 2, longest: 1, kernel_calls: 5, kernel_ticks: 3, requests: 4 };
        ShareAt { client } => ShareAtReply { quota: 8, reserved: 4, used: 2 };
    }
    golden! { supervisor:
        Ready {} => ReadyReply {};
        Exit { code: 3 } => ExitReply {};
        Kill { pd: 6 } => KillReply {};
        Suspend { pd: 6, switch: Switch::On } => SuspendReply {};
        Crash { pd: 4 } => CrashReply {};
        Chaos { pd: 4, seed: 7, kills: 100, span: 5000 } => ChaosReply {};
        Deaths { pd: 4 } => DeathsReply { restarts: 3, died: 1000, ready: 2000, left: 97 };
        Fail { pd: 4 } => FailReply {};
        Hang { pd: 4 } => HangReply {};
    }
    golden! { timer:
        Arm { micros: 100_000 } => ArmReply {};
        Now {} => NowReply { micros: 42 };
    }
    golden! { console:
        Flush {} => FlushReply {};
    }
    lines
}

#[test]
fn bytes_are_those_checked_in() {
    let found = lines().join("\n");
    assert_eq!(
        found.trim(),
        include_str!("golden.txt").trim(),
        "an encoding changed"
    );
}

fn tables() -> Vec<(&'static str, &'static [Operation])> {
    vec![
        ("pci", pci::TABLE),
        ("iommu", iommu::TABLE),
        ("msi", msi::TABLE),
        ("supervisor", supervisor::TABLE),
        ("timer", timer::TABLE),
        ("console", console::TABLE),
    ]
}

#[test]
fn every_operation_is_in_the_golden_file() {
    let golden = include_str!("golden.txt");
    for (module, table) in tables() {
        for operation in table {
            assert!(
                golden.contains(&format!(
                    "{module} {} label {:#x}:",
                    operation.name, operation.label
                )),
                "{operation:?}"
            );
        }
    }
}

#[test]
fn labels_are_unique_and_rows_fit_a_message() {
    let mut seen = std::collections::HashSet::new();
    for (module, table) in tables() {
        for operation in table {
            assert!(seen.insert(operation.label), "{module} {operation:?}");
            assert!(
                operation.arguments.len() <= ipc_proto::MAX_WORDS
                    && operation.reply.len() <= ipc_proto::MAX_WORDS
            );
            assert!(
                operation.label < 1 << 20,
                "labels of the oldest kernel have 20 bits"
            );
        }
    }
}

#[test]
fn hot_operations_fit_the_registers() {
    for (module, name) in [
        ("pci", "ConfigRead"),
        ("pci", "ConfigWrite"),
        ("pci", "Assign"),
        ("pci", "Release"),
        ("pci", "MsiEnable"),
        ("msi", "Alloc"),
        ("msi", "Free"),
        ("msi", "LineAck"),
        ("iommu", "Map"),
        ("iommu", "Unmap"),
    ] {
        let (_, table) = tables()
            .into_iter()
            .find(|(found, _)| *found == module)
            .unwrap();
        let row = table.iter().find(|row| row.name == name).unwrap();
        assert!(row.arguments.len() <= 4 && row.reply.len() <= 4, "{row:?}");
    }
}
