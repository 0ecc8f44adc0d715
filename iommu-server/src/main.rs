//! iommu-server: decides which device reaches which memory.
//!
//! The first thing it does is to enable every unit with all devices blocked;
//! then it is a loop that receives requests and fault events and lets
//! `iommu-core` decide. The kernel's part is [`kernel`] (and [`spaces`], where it drives the units itself),
//! the units' is [`units`]. After a restart, units are taken up as they run, and the core finds out
//! from their tables and the ledger who holds what.
//!
//! It must not hand out memory that a unit has not confirmed to have forgotten,
//! wait for a client, or call anybody but the timer service.

#![no_std]
#![no_main]

mod kernel;
mod spaces;
mod units;

use heapless::Vec;
use iommu_core::{ClientLimits, FAULT_BOUND, Setup, Shard, Storage, has_started};
use sel4_glue::{Answer, CSpace, Pd, Server, log, start};
use static_cell::ConstStaticCell;
use system::info::{MAX_UNITS, Slots};
use system::layout::event;
use system::model::MAX_CLIENTS;

use kernel::Kernel;
use units::{Life, Units};

sel4_rt::entry!(main);

// Too large for a stack.
static STORAGE: ConstStaticCell<Storage> = ConstStaticCell::new(Storage::new());
static UNITS: ConstStaticCell<units::Memory> = ConstStaticCell::new(units::Memory::new());

fn main(restarts: u64) -> ! {
    let pd = Pd::start_again(restarts);
    let info = pd.iommu_info();
    let cspace = pd.cspace();
    let life = if has_started(&pd.ledger()) {
        Life::Again
    } else {
        Life::First
    };
    let backend = units::start(pd, cspace, UNITS.take(), life);

    let limits: Vec<ClientLimits, MAX_CLIENTS> = pd
        .info()
        .clients
        .iter()
        .map(|client| ClientLimits {
            quota: client.dma_quota,
            largest: client.largest_buffer,
            window_bits: client.window_bits,
        })
        .collect();
    let setup = Setup {
        clients: &limits,
        buses: &info.shard_buses,
        slots: unused(pd, cspace),
        pool: &info.pool,
        reserved: &info.reserved,
        aliases: &info.aliases,
        reserved_allowed: &info.reserved_allowed,
        fault_bound: FAULT_BOUND,
    };
    let kernel = Kernel::new(pd, cspace);
    let started = match life {
        Life::First => Shard::new(STORAGE.take(), kernel, backend, &setup),
        Life::Again => Shard::recover(STORAGE.take(), kernel, backend, &setup),
    };
    let mut shard = match started {
        Ok(shard) => shard,
        Err(error) => {
            log!("{error}");
            start::stop("the shard's resources make no sense")
        }
    };

    // What came before there was a shard to hear it.
    for unit in 0..info.units.len() {
        shard.on_interrupt(unit);
    }
    let mut server = Server::new(pd);
    pd.ready();
    let mut reply = None;
    loop {
        let (badge, message) = server.next_request(reply, |flags| on_events(&mut shard, flags));
        reply = shard.serve(badge, &message, Answer::new);
    }
}

/// What units and the timer say.
#[inline(never)]
fn on_events(shard: &mut Shard<'static, Kernel, Units>, flags: u64) {
    for unit in 0..MAX_UNITS {
        if flags & event::INTERRUPT << unit != 0 {
            shard.on_interrupt(unit);
        }
    }
    if flags & event::TIMER != 0 {
        shard.on_timer();
    }
}

/// The slots that nothing of the start has taken: the pool hands out the lowest first. From here on
/// the shard keeps account of them.
fn unused(pd: &Pd, cspace: &CSpace) -> Slots {
    let all = pd.info().free_slots;
    Slots {
        first: all.first.saturating_add(cspace.used()),
        count: cspace.free(),
    }
}
