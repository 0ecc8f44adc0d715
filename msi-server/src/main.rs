//! msi-server: the owner of interrupt vectors.
//!
//! A loop that receives requests and lets `msi-core` decide; the kernel's part is [`Kernel`]. It must not do
//! anything that a client asks for directly, except say what the client's quota is: vectors are given to
//! devices, on the word of the pci-server shard that owns the device.

#![no_std]
#![no_main]

use hw::Sbdf;
use ipc_proto::{ClientId, Refusal, Rule, Turns, msi};
use msi_core::{Env, Shard};
use sel4::irq::{MsiSource, Vector};
use sel4::{IrqControl, Rights};
use sel4_glue::{Answer, CSpace, Incoming, Pd, Server, log, start};
use system::info::ClientEntry;
use system::layout::slot;

sel4_rt::entry!(main);

fn main(_argument: u64) -> ! {
    let pd = Pd::start();
    let info = pd.msi_info();
    let kernel = Kernel {
        control: IrqControl::at(slot::IRQ),
        cspace: pd.cspace(),
        clients: &pd.info().clients,
    };
    let quotas = pd.info().clients.iter().map(|client| client.vectors);
    let mut shard = match Shard::new(info, quotas, kernel) {
        Ok(shard) => shard,
        Err(error) => {
            log!("{error}");
            start::stop("the shard's vectors make no sense")
        }
    };
    log!(
        "{} vectors from {} on, for the core with APIC id {}",
        info.vectors,
        info.first_vector,
        info.apic_id
    );

    let mut server = Server::new(pd);
    pd.ready();
    let mut incoming = server.receive();
    loop {
        let reply = match incoming {
            Incoming::Request { badge, message } => {
                msi::serve(&mut shard, badge, &message, Answer::new)
            }
            // Nobody signals this server.
            Incoming::Events(_) => None,
        };
        incoming = server.reply_and_receive(reply);
    }
}

/// The kernel's part: a master capability of each handler in the server's CSpace, copies in windows.
struct Kernel {
    control: IrqControl,
    cspace: &'static mut CSpace,
    clients: &'static [ClientEntry],
}

impl Env for Kernel {
    /// Slot of the master.
    type Handler = u32;

    fn issue(&mut self, vector: u16, device: Sbdf, number: u16) -> Result<u32, Refusal> {
        let vector = u8::try_from(vector)
            .ok()
            .and_then(Vector::new)
            .ok_or(Refusal::new(Rule::ForeignVector, vector.into()))?;
        let source = MsiSource {
            bus: device.bus(),
            device: device.device(),
            function: device.function(),
            handle: number.into(),
        };
        let control = self.control;
        self.cspace
            .make(|target| control.get_msi(target, source, vector))
    }

    fn place(&mut self, handler: &u32, client: ClientId, slot: u16) -> Result<(), Refusal> {
        let client = self
            .clients
            .get(usize::from(client.0))
            .ok_or(Rule::NoWindow)?;
        self.cspace
            .copy_to_window(client, slot, *handler, Rights::ALL)
    }

    fn retire(&mut self, handler: u32) -> Result<(), Refusal> {
        self.cspace.revoke(handler)?;
        self.cspace.delete(handler)
    }

    fn slots_used(&self) -> u32 {
        self.cspace.used()
    }

    fn turns(&self) -> Turns {
        sel4_glue::turns::turns()
    }
}
