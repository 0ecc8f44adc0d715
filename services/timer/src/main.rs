//! timer: wakes PDs at the time that they asked for.
//!
//! A loop over `services-core`'s [`Timer`]; the kernel's part is [`Notifications`] and the acknowledgement of the
//! HPET's interrupt. It must not wait for anybody but the next request or interrupt.

#![no_std]
#![no_main]

use ipc_proto::timer;
use sel4::{IrqHandler, Notification};
use sel4_glue::{Answer, Incoming, Pd, Server, log, start};
use services_core::timer::{Hpet, Signals, Timer};
use system::layout::{event, slot};

sel4_rt::entry!(main);

fn main(_argument: u64) -> ! {
    let pd = Pd::start();
    let info = pd.timer_info();
    let hpet = match Hpet::start(pd.hpet(), info.pin) {
        Ok(hpet) => hpet,
        Err(error) => {
            log!("{error}");
            start::stop("no usable timer")
        }
    };
    let mut timer = Timer::new(hpet, Notifications(&info.signals));
    let interrupt = IrqHandler::at(slot::IRQ);
    if let Err(refusal) = pd.cspace().bind_interrupt(interrupt, event::INTERRUPT) {
        log!("the interrupt cannot be bound: {refusal}");
        start::stop("no interrupt")
    }
    acknowledge(interrupt);

    let mut server = Server::new(pd);
    pd.ready();
    let mut incoming = server.receive();
    loop {
        let reply = match incoming {
            Incoming::Request { badge, message } => {
                timer::serve(&mut timer, badge, &message, Answer::new)
            }
            Incoming::Events(flags) => {
                if flags & event::INTERRUPT != 0 {
                    // First: the kernel masked the pin, and an edge on a masked pin is lost.
                    acknowledge(interrupt);
                    timer.on_interrupt();
                }
                None
            }
        };
        incoming = server.reply_and_receive(reply);
    }
}

/// Lets the interrupt come again.
fn acknowledge(interrupt: IrqHandler) {
    if let Err(error) = interrupt.ack() {
        log!("the timer's interrupt cannot be acknowledged: {error}");
    }
}

/// Slots of capabilities that signal PDs, by PD number; 0 for none.
struct Notifications(&'static [u32]);

impl Notifications {
    fn slot(&self, pd: u16) -> Option<u32> {
        self.0
            .get(usize::from(pd))
            .copied()
            .filter(|slot| *slot != 0)
    }
}

impl Signals for Notifications {
    fn reaches(&self, pd: u16) -> bool {
        self.slot(pd).is_some()
    }

    fn signal(&mut self, pd: u16) {
        if let Some(slot) = self.slot(pd) {
            Notification::at(slot.into()).signal();
        }
    }
}
