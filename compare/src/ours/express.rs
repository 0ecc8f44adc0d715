//! Fields of the PCI Express capability.

use hw::capability::{
    CapabilityError, Device2Registers, DeviceCapabilities, DeviceCapabilities2, DeviceControl,
    DeviceControl2, DeviceRegisters, DeviceStatus, Express, Link2Registers, LinkCapabilities,
    LinkCapabilities2, LinkControl, LinkControl2, LinkRegisters, LinkStatus, LinkStatus2, PortType,
    RootCapabilities, RootControl, RootRegisters, RootStatus, SlotCapabilities, SlotControl,
    SlotRegisters, SlotStatus,
};

use super::{Source, words};
use crate::field::{Fields, Presence, Value};

/// All fields that lspci has, in its order.
pub fn read(
    source: Source<'_>,
    express: Express,
    fields: &mut Fields,
) -> Result<(), CapabilityError> {
    let Source { cfg, at, .. } = source;
    let port = express.port;
    let kind = words::port(port, express.slot.is_some());
    let message = express.interrupt_message;
    fields
        .text("", format!("(v{}) {kind}", express.version))
        .either(&[
            ("MSI", Value::Hex(u64::from(message))),
            ("IntMsgNum", Value::Text(message.to_string())),
        ]);
    if express.flit_mode {
        fields
            .presence(Presence::Perhaps)
            .text("FLIT Mode Supported", "");
    }
    device(port, express.device(cfg, at), fields);
    if let Some(registers) = express.link(cfg, at)? {
        link(port, registers, fields);
    }
    if let Some(registers) = express.slot_registers(cfg, at) {
        slot(registers, fields);
    }
    if let Some(registers) = express.root(cfg, at)? {
        root(registers, fields);
    }
    if let Some(registers) = express.device2(cfg, at)? {
        device2(port, registers, fields);
    }
    if let Some(registers) = express.link2(cfg, at)? {
        link2(source, port, registers, fields);
    }
    Ok(())
}

const ENDPOINTS: [PortType; 2] = [PortType::Endpoint, PortType::LegacyEndpoint];

fn device(port: PortType, registers: DeviceRegisters, fields: &mut Fields) {
    let capabilities = registers.capabilities;
    fields
        .line("DevCap")
        .text("MaxPayload", bytes(capabilities.payload_log2()))
        .text(
            "PhantFunc",
            ((1u8 << capabilities.phantom_bits()) - 1).to_string(),
        );
    if ENDPOINTS.contains(&port) {
        fields
            .text("Latency L0s", words::l0s(capabilities.l0s_latency()))
            .text("L1", words::l1(capabilities.l1_latency()));
    }
    fields.flag(
        "ExtTag",
        capabilities.contains(DeviceCapabilities::EXTENDED_TAG),
    );
    let faces_slot = [PortType::UpstreamPort, PortType::ToConventionalBridge].contains(&port);
    if ENDPOINTS.contains(&port) || faces_slot {
        fields
            .flag(
                "AttnBtn",
                capabilities.contains(DeviceCapabilities::ATTENTION_BUTTON),
            )
            .flag(
                "AttnInd",
                capabilities.contains(DeviceCapabilities::ATTENTION_INDICATOR),
            )
            .flag(
                "PwrInd",
                capabilities.contains(DeviceCapabilities::POWER_INDICATOR),
            );
    }
    fields.flag(
        "RBE",
        capabilities.contains(DeviceCapabilities::ROLE_BASED_ERRORS),
    );
    let can_reset = ENDPOINTS.contains(&port) || port == PortType::IntegratedEndpoint;
    let resets = capabilities.contains(DeviceCapabilities::FUNCTION_LEVEL_RESET);
    if can_reset {
        fields.flag("FLReset", resets);
    }
    if port == PortType::Endpoint || faces_slot {
        let limit = words::power(capabilities.slot_power_limit());
        fields.text("SlotPowerLimit", limit);
    }
    fields.presence(Presence::Perhaps).flag(
        "TEE-IO",
        capabilities.contains(DeviceCapabilities::TRUSTED_IO),
    );

    let control = registers.control;
    fields
        .line("DevCtl")
        .flag(
            "CorrErr",
            control.contains(DeviceControl::REPORT_CORRECTABLE),
        )
        .flag(
            "NonFatalErr",
            control.contains(DeviceControl::REPORT_NON_FATAL),
        )
        .flag("FatalErr", control.contains(DeviceControl::REPORT_FATAL))
        .flag(
            "UnsupReq",
            control.contains(DeviceControl::REPORT_UNSUPPORTED),
        )
        .flag("RlxdOrd", control.contains(DeviceControl::RELAXED_ORDERING))
        .flag("ExtTag", control.contains(DeviceControl::EXTENDED_TAG))
        .flag(
            "PhantFunc",
            control.contains(DeviceControl::PHANTOM_FUNCTIONS),
        )
        .flag("AuxPwr", control.contains(DeviceControl::AUXILIARY_POWER))
        .flag("NoSnoop", control.contains(DeviceControl::NO_SNOOP));
    let top = control.contains(DeviceControl::INITIATE_FLR);
    if port == PortType::ToConventionalBridge {
        fields.flag("BrConfRtry", top);
    }
    if can_reset && resets {
        fields.flag("FLReset", top);
    }
    fields
        .text("MaxPayload", bytes(control.payload_log2()))
        .text("MaxReadReq", bytes(control.read_request_log2()));

    let status = registers.status;
    fields
        .line("DevSta")
        .flag("CorrErr", status.contains(DeviceStatus::CORRECTABLE))
        .flag("NonFatalErr", status.contains(DeviceStatus::NON_FATAL))
        .flag("FatalErr", status.contains(DeviceStatus::FATAL))
        .flag("UnsupReq", status.contains(DeviceStatus::UNSUPPORTED))
        .flag("AuxPwr", status.contains(DeviceStatus::AUXILIARY_POWER))
        .flag(
            "TransPend",
            status.contains(DeviceStatus::TRANSACTIONS_PENDING),
        );
}

fn bytes(log2: u8) -> String {
    format!("{} bytes", 128u32 << log2)
}

fn link(port: PortType, registers: LinkRegisters, fields: &mut Fields) {
    let LinkRegisters {
        capabilities,
        control,
        status,
    } = registers;
    let aspm = capabilities.power_management();
    fields
        .line("LnkCap")
        .text("Port", capabilities.port().to_string())
        .text("Speed", words::speed(capabilities.max_speed()))
        .text("Width", format!("x{}", capabilities.max_width()))
        .text(
            "ASPM",
            words::of(&["not supported", "L0s", "L1", "L0s L1"], aspm, ""),
        );
    if aspm & 1 != 0 {
        let latency = words::l0s(capabilities.l0s_exit_latency());
        fields.text("Exit Latency L0s", latency);
    }
    if aspm & 2 != 0 {
        let name = ["Exit Latency L1", "L1"][usize::from(aspm & 1)];
        fields.text(name, words::l1(capabilities.l1_exit_latency()));
    }
    fields
        .flag(
            "ClockPM",
            capabilities.contains(LinkCapabilities::CLOCK_POWER_MANAGEMENT),
        )
        .flag(
            "Surprise",
            capabilities.contains(LinkCapabilities::SURPRISE_DOWN_REPORTING),
        )
        .flag(
            "LLActRep",
            capabilities.contains(LinkCapabilities::ACTIVE_REPORTING),
        )
        .flag(
            "BwNot",
            capabilities.contains(LinkCapabilities::BANDWIDTH_NOTIFICATION),
        )
        .flag(
            "ASPMOptComp",
            capabilities.contains(LinkCapabilities::ASPM_OPTIONALITY),
        );

    let in_force = ["Disabled", "L0s Enabled", "L1 Enabled", "L0s L1 Enabled"];
    fields
        .line("LnkCtl")
        .text("ASPM", words::of(&in_force, control.power_management(), ""));
    let has_boundary = [PortType::RootPort, PortType::ToConventionalBridge].contains(&port);
    if has_boundary || ENDPOINTS.contains(&port) {
        let is_wide = control.contains(LinkControl::COMPLETION_BOUNDARY_128);
        let boundary = if is_wide { "128 bytes" } else { "64 bytes" };
        fields.text("RCB", boundary);
    }
    fields
        .flag_named(
            &["Disabled", "LnkDisable"],
            control.contains(LinkControl::DISABLE),
        )
        .flag("CommClk", control.contains(LinkControl::COMMON_CLOCK))
        .flag("ExtSynch", control.contains(LinkControl::EXTENDED_SYNCH))
        .flag(
            "ClockPM",
            control.contains(LinkControl::CLOCK_POWER_MANAGEMENT),
        )
        .flag(
            "AutWidDis",
            control.contains(LinkControl::WIDTH_CHANGE_DISABLE),
        )
        .flag("BWInt", control.contains(LinkControl::BANDWIDTH_INTERRUPT))
        .flag(
            "AutBWInt",
            control.contains(LinkControl::AUTONOMOUS_INTERRUPT),
        )
        .presence(Presence::Perhaps)
        .flag(
            "FltModeDis",
            control.contains(LinkControl::FLIT_MODE_DISABLE),
        );

    let speed = words::speed(status.speed());
    let speed_rank = rank(port, status.speed(), capabilities.max_speed());
    let width_rank = rank(port, status.width(), capabilities.max_width());
    fields
        .line("LnkSta")
        .text("Speed", format!("{speed}{speed_rank}"))
        .text("Width", format!("x{}{width_rank}", status.width()))
        .flag("TrErr", status.contains(LinkStatus::TRAINING_ERROR))
        .flag("Train", status.contains(LinkStatus::TRAINING))
        .flag("SlotClk", status.contains(LinkStatus::SLOT_CLOCK))
        .flag("DLActive", status.contains(LinkStatus::ACTIVE))
        .flag("BWMgmt", status.contains(LinkStatus::BANDWIDTH_CHANGED))
        .flag("ABWMgmt", status.contains(LinkStatus::AUTONOMOUS_CHANGED));
}

/// Whether a link runs as well as it could. A downstream port does as well as what is below it.
fn rank(port: PortType, now: u8, best: u8) -> &'static str {
    match now.cmp(&best) {
        std::cmp::Ordering::Greater => " (overdriven)",
        std::cmp::Ordering::Less if !port.is_downstream() => " (downgraded)",
        _ => "",
    }
}

fn slot(registers: SlotRegisters, fields: &mut Fields) {
    let capabilities = registers.capabilities;
    fields
        .line("SltCap")
        .flag(
            "AttnBtn",
            capabilities.contains(SlotCapabilities::ATTENTION_BUTTON),
        )
        .flag(
            "PwrCtrl",
            capabilities.contains(SlotCapabilities::POWER_CONTROLLER),
        )
        .flag("MRL", capabilities.contains(SlotCapabilities::LATCH_SENSOR))
        .flag(
            "AttnInd",
            capabilities.contains(SlotCapabilities::ATTENTION_INDICATOR),
        )
        .flag(
            "PwrInd",
            capabilities.contains(SlotCapabilities::POWER_INDICATOR),
        )
        .flag("HotPlug", capabilities.contains(SlotCapabilities::HOT_PLUG))
        .flag(
            "Surprise",
            capabilities.contains(SlotCapabilities::SURPRISE),
        )
        .text("Slot", capabilities.number().to_string())
        .text("PowerLimit", words::power(capabilities.power_limit()))
        .flag(
            "Interlock",
            capabilities.contains(SlotCapabilities::INTERLOCK),
        )
        .flag(
            "NoCompl",
            capabilities.contains(SlotCapabilities::NO_COMMAND_COMPLETED),
        );
    let control = registers.control;
    let indicators = ["Unknown", "On", "Blink", "Off"];
    let indicator = |state: u16| words::of(&indicators, state as u8, "");
    fields
        .line("SltCtl")
        .flag(
            "Enable: AttnBtn",
            control.contains(SlotControl::ATTENTION_BUTTON),
        )
        .flag("Enable: PwrFlt", control.contains(SlotControl::POWER_FAULT))
        .flag("Enable: MRL", control.contains(SlotControl::LATCH_CHANGED))
        .flag(
            "Enable: PresDet",
            control.contains(SlotControl::PRESENCE_CHANGED),
        )
        .flag(
            "Enable: CmdCplt",
            control.contains(SlotControl::COMMAND_COMPLETED),
        )
        .flag("Enable: HPIrq", control.contains(SlotControl::INTERRUPT))
        .flag(
            "Enable: LinkChg",
            control.contains(SlotControl::LINK_CHANGED),
        )
        .text("Control: AttnInd", indicator(control.attention_indicator()))
        .text("PwrInd", indicator(control.power_indicator()))
        .flag("Power", control.contains(SlotControl::POWER_OFF))
        .flag("Interlock", control.contains(SlotControl::INTERLOCK));
    let status = registers.status;
    fields
        .line("SltSta")
        .flag(
            "Status: AttnBtn",
            status.contains(SlotStatus::ATTENTION_BUTTON),
        )
        .flag("Status: PowerFlt", status.contains(SlotStatus::POWER_FAULT))
        .flag("Status: MRL", status.contains(SlotStatus::LATCH_OPEN))
        .flag(
            "Status: CmdCplt",
            status.contains(SlotStatus::COMMAND_COMPLETED),
        )
        .flag("Status: PresDet", status.contains(SlotStatus::PRESENT))
        .flag("Status: Interlock", status.contains(SlotStatus::INTERLOCK))
        .flag("Changed: MRL", status.contains(SlotStatus::LATCH_CHANGED))
        .flag(
            "Changed: PresDet",
            status.contains(SlotStatus::PRESENCE_CHANGED),
        )
        .flag(
            "Changed: LinkState",
            status.contains(SlotStatus::LINK_CHANGED),
        );
}

fn root(registers: RootRegisters, fields: &mut Fields) {
    let visible = registers
        .capabilities
        .contains(RootCapabilities::RETRY_VISIBLE);
    fields.line("RootCap").flag("CRSVisible", visible);
    let control = registers.control;
    fields
        .line("RootCtl")
        .flag("ErrCorrectable", control.contains(RootControl::CORRECTABLE))
        .flag("ErrNon-Fatal", control.contains(RootControl::NON_FATAL))
        .flag("ErrFatal", control.contains(RootControl::FATAL))
        .flag("PMEIntEna", control.contains(RootControl::PME_INTERRUPT))
        .flag("CRSVisible", control.contains(RootControl::RETRY_VISIBLE));
    let status = registers.status;
    fields
        .line("RootSta")
        .hex("PME ReqID", status.pme_requester())
        .flag("PMEStatus", status.contains(RootStatus::PME))
        .flag("PMEPending", status.contains(RootStatus::PME_PENDING));
}

fn device2(port: PortType, registers: Device2Registers, fields: &mut Fields) {
    let capabilities = registers.capabilities;
    let flush = [
        "Not Supported",
        "Via message",
        "Via WAKE#",
        "Via message/WAKE#",
    ];
    let power = [
        "Not Supported",
        "Dev Specific",
        "Form Factor Dev Specific",
        "Reserved",
    ];
    let ranges = words::timeout_ranges(capabilities.timeout_ranges());
    let has_prefix = capabilities.contains(DeviceCapabilities2::END_TO_END_PREFIX);
    fields
        .line("DevCap2")
        .text("Completion Timeout", ranges)
        .flag(
            "TimeoutDis",
            capabilities.contains(DeviceCapabilities2::TIMEOUT_DISABLE),
        )
        .flag(
            "NROPrPrP",
            capabilities.contains(DeviceCapabilities2::NO_RELAXED_PASSING),
        )
        .flag(
            "LTR",
            capabilities.contains(DeviceCapabilities2::LATENCY_TOLERANCE),
        )
        .flag(
            "10BitTagComp",
            capabilities.contains(DeviceCapabilities2::TAG10_COMPLETER),
        )
        .flag(
            "10BitTagReq",
            capabilities.contains(DeviceCapabilities2::TAG10_REQUESTER),
        )
        .text("OBFF", words::of(&flush, capabilities.buffer_flush(), ""))
        .flag(
            "ExtFmt",
            capabilities.contains(DeviceCapabilities2::EXTENDED_FORMAT),
        )
        .flag("EETLPPrefix", has_prefix);
    if has_prefix {
        fields.text("MaxEETLPPrefixes", capabilities.max_prefixes().to_string());
    }
    let emergency = words::of(&power, capabilities.emergency_power(), "");
    let initialize = capabilities.contains(DeviceCapabilities2::EMERGENCY_POWER_INIT);
    fields
        .text("EmergencyPowerReduction", emergency)
        .flag("EmergencyPowerReductionInit", initialize)
        .flag(
            "FRS",
            capabilities.contains(DeviceCapabilities2::READINESS_STATUS),
        );
    let is_root = port == PortType::RootPort;
    if is_root {
        let lines = [
            "Not Supported",
            "64byte cachelines",
            "128byte cachelines",
            "Reserved",
        ];
        let line = words::of(&lines, capabilities.notification_line(), "");
        fields.text("LN System CLS", line);
    }
    let hints = capabilities.processing_hints();
    // The reserved value leaves no words.
    if (is_root || port == PortType::Endpoint) && hints != 2 {
        fields
            .flag("TPHComp", hints & 1 != 0)
            .flag("ExtTPHComp", hints == 3);
    }
    let is_downstream = [PortType::RootPort, PortType::DownstreamPort].contains(&port);
    let routes = is_downstream || port == PortType::UpstreamPort;
    if is_downstream {
        fields.flag(
            "ARIFwd",
            capabilities.contains(DeviceCapabilities2::ARI_FORWARDING),
        );
    }
    if routes {
        let routing = capabilities.contains(DeviceCapabilities2::ATOMIC_ROUTING);
        fields.flag("AtomicOpsCap: Routing", routing);
    }
    // Shown of whom lspci takes for a completer.
    fields
        .presence(Presence::Perhaps)
        .flag(
            "AtomicOpsCap: 32bit",
            capabilities.contains(DeviceCapabilities2::ATOMIC_32),
        )
        .flag(
            "AtomicOpsCap: 64bit",
            capabilities.contains(DeviceCapabilities2::ATOMIC_64),
        )
        .flag(
            "AtomicOpsCap: 128bitCAS",
            capabilities.contains(DeviceCapabilities2::CAS_128),
        );

    let control = registers.control;
    let flush = ["Disabled", "Via message A", "Via message B", "Via WAKE#"];
    fields
        .line("DevCtl2")
        .text("Completion Timeout", words::timeout(control.timeout()))
        .flag(
            "TimeoutDis",
            control.contains(DeviceControl2::TIMEOUT_DISABLE),
        )
        .flag("LTR", control.contains(DeviceControl2::LATENCY_TOLERANCE))
        .flag(
            "10BitTagReq",
            control.contains(DeviceControl2::TAG10_REQUESTER),
        )
        .text("OBFF", words::of(&flush, control.buffer_flush(), ""));
    if is_downstream {
        fields.flag("ARIFwd", control.contains(DeviceControl2::ARI_FORWARDING));
    }
    let requests = is_root || ENDPOINTS.contains(&port) || port == PortType::IntegratedEndpoint;
    if requests {
        let enabled = control.contains(DeviceControl2::ATOMIC_REQUESTER);
        fields.flag("AtomicOpsCtl: ReqEn", enabled);
    }
    if routes {
        let blocked = control.contains(DeviceControl2::ATOMIC_EGRESS_BLOCK);
        fields.flag("AtomicOpsCtl: EgressBlck", blocked);
    }
    fields
        .presence(Presence::Perhaps)
        .flag(
            "IDOReq",
            control.contains(DeviceControl2::ID_ORDERED_REQUESTS),
        )
        .flag(
            "IDOCompl",
            control.contains(DeviceControl2::ID_ORDERED_COMPLETIONS),
        )
        .flag(
            "EmergencyPowerReductionReq",
            control.contains(DeviceControl2::EMERGENCY_POWER_REQUEST),
        )
        .flag(
            "EETLPPrefixBlk",
            control.contains(DeviceControl2::PREFIX_BLOCK),
        );
}

fn link2(source: Source<'_>, port: PortType, registers: Link2Registers, fields: &mut Fields) {
    let Link2Registers {
        capabilities,
        control,
        status,
    } = registers;
    // Of an endpoint only the first function of the first device is shown in full.
    let is_first = source.at.device() == 0 && source.at.function() == 0;
    let in_full = !ENDPOINTS.contains(&port) || is_first;
    if in_full && capabilities.bits() != 0 {
        fields
            .line("LnkCap2")
            .text(
                "Supported Link Speeds",
                words::speeds(capabilities.speeds()),
            )
            .flag(
                "Crosslink",
                capabilities.contains(LinkCapabilities2::CROSSLINK),
            )
            .flag("Retimer", capabilities.contains(LinkCapabilities2::RETIMER))
            .flag(
                "2Retimers",
                capabilities.contains(LinkCapabilities2::TWO_RETIMERS),
            )
            .flag(
                "DRS",
                capabilities.contains(LinkCapabilities2::READINESS_STATUS),
            );
    }
    let level = |is_low: bool| if is_low { "-3.5dB" } else { "-6dB" };
    if in_full {
        let preset = words::compliance_preset(control.compliance_preset());
        fields
            .line("LnkCtl2")
            .text(
                "Target Link Speed",
                words::target_speed(control.target_speed()),
            )
            .flag(
                "EnterCompliance",
                control.contains(LinkControl2::ENTER_COMPLIANCE),
            )
            .flag(
                "SpeedDis",
                control.contains(LinkControl2::SPEED_CHANGE_DISABLE),
            );
        if port == PortType::DownstreamPort {
            let selected = level(control.contains(LinkControl2::SELECT_DEEMPHASIS));
            fields.text("Selectable De-emphasis", selected);
        }
        let margin = words::transmit_margin(control.transmit_margin());
        fields
            .text("Transmit Margin", margin)
            .flag(
                "EnterModifiedCompliance",
                control.contains(LinkControl2::MODIFIED_COMPLIANCE),
            )
            .flag(
                "ComplianceSOS",
                control.contains(LinkControl2::COMPLIANCE_SKIP),
            )
            .text("Compliance Preset/De-emphasis", preset);
    }
    let crosslink = [
        "unsupported",
        "Upstream Port",
        "Downstream Port",
        "incomplete",
    ];
    fields
        .line("LnkSta2")
        .text(
            "Current De-emphasis Level",
            level(status.contains(LinkStatus2::DEEMPHASIS)),
        )
        .flag(
            "EqualizationComplete",
            status.contains(LinkStatus2::EQUALIZED),
        )
        .flag(
            "EqualizationPhase1",
            status.contains(LinkStatus2::EQUALIZATION_1),
        )
        .flag(
            "EqualizationPhase2",
            status.contains(LinkStatus2::EQUALIZATION_2),
        )
        .flag(
            "EqualizationPhase3",
            status.contains(LinkStatus2::EQUALIZATION_3),
        )
        .flag(
            "LinkEqualizationRequest",
            status.contains(LinkStatus2::EQUALIZATION_REQUEST),
        )
        .flag("Retimer", status.contains(LinkStatus2::RETIMER))
        .flag("2Retimers", status.contains(LinkStatus2::TWO_RETIMERS))
        .text(
            "CrosslinkRes",
            words::of(&crosslink, status.crosslink(), ""),
        );
    if port.is_downstream() && capabilities.contains(LinkCapabilities2::READINESS_STATUS) {
        let component = match status.component() {
            0 => "Link Down - Not Determined",
            1 => "Link Down - Not Present",
            2 => "Link Down - Present",
            4 => "Link Up - Present",
            5 => "Link Up - Present and DRS Received",
            _ => "Reserved",
        };
        fields
            .flag("DRS", status.contains(LinkStatus2::READINESS_RECEIVED))
            .text("DownstreamComp", component);
    }
    fields
        .presence(Presence::Perhaps)
        .flag("FltMode", status.contains(LinkStatus2::FLIT_MODE));
}
