//! msi-server: the owner of interrupt vectors, and of the lines of the I/O APIC.
//!
//! A loop that receives requests, signals of lines and of its timer, and lets `msi-core` decide; the kernel's part is
//! [`Kernel`]. It must not give a vector to a client: vectors are given to devices, on the word of the pci-server shard
//! that owns the device. Clients ask it for nothing but their quota, and tell it that they have looked at a line.

#![no_std]
#![no_main]

use core::sync::atomic::AtomicU64;

use hw::Clock;
use ipc_proto::{ClientId, Refusal, Rule, Turns, msi, timer};
use msi_core::{Env, Shard};
use sel4::{IrqHandler, Notification, Rights, Tcb};
use sel4_glue::cspace::signal_client;
use sel4_glue::{Answer, CSpace, Incoming, Pd, Port, Server, TscClock, log, start};
use system::info::{ClientEntry, MsiInfo};
use system::layout::{SERVER_CORE, event, slot};

sel4_rt::entry!(main);

fn main(restarts: u64) -> ! {
    let pd = Pd::start_again(restarts);
    // It may have been killed on its way.
    go_to(SERVER_CORE.into());
    let info = pd.msi_info();
    let kernel = match Kernel::new(pd, info) {
        Ok(kernel) => kernel,
        Err(refusal) => {
            log!("{refusal}");
            start::stop("the interrupts cannot be bound")
        }
    };
    let mut shard = match Shard::new(info, &pd.info().clients, kernel) {
        Ok(shard) => shard,
        Err(error) => {
            log!("{error}");
            start::stop("the shard's vectors make no sense")
        }
    };
    log!(
        "{} vectors from {} on, {} lines",
        info.vectors,
        info.first_vector,
        info.lines.len()
    );

    let stuck = shard.env_mut().cspace.sweep();
    if stuck != 0 {
        log!("{stuck} slots of before cannot be emptied");
    }
    if restarts != 0 {
        log!("restarted: {restarts}");
    }
    // Flags behind those of the lines.
    let metered = event::metered(info.lines.len());

    let mut server = Server::new(pd);
    pd.ready();
    let mut incoming = server.receive();
    loop {
        let reply = match incoming {
            Incoming::Request { badge, message } => {
                msi::serve(&mut shard, badge, &message, Answer::new)
            }
            Incoming::Events(flags) => {
                let mut raised = flags / metered;
                // Each round takes a bit away.
                while raised != 0 {
                    shard.on_message(raised.trailing_zeros() as usize);
                    raised &= raised - 1;
                }
                let flags = flags & (metered - 1);
                if flags & event::ABSORBED != 0 {
                    shard.on_absorbed();
                }
                for line in 0..info.lines.len() {
                    if flags & event::LINES << line != 0 {
                        shard.on_line(line);
                    }
                }
                if flags & event::TIMER != 0 {
                    shard.on_timer();
                }
                None
            }
        };
        incoming = server.reply_and_receive(reply);
    }
}

/// The kernel's part: the originals of handlers, which the root task has put into the server's CSpace, and copies of
/// them in windows.
struct Kernel {
    info: &'static MsiInfo,
    cspace: &'static mut CSpace,
    clients: &'static [ClientEntry],
    clock: TscClock,
    timer: timer::Stub<Port>,
    /// Slot of the capability that vectors signal which nobody is bound to.
    absorbed: u32,
    ledger: &'static [AtomicU64],
    /// First slot of the capabilities that metered vectors signal, by meter; 0: nobody is metered.
    raised: u32,
    /// First slot of those that signal their clients, by vector.
    named: u32,
}

impl Kernel {
    /// Binds every line to the server's own notification. Vectors are bound as they are taken back, which at a start is every
    /// one that no client holds; a client's binding stays as it is when the server is restarted.
    fn new(pd: &'static Pd, info: &'static MsiInfo) -> Result<Self, Refusal> {
        let cspace = pd.cspace();
        let absorbed = cspace.make_signal(event::ABSORBED)?;
        for (number, line) in info.lines.iter().enumerate() {
            let handler = IrqHandler::at(line.handler.into());
            cspace.bind_interrupt(handler, event::LINES << number)?;
        }
        let clients = &pd.info().clients;
        let (mut raised, mut named) = (0, 0);
        if clients.iter().any(|client| client.interrupt_rate != 0) {
            let metered = event::metered(info.lines.len());
            let meters = event::MSI_FLAGS.saturating_sub(info.lines.len()) as u32;
            raised = cspace.take_run(meters)?;
            for meter in 0..meters {
                cspace.fill_signal(raised.saturating_add(meter), metered << meter)?;
            }
            // What clients have named outlives this server.
            named = cspace.take_run_as_it_is(info.vectors.into())?;
        }
        Ok(Self {
            info,
            cspace,
            clients,
            clock: pd.clock(),
            timer: pd.timer(),
            absorbed,
            ledger: pd.ledger(),
            raised,
            named,
        })
    }

    /// Slot of the original handler of a vector.
    fn handler(&self, vector: u16) -> Result<u32, Refusal> {
        let foreign = Refusal::new(Rule::ForeignVector, vector.into());
        let number = vector.checked_sub(self.info.first_vector).ok_or(foreign)?;
        if number >= self.info.vectors {
            return Err(foreign);
        }
        Ok(self.info.handlers.saturating_add(number.into()))
    }

    /// Where that is which signals the client of a metered vector.
    fn named(&self, vector: u16) -> u32 {
        let number = vector.saturating_sub(self.info.first_vector);
        self.named.saturating_add(number.into())
    }

    /// From now on the vector signals the server.
    fn absorb(&self, handler: u32) -> Result<(), Refusal> {
        bind(handler, self.absorbed)
    }
}

/// The server's thread goes on on another core.
fn go_to(core: u16) {
    if let Err(error) = Tcb::at(slot::THREAD).set_affinity(core.into()) {
        log!("core {core} cannot be asked for its messages: {error}");
    }
}

/// Lets an interrupt signal what is in a slot.
fn bind(handler: u32, signal: u32) -> Result<(), Refusal> {
    IrqHandler::at(handler.into())
        .set_notification(Notification::at(signal.into()))
        .map_err(sel4_glue::refused)
}

impl Env for Kernel {
    type Ledger = &'static [AtomicU64];

    fn ledger(&mut self) -> &mut Self::Ledger {
        &mut self.ledger
    }

    fn place(&mut self, vector: u16, client: ClientId, slot: u16) -> Result<(), Refusal> {
        let client = self
            .clients
            .get(usize::from(client.0))
            .ok_or(Rule::NoWindow)?;
        let handler = self.handler(vector)?;
        self.cspace
            .copy_to_window(client, slot, handler, Rights::ALL)
    }

    fn reclaim(&mut self, vector: u16) -> Result<(), Refusal> {
        let handler = self.handler(vector)?;
        // First: a copy that is left for a moment could bind it again.
        self.cspace.revoke(handler)?;
        self.absorb(handler)
    }

    /// Goes to each of the cores. A core takes what it has been sent before it runs a thread, this one among them.
    fn quiesce(&mut self, cores: u16) {
        let home = u16::from(SERVER_CORE);
        let mut others = cores & !1u16.checked_shl(home.into()).unwrap_or(0);
        if others == 0 {
            return;
        }
        // One bit less each round.
        while others != 0 {
            go_to(others.trailing_zeros() as u16);
            others &= others - 1;
        }
        go_to(home);
    }

    fn meter(&mut self, vector: u16, meter: usize) -> Result<(), Refusal> {
        // There are few.
        let raised = self.raised.saturating_add(meter as u32);
        bind(self.handler(vector)?, raised)
    }

    fn hush(&mut self, vector: u16) {
        let handler = self.handler(vector);
        let cleared = handler.and_then(|handler| {
            IrqHandler::at(handler.into())
                .clear()
                .map_err(sel4_glue::refused)
        });
        if let Err(refusal) = cleared {
            log!("vector {vector} comes on: {refusal}");
        }
    }

    fn name(&mut self, vector: u16, client: ClientId, flags: u64) -> Result<(), Refusal> {
        let client = self
            .clients
            .get(usize::from(client.0))
            .ok_or(Rule::NoWindow)?;
        let slot = self.named(vector);
        self.cspace.refill_signal(slot, client.notification, flags)
    }

    #[inline]
    fn pass(&mut self, vector: u16) {
        // The kernel ignores a signal where nothing is named.
        Notification::at(self.named(vector).into()).signal();
    }

    fn unname(&mut self, vector: u16) {
        if let Err(refusal) = self.cspace.clear(self.named(vector)) {
            log!("a client's signal stays: {refusal}");
        }
    }

    fn acknowledge(&mut self, line: usize) {
        if let Some(line) = self.info.lines.get(line)
            && let Err(error) = IrqHandler::at(line.handler.into()).ack()
        {
            log!("line {} cannot be acknowledged: {error}", line.line);
        }
    }

    fn tell_client(&mut self, client: ClientId) {
        if let Some(client) = self.clients.get(usize::from(client.0)) {
            signal_client(client);
        }
    }

    fn tell_shard(&mut self, shard: u16) {
        if let Some(signal) = self.info.shard_signals.get(usize::from(shard)) {
            Notification::at(u64::from(*signal)).signal();
        }
    }

    fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    fn arm(&mut self, micros: u64) {
        if let Err(refusal) = self.timer.arm(micros) {
            log!("the timer service refused: {refusal}");
        }
    }

    fn slots_used(&self) -> u32 {
        self.cspace.used()
    }

    fn turns(&self) -> Turns {
        sel4_glue::turns::turns()
    }
}
