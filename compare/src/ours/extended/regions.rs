//! Fields of the capabilities that are about regions: virtual functions' and resizable ones.

use hw::bar::{Register, Space};
use hw::capability::{Resizable, SrIov, SrIovCapabilities, SrIovControl};

use crate::field::{Fields, Value};
use crate::ours::{Source, header};

/// SR-IOV.
pub fn sr_iov(source: Source<'_>, physical: &SrIov, fields: &mut Fields) {
    let capabilities = physical.capabilities;
    let message = capabilities.migration_message();
    fields
        .line("IOVCap")
        .flag(
            "Migration",
            capabilities.contains(SrIovCapabilities::MIGRATION),
        )
        .flag(
            "10BitTagReq",
            capabilities.contains(SrIovCapabilities::TAG10_REQUESTER),
        )
        .either(&[
            ("Interrupt Message Number", Value::Hex(u64::from(message))),
            ("IntMsgNum", Value::Text(message.to_string())),
        ]);
    let control = physical.control;
    fields
        .line("IOVCtl")
        .flag("Enable", control.contains(SrIovControl::VF_ENABLE))
        .flag(
            "Migration",
            control.contains(SrIovControl::MIGRATION_ENABLE),
        )
        .flag(
            "Interrupt",
            control.contains(SrIovControl::MIGRATION_INTERRUPT),
        )
        .flag("MSE", control.contains(SrIovControl::VF_MEMORY_SPACE))
        .flag(
            "ARIHierarchy",
            control.contains(SrIovControl::ARI_HIERARCHY),
        )
        .flag(
            "10BitTagReq",
            control.contains(SrIovControl::TAG10_REQUESTER),
        );
    fields
        .line("IOVSta")
        .flag("Migration", physical.status & 1 != 0);
    fields
        .line("Initial VFs")
        .text("", physical.initial.to_string())
        .text("Total VFs", physical.total.to_string())
        .text("Number of VFs", physical.count.to_string())
        .hex("Function Dependency Link", physical.dependency);
    fields
        .line("VF offset")
        .text("", physical.first_offset.to_string())
        .text("stride", physical.stride.to_string())
        .hex("Device ID", physical.device);
    fields
        .line("Supported Page Size")
        .hex("", physical.supported_pages)
        .hex("System Page Size", physical.system_page);
    let registers = physical.bars(source.cfg, source.at);
    for (index, register) in registers.into_iter().enumerate() {
        // Virtual functions have no ports: hw leaves it to its caller to refuse them.
        if let Register::Region { space, address } = register
            && space != Space::Io
        {
            fields
                .line(&format!("Region {index}"))
                .text("", header::region(space, address));
        }
    }
    fields
        .line("VF Migration")
        .hex("offset", physical.migration_state & !7)
        .hex("BIR", physical.migration_state & 7);
}

/// Resizable BARs.
pub fn resizable(bars: &[Resizable], fields: &mut Fields) {
    for bar in bars {
        let supported: Vec<String> = bar.sizes().map(|bytes| size(Some(bytes))).collect();
        fields
            .line(&format!("BAR {}", bar.bar))
            .text("current size", size(bar.bytes()));
        if !supported.is_empty() {
            fields.text("supported", supported.join(" "));
        }
    }
}

/// A power of two of at least 1 MiB with its largest unit.
fn size(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else {
        return "<unknown>".to_owned();
    };
    let log2 = bytes.trailing_zeros();
    let units = ["MB", "GB", "TB", "PB", "EB"];
    let unit = (log2 / 10).saturating_sub(2);
    let unit_name = units.get(unit as usize).copied().unwrap_or("");
    format!("{}{unit_name}", bytes >> (10 * (unit + 2)))
}
