//! Scopes of remapping units on the buses of real machines: every function of every
//! dump is reached by its whole path, and every bridge takes exactly what is behind it.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod data_folder;
mod tables;

use std::collections::BTreeMap;

use data_folder::say;
use hw::Sbdf;
use hw::acpi::IommuPlan;
use hw::acpi::plan::Topology as _;
use portcullis_hw as hw;
use sim::config::Machine;
use tables::{dmar, drhd, scope};

/// Bridges from the root bus down to the function, the function last; found upwards, by the bridge
/// whose secondary bus is the function's.
fn path(above: &BTreeMap<(u16, u8), Sbdf>, at: Sbdf) -> Vec<Sbdf> {
    let mut path = vec![at];
    let mut bus = at.bus();
    while let Some(bridge) = above.get(&(at.segment(), bus)) {
        // A dump is no tree if firmware left it so.
        if path.contains(bridge) || path.len() == hw::acpi::MAX_PATH {
            break;
        }
        path.insert(0, *bridge);
        bus = bridge.bus();
    }
    path
}

fn hops(path: &[Sbdf]) -> Vec<(u8, u8)> {
    path.iter().map(|at| (at.device(), at.function())).collect()
}

#[test]
fn scopes_reach_every_function_of_a_real_machine() {
    let Some(folder) = data_folder::find("scopes on the buses of real machines") else {
        return;
    };
    let (mut functions, mut behind_bridges, mut bridges, mut longest) = (0, 0, 0, 0);
    let files = folder.join("pci").read_dir().unwrap();
    for file in files.map(|file| file.unwrap().path()) {
        if file.extension().is_none_or(|name| name != "hex") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let machine = Machine::from_lspci(&text).unwrap();
        let all: Vec<Sbdf> = machine.addresses().collect();
        let with_buses = all
            .iter()
            .filter_map(|at| Some((*at, machine.behind(*at)?)));
        let with_buses: Vec<_> = with_buses.collect();
        let above = with_buses
            .iter()
            .map(|(at, buses)| ((at.segment(), buses.first()), *at));
        let above: BTreeMap<_, _> = above.collect();
        let claims = |kind: u8, path: &[Sbdf]| {
            let first = path[0];
            let scope = scope(kind, 0, first.bus(), &hops(path));
            let unit = drhd(0, 0, first.segment(), 0xfed9_0000, &[scope]);
            let plan = IommuPlan::from_bytes(&dmar(0, &[unit])).unwrap();
            plan.claims(&machine).unwrap()
        };
        for at in &all {
            let path = path(&above, *at);
            functions += 1;
            behind_bridges += usize::from(path.len() > 1);
            longest = longest.max(path.len());
            let claims = claims(1, &path);
            let served: Vec<_> = all
                .iter()
                .filter(|at| claims.unit_of(**at).is_ok())
                .collect();
            assert_eq!(served, [at], "{}", file.display());
        }
        for (bridge, _) in &with_buses {
            bridges += 1;
            let claims = claims(2, &path(&above, *bridge));
            for at in &all {
                let expected = path(&above, *at).contains(bridge);
                let served = claims.unit_of(*at).is_ok();
                assert_eq!(served, expected, "{}: {at} and {bridge}", file.display());
            }
        }
    }
    say(&format!(
        "{functions} functions, {behind_bridges} of them behind bridges, by paths of up to {longest} steps; \
         {bridges} bridges"
    ));
    assert!(behind_bridges > 0 && bridges > 0);
}
