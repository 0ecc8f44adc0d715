//! Fields of the link's registers.

use hw::capability::{
    Link2Registers, LinkCapabilities, LinkCapabilities2, LinkControl, LinkControl2, LinkRegisters,
    LinkStatus, LinkStatus2, PortType,
};

use super::ENDPOINTS;
use crate::field::{Fields, Presence};
use crate::ours::{Source, words};

/// Link Capabilities, Control and Status.
pub fn first(port: PortType, registers: LinkRegisters, fields: &mut Fields) {
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

/// Link Capabilities 2, Control 2 and Status 2.
pub fn second(source: Source<'_>, port: PortType, registers: Link2Registers, fields: &mut Fields) {
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
