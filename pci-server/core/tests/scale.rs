//! Many functions: what each costs in memory, and that the table is not searched
//! from one end to the other where there are more of them. Costs are times, so the
//! bound is loose: it tells a search from a look, and no more.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::Instant;

use heapless::Vec;
use hw::Sbdf;
use pci_core::table::{Bus, Slot};
use pci_core::{Device, Table};

/// Functions of the largest table, over two segments.
const MOST: usize = 100_000;
/// Shards of the simulated machine, one a segment.
const SEGMENTS: u16 = 64;
/// Its functions.
const ALL: u32 = 1_000_000;
/// The largest shard: an even share of them.
const SHARE: usize = 15_625;

/// Runs on a stack that holds a table: an unoptimized program makes it there.
fn with_stack<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let thread = std::thread::Builder::new()
        .stack_size(512 << 20)
        .spawn(work);
    thread.unwrap().join().unwrap()
}

/// The `n`-th function: eight of a device, 32 devices a bus, 256 buses a segment.
fn address(n: u32) -> Sbdf {
    Sbdf::from_bits(n)
}

/// Nanoseconds of one call, the least of some rounds over addresses far apart.
fn nanos(count: u32, mut call: impl FnMut(u32)) -> u64 {
    const CALLS: u32 = 2_000;
    (0..5)
        .map(|_| {
            let start = Instant::now();
            for n in 0..CALLS {
                call(n.wrapping_mul(0x9e37_79b1) % count);
            }
            (start.elapsed().as_nanos() / u128::from(CALLS)) as u64
        })
        .min()
        .unwrap()
}

#[test]
fn a_function_is_found_as_fast_among_many_as_among_few() {
    let rows = with_stack(|| {
        let mut rows = std::vec::Vec::new();
        for count in [10u32, 1_000, 100_000] {
            let (mut slots, mut buses) =
                (Box::new(Vec::<Slot, MOST>::new()), Vec::<Bus, 512>::new());
            let mut table = Table::new(&mut *slots, &mut buses);
            for n in 0..count {
                let index = table.insert(Device::new(address(n), None)).unwrap();
                table.grant(index, 1 << (n % 2));
            }
            assert_eq!(table.len(), count);
            let find = nanos(count, |n| assert!(table.find(address(n)).is_some()));
            let next = nanos(count - 1, |n| {
                assert!(table.after(Some(address(n))).is_some())
            });
            // As a dump goes over all, and a client over its own.
            let (mut all, mut own) = (0, 0);
            let nth = nanos(count, |_| {
                assert_eq!(table.nth(all), table.find(address(all)));
                all = (all + 1) % count;
            });
            let granted = nanos(count, |_| {
                let index = table.nth_granted(0, own);
                assert_eq!(index, table.find(address(own * 2)));
                own = (own + 1) % count.div_ceil(2);
            });
            let replace = nanos(count, |n| {
                let index = table.find(address(n)).unwrap();
                let device = table.remove(index).unwrap();
                table.insert(device).unwrap();
            });
            rows.push((count, [find, next, nth, granted, replace]));
        }
        rows
    });
    println!("ns     functions       find      after        nth    granted  remove+insert");
    for (count, [find, next, nth, granted, replace]) in &rows {
        println!("{count:>16} {find:>10} {next:>10} {nth:>10} {granted:>10} {replace:>14}");
    }
    // Caches make a difference, and whether there is a next one; the number of functions makes none: a
    // search among 100,000 would cost thousands of times as much as among 10.
    let (few, many) = (rows[0].1, rows[2].1);
    for (few, many) in few.into_iter().zip(many) {
        assert!(
            many < few.max(100) * 60,
            "{few} ns among 10, {many} among 100,000"
        );
    }
}

#[test]
fn a_million_functions_in_64_segments_fit_in_bounded_memory() {
    let bytes = with_stack(|| {
        let mut total = (0u32, 0usize);
        let (mut slots, mut buses) = (Box::new(Vec::<Slot, SHARE>::new()), Vec::<Bus, 256>::new());
        for segment in 0..SEGMENTS {
            let mut table = Table::new(&mut *slots, &mut buses);
            for n in 0..SHARE as u32 {
                // Spread over all buses, as behind 256 bridges.
                let routing = ((n % 256) << 8) | (n / 256);
                let at = Sbdf::from_bits(u32::from(segment) << 16 | routing);
                table.insert(Device::new(at, None)).unwrap();
            }
            let mut count = 0;
            let mut last = None;
            for (_, device) in table.iter() {
                assert!(last < Some(device.at));
                last = Some(device.at);
                count += 1;
            }
            assert_eq!(count, table.len());
            total.0 += count;
            total.1 += SHARE * size_of::<Slot>() + 256 * size_of::<Bus>() + size_of::<Table<'_>>();
        }
        assert_eq!(total.0, ALL);
        total.1 / ALL as usize
    });
    println!("{bytes} bytes a function, with its share of directories");
    assert!(bytes <= 1024, "{bytes}");
}
