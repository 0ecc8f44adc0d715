//! The functions of the machine, as a client sees them that may look: for the
//! host to compare, and as dumps.

use core::fmt::Write;

use client::report::metric;
use client::{Administrator, BarKind, Error, Inspector, Platform, Sbdf};
use sel4_client::SeL4Platform;

use crate::Probe;

/// Buses of a bridge: secondary and subordinate (PCIe 5.0, 7.5.1.3.4).
const BUSES: u16 = 0x18;
/// Header type.
const HEADER_TYPE: u16 = 0x0c;

/// Says each function in the form that the host compares with its own list, then marks `listed`.
pub fn list(probe: &Probe) -> Result<(), Error> {
    let inspector = Inspector::new(probe.platform, probe.info).ok_or(Error::NotFound)?;
    let mut count = 0;
    for &(shard, ..) in &probe.info.pci {
        let port = inspector.pci(shard);
        for (index, held) in (0..).zip(inspector.functions(shard)) {
            let held = held?;
            let mut bars = heapless::String::<320>::new();
            for bar in 0..=6 {
                let Ok(region) = port.holder_bar(index, bar) else {
                    continue;
                };
                let kind = match region.kind {
                    BarKind::None => continue,
                    BarKind::Io => "io",
                    BarKind::Memory32 => "mem32",
                    BarKind::Memory64 => "mem64",
                };
                let comma = if bars.is_empty() { "" } else { "," };
                let _ = write!(
                    bars,
                    "{comma}{bar}:{kind}:{:#x}:{:#x}",
                    region.base, region.bytes
                );
            }
            let mut buses = heapless::String::<8>::new();
            if let Some((secondary, subordinate)) = bridge_buses(&inspector, shard, held.device)? {
                let _ = write!(buses, "{secondary:02x}-{subordinate:02x}");
            }
            probe.platform.log(format_args!(
                "@function {} {:04x}:{:04x} class={:06x} buses={} bars={}",
                held.device,
                held.ids & 0xffff,
                held.ids >> 16,
                held.class,
                or_dash(&buses),
                or_dash(&bars),
            ));
            count += 1;
        }
    }
    probe.platform.log(format_args!("@mark listed"));
    probe.check("listed", count > 0, format_args!("{count} functions"));
    Ok(())
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Secondary and subordinate bus, where the function is a bridge.
fn bridge_buses(
    inspector: &Inspector<'static, SeL4Platform>,
    shard: u8,
    device: Sbdf,
) -> Result<Option<(u8, u8)>, Error> {
    let words = inspector.raw_config(shard, device, 0)?;
    let mut header = [0; 64];
    for (bytes, word) in header.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let byte = |at: u16| header.get(usize::from(at)).copied().unwrap_or(0);
    let is_bridge = byte(HEADER_TYPE + 2) & 0x7f == 1;
    Ok(is_bridge.then(|| (byte(BUSES + 1), byte(BUSES + 2))))
}

/// Both dumps: the readable one with holders, and the one for `lspci -F`.
pub fn dump(probe: &Probe) -> Result<(), Error> {
    let inspector = Inspector::new(probe.platform, probe.info).ok_or(Error::NotFound)?;
    let count = inspector.dump(|line| probe.platform.log(format_args!("{line}")))?;
    probe.platform.log(format_args!("--- for lspci -F"));
    inspector.dump_hex(|line| probe.platform.log(format_args!("{line}")))?;
    probe.platform.log(format_args!("---"));
    probe.platform.log(format_args!("@mark dumped"));
    probe.check("dumped", count > 0, format_args!("{count} functions"));
    Ok(())
}

/// Scans every shard's buses again, with nothing changed; says what a function costs.
pub fn rescan(probe: &Probe) -> Result<(), Error> {
    let administrator = Administrator::new(probe.platform, probe.info).ok_or(Error::NotFound)?;
    for &(shard, ..) in &probe.info.pci {
        let port = administrator.pci(shard);
        // The first may be the one that fills caches.
        port.rescan()?;
        let row = port.rescan()?;
        probe.check(
            "nothing_changed",
            row.functions > 0 && (row.added, row.removed) == (0, 0),
            format_args!("{row:?}"),
        );
        metric(probe.platform, "functions", row.functions.into());
        let each = row.ticks.checked_div(row.functions.into());
        metric(probe.platform, "rescan_per_function", each.unwrap_or(0));
    }
    Ok(())
}
