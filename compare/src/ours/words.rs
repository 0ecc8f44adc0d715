//! The words that lspci has for encodings of the PCI Express capability.

use hw::capability::{PortType, PowerLimit};

/// A word of a table, or `otherwise` beyond it.
pub fn of<'w>(words: &[&'w str], index: u8, otherwise: &'w str) -> &'w str {
    words.get(usize::from(index)).copied().unwrap_or(otherwise)
}

/// A port type.
pub fn port(port: PortType, slot: bool) -> String {
    let name = match port {
        PortType::Endpoint => "Endpoint",
        PortType::LegacyEndpoint => "Legacy Endpoint",
        PortType::RootPort => "Root Port",
        PortType::UpstreamPort => "Upstream Port",
        PortType::DownstreamPort => "Downstream Port",
        PortType::ToConventionalBridge => "PCI-Express to PCI/PCI-X Bridge",
        PortType::FromConventionalBridge => "PCI/PCI-X to PCI-Express Bridge",
        PortType::IntegratedEndpoint => "Root Complex Integrated Endpoint",
        PortType::EventCollector => "Root Complex Event Collector",
    };
    match (port.is_downstream(), slot) {
        (false, _) => name.to_owned(),
        (true, true) => format!("{name} (Slot+)"),
        (true, false) => format!("{name} (Slot-)"),
    }
}

/// Watts with up to three decimals.
pub fn power(limit: PowerLimit) -> String {
    match limit.milliwatts() {
        None => ">600W".to_owned(),
        Some(milliwatts) => {
            let text = format!("{}.{:03}", milliwatts / 1000, milliwatts % 1000);
            let text = text.trim_end_matches('0').trim_end_matches('.');
            format!("{text}W")
        }
    }
}

/// Latency from L0s.
pub fn l0s(code: u8) -> &'static str {
    const WORDS: [&str; 7] = [
        "<64ns", "<128ns", "<256ns", "<512ns", "<1us", "<2us", "<4us",
    ];
    of(&WORDS, code, "unlimited")
}

/// Latency from L1.
pub fn l1(code: u8) -> &'static str {
    const WORDS: [&str; 7] = ["<1us", "<2us", "<4us", "<8us", "<16us", "<32us", "<64us"];
    of(&WORDS, code, "unlimited")
}

/// A link's speed.
pub fn speed(code: u8) -> &'static str {
    const WORDS: [&str; 8] = [
        "unknown", "2.5GT/s", "5GT/s", "8GT/s", "16GT/s", "32GT/s", "64GT/s", "128GT/s",
    ];
    of(&WORDS, code, "unknown")
}

/// The speed that a link aims at; before PCIe 2.0 the register reads zero.
pub fn target_speed(code: u8) -> &'static str {
    match code {
        0 => speed(1),
        1..=7 => speed(code),
        _ => "Unknown",
    }
}

/// The speeds that a link supports: all up to the highest.
pub fn speeds(vector: u8) -> String {
    match vector.checked_ilog2() {
        None => "Unknown".to_owned(),
        Some(0) => "2.5GT/s".to_owned(),
        Some(highest @ 1..=6) => format!("2.5-{}", speed(highest as u8 + 1)),
        Some(_) => "RsvdP".to_owned(),
    }
}

/// Completion timeout ranges, a bit each.
pub fn timeout_ranges(ranges: u8) -> String {
    match ranges {
        0 => "Not Supported".to_owned(),
        1 | 2 | 3 | 6 | 7 | 14 | 15 => {
            let letters = ['A', 'B', 'C', 'D'].into_iter().enumerate();
            let set = letters.filter(|(bit, _)| ranges >> bit & 1 != 0);
            format!("Range {}", set.map(|(_, c)| c).collect::<String>())
        }
        _ => "Unknown".to_owned(),
    }
}

/// A completion timeout.
pub fn timeout(code: u8) -> &'static str {
    match code {
        0 => "50us to 50ms",
        1 => "50us to 100us",
        2 => "1ms to 10ms",
        5 => "16ms to 55ms",
        6 => "65ms to 210ms",
        9 => "260ms to 900ms",
        10 => "1s to 3.5s",
        13 => "4s to 13s",
        14 => "17s to 64s",
        _ => "Unknown",
    }
}

/// A transmitter's voltage.
pub fn transmit_margin(code: u8) -> &'static str {
    match code {
        0 => "Normal Operating Range",
        1 => "800-1200mV(full-swing)/400-700mV(half-swing)",
        2..=5 => "200-400mV(full-swing)/100-200mV(half-swing)",
        _ => "Unknown",
    }
}

/// De-emphasis and preshoot of a compliance pattern.
pub fn compliance_preset(code: u8) -> String {
    // De-emphasis and preshoot of presets P0 to P9 (PCIe 5.0, table 4-23), as lspci rounds them.
    const PRESETS: [(&str, &str); 10] = [
        ("-6", "0"),
        ("-3.5", "0"),
        ("-4.4", "0"),
        ("-2.5", "0"),
        ("0", "0"),
        ("0", "1.9"),
        ("0", "2.5"),
        ("-6.0", "3.5"),
        ("-3.5", "3.5"),
        ("0", "3.5"),
    ];
    match PRESETS.get(usize::from(code)) {
        Some((de_emphasis, preshoot)) => {
            format!("{de_emphasis}dB de-emphasis, {preshoot}dB preshoot")
        }
        None => "Unknown".to_owned(),
    }
}
