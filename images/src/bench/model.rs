//! [`Work`], [`Shape`]: how far shards carry, from measured times of service.
//!
//! Each client has a core of its own and asks for one piece of work after the
//! other; each shard is a queue with one server, and clients are spread evenly
//! over the shards of a kind. [`bound`] is what no arrangement can exceed
//! (operational laws: a shard that is always busy does no more).
//! [`throughput`] is the mean value analysis of the closed network (Reiser and
//! Lavenberg, 1980), in two layers, since a pci-server keeps its turn while it
//! calls the servers below (Rolia and Sevcik's method of layers, 1995). The
//! tests hold it to a simulation.

use crate::judge::Metrics;

/// What a call adds on the server's side to its turn: half of a call with its reply (408 instructions).
const CALL: f64 = 204.0;
/// A server that is not asked has this much at most, of the question for its counters.
const NOT_ASKED: f64 = 16.0;

/// One piece of work, in instructions. If a pci-server has a part in it, it is the one that calls the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// By the client itself and the kernel on its core.
    pub own: f64,
    /// By a pci-server, without what it calls.
    pub pci: f64,
    /// By an iommu-server.
    pub iommu: f64,
    /// By an msi-server.
    pub msi: f64,
}

/// How many shards there are, and whether they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// So many pci-server, iommu-server and msi-server shards, over which clients are spread evenly.
    Shards(u32, u32, u32),
    /// One lock around all of them.
    Turnstile,
}

/// The pieces of work that are measured (`drivers/bench`, `demand`), and what each is.
pub const WORKS: [(&str, &str); 4] = [
    (
        "device",
        "a device's life: assign, MSI on, MSI off, release",
    ),
    ("buffer", "a buffer's life: 64 KiB allocated, mapped, freed"),
    ("map", "4 KiB mapped and unmapped"),
    ("read", "configuration read"),
];

impl Work {
    /// The piece of work of this name, as a run measured it; `None` if it did not, or no server has a part in it.
    #[must_use]
    pub fn measured(name: &str, metrics: &Metrics) -> Option<Self> {
        let of = |part: &str| metrics.get(&format!("demand.{name}.{part}")).copied();
        let (total, pci, iommu, msi) = (of("total")?, of("pci")?, of("iommu")?, of("msi")?);
        let called = |ticks: f64| {
            if ticks > NOT_ASKED { ticks + CALL } else { 0.0 }
        };
        let (iommu, msi) = (called(iommu), called(msi));
        // Where a pci-server calls, its turn holds what it calls.
        let inside = if pci > NOT_ASKED { iommu + msi } else { 0.0 };
        let pci = (called(pci) - inside).max(0.0);
        (pci + iommu + msi > 0.0).then(|| Self {
            own: (total - pci - iommu - msi).max(0.0),
            pci,
            iommu,
            msi,
        })
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.own + self.pci + self.iommu + self.msi
    }
}

/// Pieces of work an instruction that no more than this many clients get done, however they are arranged.
#[must_use]
pub fn bound(work: &Work, shape: Shape, clients: u32) -> f64 {
    let served = work.pci + work.iommu + work.msi;
    let queues = match shape {
        Shape::Turnstile => vec![(served, 1)],
        Shape::Shards(pci, iommu, msi) => {
            // A turn of a pci-server holds what it calls.
            let turn = if work.pci > 0.0 { served } else { 0.0 };
            vec![(turn, pci), (work.iommu, iommu), (work.msi, msi)]
        }
    };
    let alone = f64::from(clients) / work.total();
    let busy = queues.into_iter().filter(|(work, _)| *work > 0.0);
    busy.fold(alone, |least, (work, shards)| {
        least.min(f64::from(shards) / work)
    })
}

/// Pieces of work an instruction that so many clients get done.
#[must_use]
pub fn throughput(work: &Work, shape: Shape, clients: u32) -> f64 {
    let below = [work.iommu, work.msi];
    let done = match shape {
        Shape::Turnstile => {
            let served = work.pci + work.iommu + work.msi;
            cycles(work.own, &[served], clients.into()).0
        }
        Shape::Shards(_, iommu, msi) if work.pci == 0.0 => {
            let spread = |group| cycles(work.own, &below, group).0;
            over(iommu.min(msi), clients, spread)
        }
        Shape::Shards(pci, iommu, msi) => {
            let busy = pci.min(clients);
            let callers = f64::from(busy) / f64::from(iommu.min(msi).min(busy).max(1));
            // A turn takes as long as the servers below make it; how often they are asked follows from it.
            let mut turn = work.pci + work.iommu + work.msi;
            let mut done = 0.0;
            for _ in 0..LAYERS {
                done = over(pci, clients, |group| cycles(work.own, &[turn], group).0);
                let every = f64::from(busy) / done;
                let inside = turn - work.pci;
                let (_, asked) = cycles((every - inside).max(work.pci), &below, callers);
                turn = f64::midpoint(turn, work.pci + asked);
            }
            done
        }
    };
    // The correction for turns that differ little is too hopeful where a queue is never empty.
    done.min(bound(work, shape, clients))
}

/// Times that the two layers are adjusted to each other; each halves what is off.
const LAYERS: usize = 30;
/// Of a turn that is under way when another request comes, this much is still to be done: times of service differ
/// little, so half, and a bit (the squared coefficient of variation is taken for a tenth).
const REST: f64 = 0.55;

/// What `shards` groups get done over which clients are spread evenly.
fn over(shards: u32, clients: u32, group: impl Fn(f64) -> f64) -> f64 {
    let shards = shards.clamp(1, clients.max(1));
    f64::from(shards) * group(f64::from(clients) / f64::from(shards))
}

/// Cycles an instruction of `clients` (between two whole numbers: in proportion) that work `own` instructions and
/// then go through all the queues, and how long they are in these.
fn cycles(own: f64, queues: &[f64], clients: f64) -> (f64, f64) {
    let mut waiting = vec![(0.0, 0.0); queues.len()];
    let (mut done, mut stay) = (0.0, 0.0);
    let (mut before, mut present) = ((0.0, 0.0), 0.0);
    while present < clients {
        before = (done, stay);
        present += 1.0;
        let stays: Vec<f64> = queues
            .iter()
            .zip(&waiting)
            .map(|(work, (length, busy))| work * (1.0 + length - busy * (1.0 - REST)))
            .collect();
        stay = stays.iter().sum();
        done = present / (own + stay);
        for (queue, (stay, work)) in waiting.iter_mut().zip(stays.iter().zip(queues)) {
            *queue = (done * stay, done * work);
        }
    }
    let part = 1.0 - (present - clients);
    (
        before.0 + (done - before.0) * part,
        before.1 + (stay - before.1) * part,
    )
}

/// With so many clients the busiest shard has no rest: asking for more gives no more.
#[must_use]
pub fn saturation(work: &Work, shape: Shape) -> f64 {
    bound(work, shape, u32::MAX) * work.total()
}

#[cfg(test)]
mod tests;
