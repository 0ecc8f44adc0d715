//! The supervisor's hands: what `root-core`'s supervisor decides, done with the
//! kernel and the servers. Servers are called only here; none is called while it is suspended or given up. A call to one that
//! dies meanwhile is answered when it is restarted: what only looks is asked again here, the steps of taking a client
//! down are taken again by the supervisor.

use alloc::vec::Vec;
use core::fmt;

use hw::Sbdf;
use ipc_proto::{BarKind, ClientId, Refusal, Rule, iommu, msi, pci, retry};
use root_core::plan::{Kind, Pd, Plan};
use root_core::supervisor::figures::Figures;
use root_core::supervisor::{Hands, Power, Strike, Verdict};
use sel4::{IoPort, Notification};
use sel4_glue::Port;
use system::model::Name;

use crate::maker::{Maker, occupied};
use crate::medic;
use crate::reclaimer::Reclaimer;
use crate::say;
use crate::voice::Voice;

/// Most vectors that are gone through.
const MAX_VECTORS: u16 = 256;
/// More buffers than a client can have in a shard.
const MAX_BUFFERS: u16 = 1024;
/// BARs of a function.
const BARS: u8 = 6;

/// QEMU's `isa-debug-exit`: a byte n ends QEMU with the status 2n + 1.
pub const EXIT_PORT: u16 = 0xf4;
/// Status 33: passed.
const EXIT_PASS: u8 = 0x10;
/// Status 35: failed.
const EXIT_FAIL: u8 = 0x11;

/// A server shard with the root task's capability to call it.
#[derive(Clone, Debug)]
struct Shard {
    kind: Kind,
    name: Name,
    port: Port,
}

/// What the supervisor works with.
pub struct RootHands<'a> {
    maker: Maker<'a>,
    plan: &'a Plan,
    shards: Vec<Shard>,
    /// The medic.
    medic: Port,
    /// The reclaimer.
    reclaimer: Reclaimer,
    /// Wakes the medic.
    wake: Notification,
    exit: IoPort,
    /// The root task's voice.
    pub voice: Voice,
}

impl<'a> RootHands<'a> {
    /// Hands for a plan. `exit` is the capability for [`EXIT_PORT`], `medic` the root task's to call its second thread
    /// and to wake it, `reclaimer` its third.
    pub const fn new(
        maker: Maker<'a>,
        plan: &'a Plan,
        (medic, wake): (Port, Notification),
        reclaimer: Reclaimer,
        exit: IoPort,
        voice: Voice,
    ) -> Self {
        Self {
            maker,
            plan,
            shards: Vec::new(),
            medic,
            reclaimer,
            wake,
            exit,
            voice,
        }
    }

    /// Adds a server that can be called: at boot, before anything is supervised.
    pub fn add_shard(&mut self, pd: &Pd, port: Port) {
        self.shards.push(Shard {
            kind: pd.kind,
            name: pd.name.clone(),
            port,
        });
    }

    /// The next PD whose memory was taken back, or not, and why.
    pub fn reclaimed(&mut self) -> Option<(u16, Result<(), &'static str>)> {
        self.reclaimer.next()
    }

    /// What makes PDs.
    pub const fn maker(&self) -> &Maker<'a> {
        &self.maker
    }

    fn port(&self, kind: Kind) -> Result<Port, Refusal> {
        self.shards
            .iter()
            .find(|shard| shard.kind == kind)
            .map(|shard| shard.port)
            .ok_or(Rule::OutsideShard.into())
    }

    fn with_pd(
        &mut self,
        number: u16,
        what: &str,
        work: impl FnOnce(&Maker<'_>, &Pd) -> Result<(), alloc::string::String>,
    ) {
        let Some(pd) = self.plan.pd(number) else {
            return;
        };
        if let Err(error) = work(&self.maker, pd) {
            say!(self.voice, "{}: {what}: {error}", pd.name);
        }
    }

    /// One line about a device that a client holds.
    fn tell_device(&mut self, stub: &pci::Stub<Port>, client: &Name, held: &pci::HeldAtReply) {
        let mut text = List::new();
        for bar in 0..BARS {
            if let Ok(found) = retry(|| stub.held_bar(held.device, bar)) {
                let kind = match found.kind {
                    BarKind::None => continue,
                    BarKind::Io => "io",
                    BarKind::Memory32 => "mem32",
                    BarKind::Memory64 => "mem64",
                };
                text.add(format_args!(
                    "{bar}:{kind}:{:#x}:{:#x}",
                    found.base, found.bytes
                ));
            }
        }
        let mut vectors = List::new();
        for shard in self
            .shards
            .iter()
            .filter(|shard| matches!(shard.kind, Kind::Msi(_)))
        {
            for number in vectors_of(shard.port, held.device) {
                vectors.add(format_args!("{number}"));
            }
        }
        let (vendor, device) = (held.ids & 0xffff, held.ids >> 16);
        say!(
            self.voice,
            "@held {client} {} {vendor:04x}:{device:04x} class={:06x} bars={} vectors={}",
            held.device,
            held.class,
            text.text(),
            vectors.text(),
        );
    }
}

/// The vectors for a device's messages of an msi-server shard.
fn vectors_of(port: Port, device: Sbdf) -> impl Iterator<Item = u16> {
    let stub = msi::Stub(port);
    (0..MAX_VECTORS)
        .map_while(move |index| retry(|| stub.vector_of(device, index)).ok())
        .map(|found| found.vector)
}

/// A list with commas; `-` when empty.
struct List(alloc::string::String);

impl List {
    const fn new() -> Self {
        Self(alloc::string::String::new())
    }

    fn add(&mut self, item: fmt::Arguments<'_>) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        let _ = fmt::write(&mut self.0, item);
    }

    fn text(&self) -> &str {
        if self.0.is_empty() { "-" } else { &self.0 }
    }
}

impl Hands for RootHands<'_> {
    fn stop(&mut self, pd: u16) {
        self.with_pd(pd, "stop", |maker, pd| {
            maker
                .tcb(pd)?
                .suspend()
                .map_err(|error| alloc::format!("{error}"))
        });
    }

    fn disown(&mut self, pd: u16) {
        self.with_pd(pd, "disown", |maker, pd| maker.disown(pd));
    }

    fn resume(&mut self, pd: u16) {
        self.with_pd(pd, "resume", |maker, pd| maker.start(pd));
    }

    fn tell_held(&mut self, shard: u8, client: ClientId) {
        let Ok(port) = self.port(Kind::Pci(shard)) else {
            return;
        };
        let Some(name) = self.plan.client(client.0).map(|pd| pd.name.clone()) else {
            return;
        };
        let stub = pci::Stub(port);
        for index in 0..u16::MAX {
            match retry(|| stub.held_at(client, index)) {
                Ok(held) => self.tell_device(&stub, &name, &held),
                Err(_) => break,
            }
        }
    }

    fn pci_gone(&mut self, shard: u8, client: ClientId) -> Result<u16, Refusal> {
        pci::Stub(self.port(Kind::Pci(shard))?)
            .client_gone(client)
            .map(|reply| reply.devices)
    }

    fn pci_pending(&mut self, shard: u8) -> Result<u16, Refusal> {
        pci::Stub(self.port(Kind::Pci(shard))?)
            .pending()
            .map(|reply| reply.count)
    }

    fn iommu_gone(&mut self, shard: u8, client: ClientId) -> Result<(), Refusal> {
        let server = iommu::Stub(self.port(Kind::Iommu(shard))?);
        // Each answer ends a buffer; in between the server serves others.
        for _ in 0..=MAX_BUFFERS {
            if server.client_gone(client)?.left == 0 {
                return Ok(());
            }
        }
        Err(Rule::TooManyBuffers.into())
    }

    fn msi_gone(&mut self, shard: u8, client: ClientId) -> Result<u16, Refusal> {
        msi::Stub(self.port(Kind::Msi(shard))?)
            .client_gone(client)
            .map(|reply| reply.vectors)
    }

    fn reclaim(&mut self, pd: u16) -> Result<(), &'static str> {
        let pd = self.plan.pd(pd).ok_or("no such PD")?;
        self.reclaimer.begin(pd)
    }

    fn figures(&mut self) -> Figures {
        let mut figures = Figures::default();
        for shard in &self.shards {
            let told = match shard.kind {
                Kind::Pci(_) => pci_figures(shard, &mut figures),
                Kind::Iommu(_) => iommu_figures(shard, &mut figures),
                Kind::Msi(_) => msi_figures(shard, &mut figures),
                Kind::Console | Kind::Timer | Kind::Client(_) => Ok(()),
            };
            if told.is_err() {
                figures.missing(&shard.name);
            }
        }
        let spare = self.plan.slots_left.0;
        let clients = self.plan.of(|kind| !kind.is_server());
        let (slots, bytes) = clients.fold((0, 0), |(slots, bytes), pd| {
            let held = occupied(pd, spare);
            (
                slots + u64::from(held),
                bytes + if held == 0 { 0 } else { 1u64 << pd.block.bits },
            )
        });
        let root = Name::try_from("root").unwrap_or_default();
        figures.add(&root, "client_slots", slots);
        figures.add(&root, "client_bytes", bytes);
        figures
    }

    fn strike(&mut self, pd: u16, how: Strike) {
        medic::strike(self.medic, pd, how);
    }

    fn alarm(&mut self, pd: u16, micros: u64) {
        medic::choose(pd, micros, self.wake);
    }

    fn say(&mut self, line: fmt::Arguments<'_>) {
        self.voice.say(line);
    }

    fn end(&mut self, verdict: Verdict<'_>, power: Power) {
        match verdict {
            Verdict::Pass => say!(self.voice, "@end pass all that had to finish has finished"),
            Verdict::Fail(why) => say!(self.voice, "@end fail {why}"),
        }
        self.voice.flush();
        if power == Power::Off {
            exit(self.exit, verdict == Verdict::Pass);
        }
    }
}

/// Ends QEMU, where there is one.
pub fn exit(port: IoPort, passed: bool) {
    // Without the device the write goes nowhere and the system stays as it is.
    let _ = port.out8(EXIT_PORT, if passed { EXIT_PASS } else { EXIT_FAIL });
}

fn pci_figures(shard: &Shard, figures: &mut Figures) -> Result<(), Refusal> {
    let told = retry(|| pci::Stub(shard.port).figures())?;
    figures.add(&shard.name, "assigned", told.assigned.into());
    figures.add(&shard.name, "slots", told.slots_used.into());
    figures.add(&shard.name, "untyped_bytes", told.untyped_used);
    figures.add(&shard.name, "parked", told.parked);
    Ok(())
}

fn iommu_figures(shard: &Shard, figures: &mut Figures) -> Result<(), Refusal> {
    let told = retry(|| iommu::Stub(shard.port).figures())?;
    figures.add(&shard.name, "pool_free", told.pool_free);
    figures.add(&shard.name, "tables", told.tables_used.into());
    figures.add(&shard.name, "domains", told.domains_used.into());
    figures.add(&shard.name, "slots", told.slots_used.into());
    figures.add(&shard.name, "buffers", told.buffers.into());
    figures.add(&shard.name, "attached", told.attached.into());
    Ok(())
}

fn msi_figures(shard: &Shard, figures: &mut Figures) -> Result<(), Refusal> {
    let told = retry(|| msi::Stub(shard.port).figures())?;
    figures.add(&shard.name, "free_vectors", told.free.into());
    figures.add(&shard.name, "slots", told.slots_used.into());
    Ok(())
}
