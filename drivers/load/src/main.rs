//! Several clients on several cores and shards, with work of all kinds, for as long as the description says: is a reply
//! lost, a byte wrong, an interrupt missing, and do the servers count what the clients count?
//!
//! `worker` ([`worker`]) works and counts every request; `auditor` ([`auditor`]) says when they begin, and compares. Each
//! worker has a channel to the auditor, whose first page is its account ([`Account`]).

#![no_std]
#![no_main]

mod auditor;
mod counted;
mod worker;

use client::report::check;
use client::{Client, Error, Memory};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;

use counted::Counted;

sel4_client::program!(main);

type OurClient<'p> = Client<'p, Counted>;

/// Before the work begins, and after it has ended, nobody waits longer.
const PATIENCE_MICROS: u64 = 60_000_000;

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let counted = Counted::new(platform);
    let mut words = info.args.split_whitespace();
    let role = words.next();
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let outcome = match role {
        Some("worker") => worker::run(&counted, info, number(), number()),
        _ => auditor::run(&counted, info, number(), number()),
    };
    if let Err(error) = &outcome {
        check(&counted, "went_on", false, format_args!("{error}"));
    }
    u32::from(outcome.is_err())
}

/// What a worker has done.
#[derive(Clone, Copy, Default, Debug)]
struct Account {
    /// Its pci-server shard.
    shard: u64,
    /// Requests to pci-, iommu- and msi-servers that were answered.
    requests: [u64; 3],
    /// Requests that nobody answered as the contract says.
    lost: u64,
    /// Times that a device was taken and given back.
    lives: u64,
    /// Bytes that were compared, and those that were wrong.
    bytes: u64,
    wrong: u64,
    /// Messages that were raised, and those that did not come.
    messages: u64,
    missing: u64,
}

impl Account {
    const WORDS: usize = 10;

    fn words(&self) -> [u64; Self::WORDS] {
        let [pci, iommu, msi] = self.requests;
        [
            self.shard,
            pci,
            iommu,
            msi,
            self.lost,
            self.lives,
            self.bytes,
            self.wrong,
            self.messages,
            self.missing,
        ]
    }

    fn write(&self, memory: &impl Memory) -> bool {
        let words = self.words().into_iter().enumerate();
        words.fold(true, |ok, (at, word)| {
            ok & memory.write(8 * at, &word.to_le_bytes())
        })
    }

    fn read(memory: &impl Memory) -> Option<Self> {
        let mut words = [0; Self::WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            if !memory.read(8 * at, &mut bytes) {
                return None;
            }
            *word = u64::from_le_bytes(bytes);
        }
        let [
            shard,
            pci,
            iommu,
            msi,
            lost,
            lives,
            bytes,
            wrong,
            messages,
            missing,
        ] = words;
        Some(Self {
            shard,
            requests: [pci, iommu, msi],
            lost,
            lives,
            bytes,
            wrong,
            messages,
            missing,
        })
    }
}

/// Waits for a signal of the other end of a channel.
fn signalled(client: &OurClient<'_>, flag: u64, micros: u64) -> Result<(), Error> {
    match client.wait_for(flag, micros)? {
        0 => Err(Error::NotFound),
        _ => Ok(()),
    }
}
