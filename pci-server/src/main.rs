//! pci-server: owns the devices of one shard's buses.
//!
//! At its start it finds them and brings every one to rest; then it is a loop that receives requests and
//! signals of its timer and lets `pci-core` decide. What the core needs of the kernel and of the servers
//! below is in [`surroundings`], device memory in [`memory`].
//!
//! It must not wait for a client or a device, call a client or the supervisor once it is ready, or touch a
//! bus of another shard.

#![no_std]
#![no_main]

mod masters;
mod memory;
mod surroundings;

use pci_core::bank::Bank;
use pci_core::env::Host;
use pci_core::{Shard, Tables};
use sel4_glue::{Answer, Arrived, Incoming, Pd, Server, Ticket, log, start};
use static_cell::ConstStaticCell;
use system::layout::event;

use surroundings::Surroundings;

sel4_rt::entry!(main);

// Too large for a stack.
static TABLES: ConstStaticCell<Tables<Ticket>> = ConstStaticCell::new(Tables::new());
static BANK: ConstStaticCell<Bank> = ConstStaticCell::new(Bank::new());

fn main(restarts: u64) -> ! {
    let pd = Pd::start_again(restarts);
    let surroundings = match Surroundings::new(pd, BANK.take()) {
        Ok(surroundings) => surroundings,
        Err(refusal) => {
            log!("{refusal}");
            start::stop("the shard's resources make no sense")
        }
    };
    let began = surroundings.ticks();
    let mut shard = Shard::boot(
        surroundings,
        pd.pci_info(),
        &pd.info().clients,
        TABLES.take().lend(),
    );
    let took = shard.env().ticks().saturating_sub(began);
    if restarts > 0 {
        say_restart(shard.env_mut(), restarts, took);
    } else {
        shard.report();
    }
    if pd.info().testing && restarts == 0 {
        let functions = shard.devices().len();
        say_cost(shard.env_mut(), functions, took);
    }
    shard.env_mut().end_start();

    let mut server = Server::new(pd);
    pd.ready();
    let mut arrived = server.arrival();
    loop {
        arrived = match shard.serve_at_once(&arrived, Answer::new) {
            Some(answer) => server.answer(answer),
            None => match serve(&mut shard, &mut server, arrived) {
                Some(answer) => server.answer(answer),
                None => server.arrival(),
            },
        };
    }
}

/// Serves what is more than an access to a register.
#[inline(never)]
fn serve(
    shard: &mut Shard<'_, Surroundings>,
    server: &mut Server,
    arrived: Arrived,
) -> Option<Answer> {
    match server.open(arrived) {
        Incoming::Request { badge, message } => shard.serve_any(badge, &message, Answer::new),
        Incoming::Events(flags) => {
            on_events(shard, flags);
            None
        }
    }
}

/// What the timer, the servers below and the shard's own interrupt say.
#[inline(never)]
fn on_events(shard: &mut Shard<'_, Surroundings>, flags: u64) {
    if flags & event::TIMER != 0 {
        shard.on_timer();
    }
    if flags & event::TROUBLE != 0 {
        shard.on_trouble();
    }
    if flags & event::LINE_TROUBLE != 0 {
        shard.on_line_trouble();
    }
    // Messages are edges: there is nothing to acknowledge.
    if flags & event::INTERRUPT != 0 {
        shard.on_interrupt();
    }
}

/// What it took to go on after a restart, in ticks of the time-stamp counter.
fn say_restart(host: &mut impl Host, restarts: u64, ticks: u64) {
    host.log(format_args!(
        "restarted ({restarts}): {ticks} ticks until everything is known again"
    ));
}

/// What it took to find the functions and to bring them to rest, in ticks of the time-stamp counter.
fn say_cost(host: &mut impl Host, functions: u32, ticks: u64) {
    host.log(format_args!("@metric functions_found {functions}"));
    if let Some(each) = ticks.checked_div(functions.into()) {
        host.log(format_args!("@metric enumerate_per_function {each}"));
    }
}
