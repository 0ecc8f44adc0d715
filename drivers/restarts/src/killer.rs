//! The client that has servers killed, and looks whether anybody could notice.

use core::fmt::Write;
use core::str::Split;

use client::report::{check, metric};
use client::{Error, Inspector, Platform, Rule, retry};
use heapless::{String, Vec};
use sel4_client::SeL4Platform;

use crate::Own;

/// Server shards that are watched.
const MOST_SERVERS: usize = 10;
/// Deaths of a server of which times are kept.
const MOST_DEATHS: usize = 256;
/// Rows of what the others hold.
const MOST_ROWS: usize = 64;
/// Between two looks at the servers, in microseconds.
const PAUSE: u64 = 50;
/// A server that is not there again in so many looks is not coming back.
const LOOKS: u32 = 1_000_000;
/// The client that keeps what it holds.
const HOLDER: &str = "holder";

/// Which server a shard is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Pci,
    Iommu,
    Msi,
}

/// A server shard, and what is known of its deaths.
struct Watched {
    pd: u16,
    kind: Kind,
    shard: u8,
    /// Restarts that were seen.
    seen: u32,
    /// From a death to the first answer after it, in ticks.
    answers: Vec<u32, MOST_DEATHS>,
    /// From a death to when the server was ready again.
    recoveries: Vec<u32, MOST_DEATHS>,
}

/// Looks at the servers.
struct Killer<'c, 'p> {
    client: &'c Own<'p>,
    inspector: Inspector<'p, SeL4Platform>,
    servers: Vec<Watched, MOST_SERVERS>,
}

/// What the others hold, as the servers list it.
type Rows = Vec<[u64; 6], MOST_ROWS>;

pub fn run<'p>(client: &Own<'p>, mut words: Split<'_, char>) -> Result<(), Error> {
    let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
    let (kills, span, seed) = (number(), number(), number());
    let (Some(kills), Some(span), Some(seed)) = (kills, span, seed) else {
        return Err(Error::NotFound);
    };
    let platform = client.platform();
    let mut killer = Killer::new(client)?;
    killer.wait_for_holder()?;
    let before = killer.rows()?;
    let mut same = true;
    let victims: Vec<u16, MOST_SERVERS> = killer.servers.iter().map(|server| server.pd).collect();
    // One after the other, then by chance: 0.
    for victim in victims.iter().copied().chain([0]) {
        let seed = u64::from(seed) << 16 | u64::from(victim);
        let name = killer.name(victim);
        platform.log(format_args!(
            "{kills} deaths of {name}, at most {span} us apart, seed {seed:#x}"
        ));
        client.supervisor().chaos(victim, seed, kills, span)?;
        killer.watch()?;
        let after = killer.rows()?;
        if after != before {
            same = false;
            platform.log(format_args!("before {before:x?}"));
            platform.log(format_args!("after  {after:x?}"));
        }
    }
    check(
        platform,
        "assignments_as_before",
        same && !before.is_empty(),
        format_args!("{} rows of what the holder holds", before.len()),
    );
    killer.tell(kills);
    for end in &client.info().channels {
        platform.signal(end.signal.into());
    }
    Ok(())
}

/// Each server shard is killed, and made to fault, while it has nothing to do.
pub fn once(client: &Own<'_>) -> Result<(), Error> {
    let platform = client.platform();
    let mut killer = Killer::new(client)?;
    let victims: Vec<u16, MOST_SERVERS> = killer.servers.iter().map(|server| server.pd).collect();
    for victim in &victims {
        client.supervisor().kill(*victim)?;
        killer.watch()?;
        client.supervisor().crash(*victim)?;
        killer.watch()?;
    }
    killer.tell(2);
    let refused = client.supervisor().kill(system::layout::pd::CONSOLE);
    check(
        platform,
        "services_are_not_killed",
        refused.is_err_and(|refusal| refusal.rule == Rule::BadArgument),
        format_args!("{refused:?}"),
    );
    Ok(())
}

impl<'c, 'p> Killer<'c, 'p> {
    fn new(client: &'c Own<'p>) -> Result<Self, Error> {
        let inspector = Inspector::new(client.platform(), client.info()).ok_or(Error::NotFound)?;
        let kinds = [
            ("pci-server-", Kind::Pci),
            ("iommu-server-", Kind::Iommu),
            ("msi-server-", Kind::Msi),
        ];
        let mut servers = Vec::new();
        for (name, pd) in &client.info().pds {
            for (stem, kind) in kinds {
                if let Some(shard) = name.strip_prefix(stem).and_then(|rest| rest.parse().ok()) {
                    let watched = Watched {
                        pd: *pd,
                        kind,
                        shard,
                        seen: 0,
                        answers: Vec::new(),
                        recoveries: Vec::new(),
                    };
                    servers.push(watched).map_err(|_| Error::NotFound)?;
                }
            }
        }
        Ok(Self {
            client,
            inspector,
            servers,
        })
    }

    fn name(&self, pd: u16) -> &str {
        let mut pds = self.client.info().pds.iter();
        pds.find(|(_, number)| *number == pd)
            .map_or("any server", |(name, _)| name.as_str())
    }

    /// Asks every server something until the supervisor has had all killed that it was asked for, and all are there again.
    fn watch(&mut self) -> Result<(), Error> {
        for _ in 0..LOOKS {
            let mut busy = false;
            for server in &mut self.servers {
                busy |= look(self.client, &self.inspector, server)?;
            }
            if !busy {
                return Ok(());
            }
            self.client.wait_for(0, PAUSE)?;
        }
        Err(Error::NotFound)
    }

    /// Waits until the client that keeps what it holds has it, messages included.
    fn wait_for_holder(&self) -> Result<(), Error> {
        for _ in 0..LOOKS {
            for server in self
                .servers
                .iter()
                .filter(|server| server.kind == Kind::Pci)
            {
                for function in self.inspector.functions(server.shard) {
                    let function = function?;
                    if function.messages > 0 && self.stays(function.holder) {
                        return Ok(());
                    }
                }
            }
            self.client.wait_for(0, 1000)?;
        }
        Err(Error::NotFound)
    }

    /// Does this client keep what it holds?
    fn stays(&self, client: Option<u16>) -> bool {
        let clients = &self.client.info().clients;
        client
            .and_then(|id| clients.get(usize::from(id)))
            .is_some_and(|name| name == HOLDER)
    }

    /// What it holds.
    fn rows(&self) -> Result<Rows, Error> {
        let mut rows = Rows::new();
        let mut add = |row| rows.push(row).map_err(|_| Error::NotFound);
        for server in &self.servers {
            let shard = server.shard;
            match server.kind {
                Kind::Pci => {
                    for held in self.inspector.functions(shard) {
                        let held = held?;
                        if let Some(holder) = held.holder.filter(|_| self.stays(held.holder)) {
                            add([
                                1,
                                held.device.to_bits().into(),
                                held.state as u64,
                                holder.into(),
                                held.frames.into(),
                                held.messages.into(),
                            ])?;
                        }
                    }
                }
                Kind::Iommu => {
                    let iommu = self.inspector.iommu(shard);
                    for index in 0.. {
                        let Ok(row) = retry(|| iommu.attached_at(index)) else {
                            break;
                        };
                        if self.stays(Some(row.client.0)) {
                            let device = row.device.to_bits().into();
                            add([2, device, row.client.0.into(), row.domain.into(), 0, 0])?;
                        }
                    }
                }
                Kind::Msi => {
                    let msi = self.inspector.msi(shard);
                    for index in 0.. {
                        let Ok(row) = retry(|| msi.vector_at(index)) else {
                            break;
                        };
                        let device: u64 = row.device.to_bits().into();
                        if device != 0 && self.stays(Some(row.client.0)) {
                            let place = u64::from(row.vector) << 16 | u64::from(row.core);
                            let message = u64::from(row.message) << 32 | u64::from(row.data);
                            add([3, place, device, row.client.0.into(), message, 0])?;
                        }
                    }
                }
            }
        }
        Ok(rows)
    }

    /// How often each server died, and how long nobody was answered.
    fn tell(&mut self, kills: u32) {
        let platform = self.client.platform();
        for server in &mut self.servers {
            let name = match server.kind {
                Kind::Pci => "pci",
                Kind::Iommu => "iommu",
                Kind::Msi => "msi",
            };
            let shard = server.shard;
            let mut text = String::<40>::new();
            // Short enough.
            let _ = write!(text, "{name}_{shard}_died");
            check(
                platform,
                &text,
                server.seen >= kills,
                format_args!("{} deaths, each followed by answers", server.seen),
            );
            let key = |what: &str, value: u64| {
                let mut text = String::<64>::new();
                let _ = write!(text, "{name}_{shard}_{what}");
                metric(platform, &text, value);
            };
            key("deaths", server.seen.into());
            for (what, times) in [
                ("ready", &mut server.recoveries),
                ("answer", &mut server.answers),
            ] {
                times.sort_unstable();
                let picks = [
                    ("min", times.first()),
                    ("median", times.get(times.len() / 2)),
                    ("max", times.last()),
                ];
                for (which, ticks) in picks {
                    let mut text = String::<32>::new();
                    let _ = write!(text, "death_to_{what}_{which}");
                    key(&text, ticks.copied().unwrap_or(0).into());
                }
            }
        }
    }
}

/// Asks a server something, and notes its last death. Is there a death to come, or one that it has not recovered from?
fn look(
    client: &Own<'_>,
    inspector: &Inspector<'_, SeL4Platform>,
    server: &mut Watched,
) -> Result<bool, Error> {
    let shard = server.shard;
    match server.kind {
        Kind::Pci => retry(|| inspector.pci(shard).turns()).map(|_| ()),
        Kind::Iommu => retry(|| inspector.iommu(shard).turns()).map(|_| ()),
        Kind::Msi => retry(|| inspector.msi(shard).turns()).map(|_| ()),
    }?;
    let answered = sel4_client::ticks();
    let deaths = client.supervisor().deaths(server.pd)?;
    if deaths.restarts == server.seen {
        return Ok(deaths.left > 0);
    }
    if deaths.ready == 0 || answered < deaths.ready {
        return Ok(true);
    }
    server.seen = deaths.restarts;
    // What finds no room is counted all the same.
    let _ = server.answers.push(ticks(answered - deaths.died));
    let _ = server.recoveries.push(ticks(deaths.ready - deaths.died));
    Ok(deaths.left > 0)
}

/// A time that is told: four seconds and more look alike.
fn ticks(time: u64) -> u32 {
    u32::try_from(time).unwrap_or(u32::MAX)
}
