//! Fields of the device's own registers.

use hw::capability::{
    Device2Registers, DeviceCapabilities, DeviceCapabilities2, DeviceControl, DeviceControl2,
    DeviceRegisters, DeviceStatus, PortType,
};

use super::ENDPOINTS;
use crate::field::{Fields, Presence};
use crate::ours::words;

/// Device Capabilities, Control and Status.
pub fn first(port: PortType, registers: DeviceRegisters, fields: &mut Fields) {
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

/// Device Capabilities 2 and Control 2.
pub fn second(port: PortType, registers: Device2Registers, fields: &mut Fields) {
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
