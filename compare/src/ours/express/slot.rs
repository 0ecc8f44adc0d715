//! Fields of the registers of slots and root ports.

use hw::capability::{
    RootCapabilities, RootControl, RootRegisters, RootStatus, SlotCapabilities, SlotControl,
    SlotRegisters, SlotStatus,
};

use crate::field::Fields;
use crate::ours::words;

/// Slot Capabilities, Control and Status.
pub fn slot(registers: SlotRegisters, fields: &mut Fields) {
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

/// Root Capabilities, Control and Status.
pub fn root(registers: RootRegisters, fields: &mut Fields) {
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
