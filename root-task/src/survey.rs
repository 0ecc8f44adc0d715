//! What configuration space shows: host bridges, what they decode, and which
//! devices remapping units are for. It is only read, save for BARs, which are sized.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use hw::acpi::Platform;
use hw::enumeration::{Found, Function, HostBridge, enumerate};
use hw::header::{Bridge, Layout};
use hw::{BusRange, ConfigSpace, bar};
use root_core::facts::{Host, Ports};
use root_core::region::Region;
use root_core::units::{self, Resolved};

use crate::say;
use crate::voice::Voice;

/// What configuration space shows.
pub struct Survey {
    /// Host bridges, by segment and bus.
    pub hosts: Vec<Host>,
    /// Remapping units and reserved regions.
    pub units: Resolved,
}

/// Looks at all functions on these buses, and for those that remapping units are for.
pub fn survey<C: ConfigSpace>(
    cfg: &mut C,
    buses: &[(u16, BusRange)],
    platform: &Platform,
    voice: &mut Voice,
) -> Survey {
    let mut hosts = Vec::new();
    for (segment, buses) in buses {
        hosts.extend(host_bridges(cfg, *segment, *buses, voice));
    }
    if hosts.len() > 1 {
        for (host, functions) in &mut hosts {
            host.windows = decoded(cfg, functions);
        }
    }
    let units = match &platform.remapping {
        Ok(Some(plan)) => units::resolve(plan, &*cfg),
        _ => Resolved::default(),
    };
    for trouble in &units.troubles {
        say!(voice, "{trouble}");
    }
    Survey {
        hosts: hosts.into_iter().map(|(host, _)| host).collect(),
        units,
    }
}

/// The host bridges of some buses, each with the functions on its root bus.
fn host_bridges<C: ConfigSpace>(
    cfg: &C,
    segment: u16,
    buses: BusRange,
    voice: &mut Voice,
) -> Vec<(Host, Vec<Function>)> {
    let mut hosts: Vec<(HostBridge, Ports, Vec<Function>)> = Vec::new();
    let mut on_root: Vec<Function> = Vec::new();
    let mut ports = Ports::None;
    let _ = enumerate(cfg, segment, buses, |found| {
        if let Found::Function(function) = &found
            && reports(function)
        {
            ports = Ports::Some;
        }
        match found {
            Found::Function(function) if function.parent.is_none() => on_root.push(function),
            Found::Function(_) => {}
            Found::Host(host) => {
                let functions = core::mem::take(&mut on_root);
                hosts.push((host, core::mem::take(&mut ports), functions));
            }
            Found::Fault { at, fault } => say!(voice, "{at}: {fault}"),
        }
        ControlFlow::<()>::Continue(())
    });
    let host = |(host, ports, functions): (HostBridge, _, _)| {
        (
            Host {
                segment: host.segment,
                buses: host.buses,
                windows: Vec::new(),
                ports,
                proximity: None,
                resources: None,
            },
            functions,
        )
    };
    hosts.into_iter().map(host).collect()
}

/// Class code of root complex event collectors (PCI Code and ID Assignment 1.11, 1.9).
const EVENT_COLLECTOR: (u8, u8) = (0x08, 0x07);

/// Can the function report hot-plug or errors of others?
fn reports(function: &Function) -> bool {
    let class = function.class();
    function.header.layout == Layout::Bridge || (class.base, class.sub) == EVENT_COLLECTOR
}

/// Memory that functions decode: BARs and windows of bridges, as programmed. Decoding is off for a moment, while
/// BARs are sized: nothing uses the devices yet.
fn decoded<C: ConfigSpace>(cfg: &mut C, functions: &[Function]) -> Vec<Region> {
    let mut regions = Vec::new();
    for function in functions {
        if function.header.layout == Layout::Bridge {
            let bridge = Bridge::read(&*cfg, function.at);
            let windows = [bridge.memory, bridge.prefetchable].into_iter().flatten();
            regions.extend(
                windows.filter_map(|window| Region::new(window.base, window.limit.checked_add(1)?)),
            );
        }
        // A function that vanishes decodes nothing; the pci-server reports it.
        let Ok(bars) = bar::probe(cfg, function.at, &function.header) else {
            continue;
        };
        let placed = bars
            .iter()
            .filter(|bar| bar.space.is_memory() && bar.address != 0);
        regions.extend(placed.filter_map(|bar| Region::sized(bar.address, bar.size)));
        let rom = bars.rom().filter(|rom| rom.address != 0);
        regions.extend(rom.and_then(|rom| Region::sized(rom.address, rom.size)));
    }
    regions
}
