//! A machine of 64 segments with 1,000,000 functions, each segment a shard that boots as the server does:
//! every function is found and comes to rest, in memory bounded for each.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;
mod lazy;

use hw::Sbdf;
use ipc_proto::DeviceState;
use lazy::{BRIDGES, Lazy, Shape};
use pci_core::{Shard, Tables, Withheld};

/// Segments, one a shard.
const SEGMENTS: u16 = 64;
/// Functions of each: an even share of a million.
const SHARE: usize = 15_625;
/// A shard's memory, as large as it needs to be.
type Memory = Tables<u32, SHARE, 256, { 6 * SHARE }>;
/// Most bytes for each function: its entry, its BARs in order, and its share of all that a shard has.
const MOST_BYTES: usize = 1024;
/// Most configuration accesses for each, empty places included.
const MOST_ACCESSES: u64 = 100;

#[test]
fn a_million_functions_of_64_segments_come_to_rest_in_bounded_memory() {
    // An unoptimized program makes the tables on the stack.
    let work = std::thread::Builder::new().stack_size(256 << 20);
    work.spawn(all_segments).unwrap().join().unwrap();
}

fn all_segments() {
    let mut tables = Box::new(Memory::new());
    let bytes = size_of::<Memory>() + size_of::<Shard<'_, Lazy>>();
    let (mut functions, mut accesses) = (0u64, 0u64);
    for segment in 0..SEGMENTS {
        let world = Lazy::new(segment, SHARE as u32);
        let info = world.info(1);
        let shard = Shard::boot(world, &info, &[], tables.lend());
        functions += u64::from(shard.devices().len());
        accesses += shard.env().accesses();
        let log = shard.env().log.borrow().clone();
        assert_eq!(log, Vec::<String>::new());
        check(&shard, segment);
    }
    assert_eq!(functions, 1_000_000);
    let each = (bytes / SHARE, accesses / functions);
    println!(
        "{functions} functions in {SEGMENTS} segments: {} bytes, {} configuration accesses for each; {bytes} bytes a shard",
        each.0, each.1
    );
    assert!(each.0 <= MOST_BYTES && each.1 <= MOST_ACCESSES, "{each:?}");
}

/// Every function is in the table as it is in the machine, in order.
fn check(shard: &Shard<'_, Lazy>, segment: u16) {
    let (mut last, mut bridges) = (None, 0);
    for (_, device) in shard.devices().iter() {
        let at: Sbdf = device.at;
        assert!(at.segment() == segment && last < Some(at), "{at}");
        last = Some(at);
        let shape = shard.env().shape(at).unwrap();
        if at.bus() == 0 {
            bridges += 1;
            let why = match shape {
                Shape::HostBridge => Withheld::HostBridge,
                _ => Withheld::Bridge,
            };
            assert_eq!(device.withheld, Some(why), "{at}");
            continue;
        }
        assert_eq!(device.withheld, None, "{at}");
        assert_eq!(device.state, DeviceState::Quarantined, "{at}");
        assert_eq!(device.bars[0].bytes, 16 << 10, "{at}");
        assert!(device.bars[0].served, "{at}");
        assert_eq!(device.msi.is_some(), shape == Shape::Msi, "{at}");
        assert_eq!(device.msix.is_some(), shape == Shape::Express, "{at}");
        assert_eq!(device.power.is_some(), shape == Shape::Powered, "{at}");
        assert!(device.node.parent().is_some(), "{at}");
    }
    assert_eq!(bridges, BRIDGES);
}
