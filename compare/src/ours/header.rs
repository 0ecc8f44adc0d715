//! Fields of the header.

use hw::bar::{self, Register, Space};
use hw::capability::{BridgeSubsystem, CapabilityList, WalkFault};
use hw::header::{
    Bridge, BridgeControl, BusNumbers, CardBus, CardBusControl, Command, Interrupt, InterruptPin,
    Layout, SelfTest, Status, Subsystem, Timing, Window, register,
};
use hw::{ClassCode, ConfigSpace, Ids, Sbdf};

use super::Source;
use super::known::Known;
use crate::field::{Field, Fields, Place, Presence};
use crate::text::{END, EXTENDED_END};

/// Which function it is: said also of what `hw` refuses.
pub fn identity(cfg: &Known<'_>, at: Sbdf) -> Vec<Field> {
    let ids = cfg.read32(at, register::VENDOR_ID);
    let ids = Ids {
        vendor: ids as u16,
        device: (ids >> 16) as u16,
    };
    let class = cfg.read32(at, register::REVISION);
    let (class, revision) = (ClassCode::from_bits(class >> 8), class as u8);
    let mut fields = Fields::new(Place::Header);
    fields.line("function");
    fields.text("class", format!("{:02x}{:02x}", class.base, class.sub));
    fields.text("ids", ids.to_string());
    if revision != 0 {
        fields.hex("revision", revision);
    }
    let presence = match class.interface {
        0 => Presence::Perhaps,
        _ => Presence::Always,
    };
    fields.presence(presence).hex("interface", class.interface);
    let layout = cfg.read8(at, register::HEADER_TYPE) & 0x7f;
    if layout > 2 {
        fields.line("header type").hex("", layout);
    }
    fields.list
}

/// Everything else.
pub fn fields(source: Source<'_>, list: &CapabilityList) -> Vec<Field> {
    let Source {
        cfg, at, layout, ..
    } = source;
    let mut fields = Fields::new(Place::Header);
    let command = Command::from_bits_retain(cfg.read16(at, register::COMMAND));
    self::command(&mut fields, command);
    let status = Status::from_bits_retain(cfg.read16(at, register::STATUS));
    self::status(&mut fields, status);
    if command.contains(Command::BUS_MASTER) {
        fields
            .line("Latency")
            .text("", latency(Timing::read(cfg, at, layout)));
    }
    interrupt(&mut fields, Interrupt::read(cfg, at));
    if let Some(test) = SelfTest::read(cfg, at) {
        let state = match test.running {
            true => "is running".to_owned(),
            false => format!("{:02x}", test.code),
        };
        fields.line("BIST").text("", state);
    }
    regions(&mut fields, source, command);
    let subsystem = match layout {
        Layout::Endpoint => Some(Subsystem::read(cfg, at)),
        Layout::CardBus => Some(CardBus::read(cfg, at).subsystem),
        Layout::Bridge => match list.find::<BridgeSubsystem, _>(cfg, at) {
            Ok(found) => found.map(|found| found.0),
            Err(_) => None,
        },
    };
    // No vendor has one of these two numbers.
    if let Some(subsystem) = subsystem.filter(|known| ![0, 0xffff].contains(&known.vendor)) {
        fields
            .line("Subsystem")
            .text("", self::subsystem(subsystem));
    }
    match layout {
        Layout::Endpoint => {}
        Layout::Bridge => bridge(&mut fields, &Bridge::read(cfg, at)),
        Layout::CardBus => card_bus(&mut fields, &CardBus::read(cfg, at)),
    }
    ends(&mut fields, list, cfg.length());
    fields.list
}

/// Where the lists end before their end, as far as lspci says so.
fn ends(fields: &mut Fields, list: &CapabilityList, known: usize) {
    let end = match list.fault {
        Some(WalkFault::Cycle { to, .. }) => Some(format!("looped at {to:x}")),
        // lspci reads four bytes.
        Some(WalkFault::AllOnes { at }) if usize::from(at) + 4 > known => {
            Some("unreadable".to_owned())
        }
        Some(WalkFault::AllOnes { at }) => Some(format!("broken at {at:x}")),
        _ => None,
    };
    if let Some(end) = end {
        fields.line(END).text("", end);
    }
    if let Some(WalkFault::Cycle { to, .. }) = list.extended_fault {
        fields
            .line(EXTENDED_END)
            .text("", format!("looped at {to:x}"));
    }
}

/// `vendor:id`.
pub fn subsystem(subsystem: Subsystem) -> String {
    format!("{:04x}:{:04x}", subsystem.vendor, subsystem.id)
}

fn command(fields: &mut Fields, command: Command) {
    fields
        .line("Control")
        .flag("I/O", command.contains(Command::IO_SPACE))
        .flag("Mem", command.contains(Command::MEMORY_SPACE))
        .flag("BusMaster", command.contains(Command::BUS_MASTER))
        .flag("SpecCycle", command.contains(Command::SPECIAL_CYCLES))
        .flag("MemWINV", command.contains(Command::WRITE_INVALIDATE))
        .flag("VGASnoop", command.contains(Command::PALETTE_SNOOP))
        .flag("ParErr", command.contains(Command::PARITY_ERROR_RESPONSE))
        .flag("Stepping", command.contains(Command::STEPPING))
        .flag("SERR", command.contains(Command::SERR_ENABLE))
        .flag("FastB2B", command.contains(Command::FAST_BACK_TO_BACK))
        .flag("DisINTx", command.contains(Command::INTERRUPT_DISABLE));
}

fn status(fields: &mut Fields, status: Status) {
    fields
        .line("Status")
        .flag("Cap", status.contains(Status::CAPABILITIES))
        .flag("66MHz", status.contains(Status::MHZ_66))
        .flag("UDF", status.contains(Status::USER_FEATURES))
        .flag("FastB2B", status.contains(Status::FAST_BACK_TO_BACK))
        .flag("ParErr", status.contains(Status::MASTER_DATA_PARITY_ERROR))
        .text("DEVSEL", device_select(status))
        .flag(">TAbort", status.contains(Status::SIGNALED_TARGET_ABORT))
        .flag("<TAbort", status.contains(Status::RECEIVED_TARGET_ABORT))
        .flag("<MAbort", status.contains(Status::RECEIVED_MASTER_ABORT))
        .flag(">SERR", status.contains(Status::SIGNALED_SYSTEM_ERROR))
        .flag("<PERR", status.contains(Status::DETECTED_PARITY_ERROR))
        .flag("INTx", status.contains(Status::INTERRUPT));
}

fn device_select(status: Status) -> &'static str {
    super::words::of(&["fast", "medium", "slow"], status.device_select(), "??")
}

fn latency(timing: Timing) -> String {
    let mut text = timing.latency.to_string();
    // In units of 250 ns.
    let min =
        (timing.min_grant != 0).then(|| format!("{}ns min", 250 * u32::from(timing.min_grant)));
    let max =
        (timing.max_latency != 0).then(|| format!("{}ns max", 250 * u32::from(timing.max_latency)));
    let limits: Vec<String> = min.into_iter().chain(max).collect();
    if !limits.is_empty() {
        text += &format!(" ({})", limits.join(", "));
    }
    if timing.cache_line != 0 {
        text += &format!(
            ", Cache Line Size: {} bytes",
            4 * u32::from(timing.cache_line)
        );
    }
    text
}

fn interrupt(fields: &mut Fields, interrupt: Interrupt) {
    let pin = match interrupt.pin {
        None if interrupt.line == 0 => return,
        None => '?',
        Some(InterruptPin::A) => 'A',
        Some(InterruptPin::B) => 'B',
        Some(InterruptPin::C) => 'C',
        Some(InterruptPin::D) => 'D',
    };
    let text = format!("pin {pin} routed to IRQ {}", interrupt.line);
    fields.line("Interrupt").text("", text);
}

fn regions(fields: &mut Fields, source: Source<'_>, command: Command) {
    let Source {
        cfg, at, layout, ..
    } = source;
    let registers = bar::read_registers(cfg, at, register::BAR0, layout.bar_count());
    for (index, register) in registers.iter().enumerate() {
        let Register::Region { space, address } = register else {
            continue;
        };
        let is_on = match space {
            Space::Io => command.contains(Command::IO_SPACE),
            _ => command.contains(Command::MEMORY_SPACE),
        };
        let state = if is_on { "" } else { ", disabled" };
        let text = format!("{}{state}", region(*space, *address));
        fields.line(&format!("Region {index}")).text("", text);
    }
    if let Some(rom) = bar::read_rom(cfg, at, layout) {
        let state = match (rom.enabled, command.contains(Command::MEMORY_SPACE)) {
            (false, _) => "disabled",
            (true, false) => "disabled by command",
            (true, true) => "enabled",
        };
        fields
            .line("Expansion ROM")
            .text("", format!("at {:x}, {state}", rom.address));
    }
}

/// Kind and address of a region.
pub fn region(space: Space, address: u64) -> String {
    let kind = match space {
        Space::Io => return format!("ports at {address:x}"),
        Space::Memory32 { .. } => "32-bit",
        Space::Memory64 { .. } => "64-bit",
    };
    let prefetchable = match space {
        Space::Memory32 { prefetchable: true } | Space::Memory64 { prefetchable: true } => {
            "prefetchable"
        }
        _ => "non-prefetchable",
    };
    format!("memory {kind}, {prefetchable} at {address:x}")
}

fn buses(fields: &mut Fields, buses: BusNumbers, latency: u8) {
    fields
        .line("Bus")
        .hex("primary", buses.primary)
        .hex("secondary", buses.secondary)
        .hex("subordinate", buses.subordinate)
        .text("sec-latency", latency.to_string());
}

fn window(window: Option<Window>) -> String {
    match window {
        Some(Window { base, limit }) => format!("{base:x}-{limit:x}"),
        None => "closed".to_owned(),
    }
}

fn bridge(fields: &mut Fields, bridge: &Bridge) {
    buses(fields, bridge.buses, bridge.secondary_latency);
    fields.line("I/O behind bridge").text("", window(bridge.io));
    fields
        .line("Memory behind bridge")
        .text("", window(bridge.memory));
    fields
        .line("Prefetchable memory behind bridge")
        .text("", window(bridge.prefetchable));
    let status = bridge.secondary_status;
    fields
        .line("Secondary status")
        .flag("66MHz", status.contains(Status::MHZ_66))
        .flag("FastB2B", status.contains(Status::FAST_BACK_TO_BACK))
        .flag("ParErr", status.contains(Status::MASTER_DATA_PARITY_ERROR))
        .text("DEVSEL", device_select(status))
        .flag(">TAbort", status.contains(Status::SIGNALED_TARGET_ABORT))
        .flag("<TAbort", status.contains(Status::RECEIVED_TARGET_ABORT))
        .flag("<MAbort", status.contains(Status::RECEIVED_MASTER_ABORT))
        .flag("<SERR", status.contains(Status::SIGNALED_SYSTEM_ERROR))
        .flag("<PERR", status.contains(Status::DETECTED_PARITY_ERROR));
    let control = bridge.control;
    fields
        .line("BridgeCtl")
        .flag(
            "Parity",
            control.contains(BridgeControl::PARITY_ERROR_RESPONSE),
        )
        .flag("SERR", control.contains(BridgeControl::SERR_ENABLE))
        .flag("NoISA", control.contains(BridgeControl::ISA_ENABLE))
        .flag("VGA", control.contains(BridgeControl::VGA_ENABLE))
        .flag("VGA16", control.contains(BridgeControl::VGA_16_BIT))
        .flag("MAbort", control.contains(BridgeControl::MASTER_ABORT))
        .flag(
            ">Reset",
            control.contains(BridgeControl::SECONDARY_BUS_RESET),
        )
        .flag(
            "FastB2B",
            control.contains(BridgeControl::FAST_BACK_TO_BACK),
        )
        .flag(
            "PriDiscTmr",
            control.contains(BridgeControl::PRIMARY_DISCARD_TIMER),
        )
        .flag(
            "SecDiscTmr",
            control.contains(BridgeControl::SECONDARY_DISCARD_TIMER),
        )
        .flag(
            "DiscTmrStat",
            control.contains(BridgeControl::DISCARD_TIMER_STATUS),
        )
        .flag(
            "DiscTmrSERREn",
            control.contains(BridgeControl::DISCARD_TIMER_SERR),
        );
}

fn card_bus(fields: &mut Fields, bridge: &CardBus) {
    buses(fields, bridge.buses, bridge.secondary_latency);
    let control = bridge.control;
    let prefetch = [CardBusControl::PREFETCH_0, CardBusControl::PREFETCH_1];
    for (index, (range, prefetch)) in bridge.memory.into_iter().zip(prefetch).enumerate() {
        let kind = if control.contains(prefetch) {
            ", prefetchable"
        } else {
            ""
        };
        fields
            .line(&format!("Memory window {index}"))
            .text("", window(range) + kind);
    }
    for (index, range) in bridge.io.into_iter().enumerate() {
        fields
            .line(&format!("I/O window {index}"))
            .text("", window(range));
    }
    if bridge
        .secondary_status
        .contains(Status::SIGNALED_SYSTEM_ERROR)
    {
        fields.line("Secondary status").text("", "SERR");
    }
    fields
        .line("BridgeCtl")
        .flag(
            "Parity",
            control.contains(CardBusControl::PARITY_ERROR_RESPONSE),
        )
        .flag("SERR", control.contains(CardBusControl::SERR_ENABLE))
        .flag("ISA", control.contains(CardBusControl::ISA_ENABLE))
        .flag("VGA", control.contains(CardBusControl::VGA_ENABLE))
        .flag("MAbort", control.contains(CardBusControl::MASTER_ABORT))
        .flag(">Reset", control.contains(CardBusControl::CARD_RESET))
        .flag("16bInt", control.contains(CardBusControl::ISA_INTERRUPTS))
        .flag("PostWrite", control.contains(CardBusControl::POST_WRITES));
    let ports = bridge.legacy_ports as u16;
    if ports != 0 {
        fields.line("legacy ports").hex("", ports);
    }
}
