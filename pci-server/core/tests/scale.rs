//! What each operation costs among 10, 1,000 and 100,000 devices, over messages, as a shard serves it. Counted, not
//! timed: configuration accesses, and places of the device table looked at. The device that is worked on has the
//! same surroundings in each machine, so that any difference comes from the number of the others: there is none.
//!
//! Besides that a loop of a shard is bounded by what it can have of something (64 assignments, 63 narrowed
//! capabilities, 32 clients, events of a client, ports), never by its devices.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;
mod lazy;

use hw::Sbdf;
use ipc_proto::pci::Request;
use ipc_proto::{
    Badge, BadgeKind, ClientId, ConfigRight, ContextChoice, Mechanism, Message, Rule, Switch, Width,
};
use lazy::Lazy;
use pci_core::{Shard, Tables};
use system::model::DeviceMatch;

/// Functions of the largest shard, over four segments.
const MOST: usize = 100_000;
type Memory = Tables<u32, { MOST + 8 }, 1024, { 6 * MOST }>;

/// An Express function with MSI-X and a reset of its own, and one with MSI beside it.
const EXPRESS: &str = "0000:02:00.0";
const MSI: &str = "0000:02:00.1";

/// What an operation cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cost {
    accesses: u64,
    steps: u64,
}

/// Costs of one machine, by name.
struct Row {
    devices: u32,
    costs: Vec<(&'static str, Cost)>,
}

struct Bench<'a> {
    shard: Shard<'a, Lazy>,
    costs: Vec<(&'static str, Cost)>,
}

impl Bench<'_> {
    fn so_far(&self) -> Cost {
        Cost {
            accesses: self.shard.env().accesses(),
            steps: self.shard.devices().steps(),
        }
    }

    /// Counts what `work` costs.
    fn count<R>(&mut self, name: &'static str, work: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.so_far();
        let result = work(self);
        let after = self.so_far();
        let cost = Cost {
            accesses: after.accesses - before.accesses,
            steps: after.steps - before.steps,
        };
        self.costs.push((name, cost));
        result
    }

    fn send(&mut self, badge: Badge, request: Request) -> Option<Message> {
        self.shard
            .serve(badge.to_word(), &request.encode(), |reply| *reply)
    }

    /// Serves a request that must succeed, and counts what it costs until it is answered.
    fn ask(&mut self, name: &'static str, badge: Badge, request: Request) -> Message {
        let reply = self.count(name, |bench| {
            if let Some(reply) = bench.send(badge, request) {
                return reply;
            }
            // It was parked.
            let ticket = bench.shard.env().last_ticket();
            loop {
                if let Some(reply) = bench.shard.env_mut().answers.remove(&ticket) {
                    return reply;
                }
                let env = bench.shard.env_mut();
                env.now = env.alarm.take().unwrap();
                bench.shard.on_timer();
            }
        });
        assert_eq!(reply.label, 0, "{name}: {request:?}");
        reply
    }

    /// Serves one that is refused for this rule.
    fn refused(&mut self, name: &'static str, badge: Badge, request: Request, rule: Rule) {
        let reply = self.count(name, |bench| bench.send(badge, request).unwrap());
        assert_eq!(reply.label, rule as u64, "{name}");
    }
}

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

/// All operations on a shard of `segments` segments with `each` functions.
fn measure(tables: &mut Memory, segments: u16, each: u32) -> Row {
    let world = Lazy::new(0, each);
    let info = world.info(segments);
    let everything = DeviceMatch::Class { class: 0, mask: 0 };
    let two = [EXPRESS, MSI].map(|text| DeviceMatch::Address(at(text).to_bits()));
    let clients = [
        common::client("all", &[everything]),
        common::client("two", &two),
    ];
    let shard = Shard::boot(world, &info, &clients, tables.lend());
    let devices = shard.devices().len();
    let mut bench = Bench {
        shard,
        costs: Vec::new(),
    };
    questions(&mut bench);
    life(&mut bench);
    inspection(&mut bench, devices);
    changes(&mut bench);
    Row {
        devices,
        costs: bench.costs,
    }
}

/// What a client may ask of a device that is granted to it.
fn questions(bench: &mut Bench<'_>) {
    let client = Badge::plain(BadgeKind::Client, 1);
    let device = at(EXPRESS);
    let version = ipc_proto::VERSION;
    bench.ask("Hello", client, Request::Hello { version });
    bench.ask("DeviceAt, first", client, Request::DeviceAt { index: 0 });
    bench.ask("DeviceAt, next", client, Request::DeviceAt { index: 1 });
    let (end, next) = (Request::DeviceAt { index: 2 }, Request::EventNext {});
    bench.refused("DeviceAt, past the last", client, end, Rule::EndOfList);
    bench.refused("EventNext, none", client, next, Rule::EndOfList);
    bench.ask("Query", client, Request::Query { device });
    bench.ask("TestAssign", client, Request::TestAssign { device });
    bench.ask("GroupAt", client, Request::GroupAt { device, index: 1 });
    bench.ask("Topology", client, Request::Topology { device });
    let index = 1;
    bench.ask(
        "CapabilityAt",
        client,
        Request::CapabilityAt { device, index },
    );
    let reserved = Request::ReservedAt { device, index: 0 };
    bench.refused("ReservedAt, none", client, reserved, Rule::EndOfList);
    let absent = Request::Query {
        device: at("0000:02:1f.0"),
    };
    bench.refused("Query, no such device", client, absent, Rule::NotGranted);
}

/// A device in a client's hands, from assignment to release.
fn life(bench: &mut Bench<'_>) {
    let client = Badge::plain(BadgeKind::Client, 1);
    let assign = |text: &str, slot: u16| Request::Assign {
        device: at(text),
        slot,
        context: ContextChoice::Shared,
    };
    bench.ask("Assign", client, assign(EXPRESS, 0));
    bench.ask("Assign, group held", client, assign(MSI, 1));
    let taken = assign(MSI, 2);
    bench.refused("Assign, held already", client, taken, Rule::AlreadyHeld);
    let held = |bench: &Bench<'_>, slot: u16| bench.shard.env().masters[&slot];
    let (express, msi) = (held(bench, 0), held(bench, 1));
    let (offset, width) = (4, Width::Dword);
    bench.ask("Info", express, Request::Info {});
    let read = Request::ConfigRead { offset, width };
    let reply = bench.ask("ConfigRead", express, read);
    let value = reply.word(0) as u32;
    let write = Request::ConfigWrite {
        offset,
        width: Width::Word,
        value: value & 0xffff,
    };
    bench.ask("ConfigWrite", express, write);
    let master = Request::ConfigWrite {
        offset,
        width: Width::Word,
        value: value & 0xffff | 4,
    };
    bench.ask("ConfigWrite, an operation", express, master);
    bench.ask("Bar", express, Request::Bar { bar: 0 });
    let switch = Switch::On;
    bench.ask("BusMaster", express, Request::BusMaster { switch });
    bench.ask("MsiInfo", msi, Request::MsiInfo {});
    let enable = Request::MsiEnable {
        mechanism: Mechanism::Msi,
        first: 0,
        count: 1,
        slot: 3,
    };
    bench.ask("MsiEnable", msi, enable);
    bench.ask("MsiDisable", msi, Request::MsiDisable {});
    let narrow = Request::Narrow {
        config: ConfigRight::Read,
        bars: 0,
        messages: 0,
        control: Switch::Off,
        slot: 4,
    };
    bench.ask("Narrow", express, narrow);
    let inspector = Badge::plain(BadgeKind::Inspect, 0);
    bench.ask("ViewAt", inspector, Request::ViewAt { index: 0 });
    let supervisor = Badge::plain(BadgeKind::Supervisor, 0);
    let client = ClientId(1);
    bench.ask("HeldAt", supervisor, Request::HeldAt { client, index: 0 });
    let device = at(EXPRESS);
    let held = Request::HeldBar { device, bar: 0 };
    bench.ask("HeldBar", supervisor, held);
    bench.ask("Reset", express, Request::Reset {});
    bench.ask("Release", express, Request::Release {});
    let gone = Request::ClientGone {
        client: ClientId(1),
    };
    bench.ask("ClientGone", supervisor, gone);
    bench.ask("Pending", supervisor, Request::Pending {});
}

/// What the supervisor and inspectors ask. Lists are read at their end, where most is in front.
fn inspection(bench: &mut Bench<'_>, devices: u32) {
    let supervisor = Badge::plain(BadgeKind::Supervisor, 0);
    let inspector = Badge::plain(BadgeKind::Inspect, 0);
    let device = at(EXPRESS);
    bench.ask("Figures", supervisor, Request::Figures {});
    bench.ask("Turns", supervisor, Request::Turns {});
    bench.ask("Why", inspector, Request::Why { device });
    let offset = 0;
    bench.ask(
        "RawConfig",
        inspector,
        Request::RawConfig { device, offset },
    );
    let holder = |index: u32| Request::Holder { index };
    bench.ask(ANYWHERE, supervisor, holder(devices - 2));
    bench.ask("Holder, next", supervisor, holder(devices - 1));
    bench.ask(
        "HolderBar",
        supervisor,
        Request::HolderBar {
            index: devices - 1,
            bar: 0,
        },
    );
}

/// A function goes, and the groups around it are formed anew.
fn changes(bench: &mut Bench<'_>) {
    let admin = Badge::plain(BadgeKind::Admin, 0);
    let client = Badge::plain(BadgeKind::Client, 0);
    let device = at(EXPRESS);
    bench.ask("Remove", admin, Request::Remove { device: at(MSI) });
    bench.ask(
        "TestAssign, regrouped",
        client,
        Request::TestAssign { device },
    );
    bench.ask("TestAssign, again", client, Request::TestAssign { device });
}

/// What a list costs that is not read in order: whole buses are skipped, then one is gone through.
const ANYWHERE: &str = "Holder, anywhere";
/// Most steps of it: the buses of a block, the functions of one bus, and what was found.
const MOST_STEPS: u64 = 16 + 256 + 4;
/// The first operation after a function has come or gone that needs to know isolation groups: those of one device of
/// a root bus are formed anew. Besides what is behind that device its root bus counts (here 4 functions, or 252).
const REGROUPED: &str = "TestAssign, regrouped";
/// Most steps of it for these devices.
const MOST_REGROUPING: u64 = 2_000;

/// Operations that are not counted here, and why.
const NOT_COUNTED: [(&str, &str); 15] = [
    ("Rescan", "goes over all functions, as it should"),
    ("VirtualFunctions", "enters so many functions"),
    ("AgreeBusReset", "is about what is behind one bridge"),
    ("BusReset", "is about what is behind one bridge"),
    ("BarFrames", "is the bank's work on one BAR (tests/bank.rs)"),
    ("BarLarge", "is the bank's work on one BAR"),
    ("BarRead", "reads a page of a held device"),
    ("BarWrite", "writes a page of a held device"),
    ("MsiMask", "is about messages of a held device"),
    ("MsiPending", "is about messages of a held device"),
    ("MsiAffinity", "is about messages of a held device"),
    ("MsiBind", "is about messages of a held device"),
    ("MessageAt", "is about messages of a held device"),
    ("IntxEnable", "looks at the bridges above a held device"),
    ("IntxDisable", "is about the pin of a held device"),
];

#[test]
fn every_operation_is_counted_or_said_not_to_be() {
    let source = include_str!("scale.rs");
    for row in ipc_proto::pci::TABLE {
        let is_counted = source.contains(&format!("Request::{} {{", row.name));
        let is_listed = NOT_COUNTED.iter().any(|(name, _)| *name == row.name);
        assert!(is_counted || is_listed, "{}", row.name);
    }
}

#[test]
fn no_operation_costs_more_among_many_devices_than_among_few() {
    // An unoptimized program makes the tables on the stack.
    let thread = std::thread::Builder::new().stack_size(512 << 20);
    let work = || {
        let mut tables = Box::new(Memory::new());
        [(1, 10), (1, 1_000), (4, 25_000)]
            .map(|(segments, each)| measure(&mut tables, segments, each))
    };
    let rows = thread.spawn(work).unwrap().join().unwrap();
    let devices = rows.each_ref().map(|row| row.devices);
    assert_eq!(devices, [10, 1_000, 100_000]);
    println!("configuration accesses + steps in the table, among so many devices:");
    let [few, more, many] = devices;
    println!("{:28} {few:>12} {more:>12} {many:>12}", "operation");
    let [few, more, many] = &rows;
    for ((name, few), ((_, more), (_, many))) in
        few.costs.iter().zip(more.costs.iter().zip(&many.costs))
    {
        let [one, two, three] =
            [few, more, many].map(|cost| format!("{} + {}", cost.accesses, cost.steps));
        println!("{name:28} {one:>12} {two:>12} {three:>12}");
        if *name == ANYWHERE {
            assert!(many.steps <= MOST_STEPS, "{name}: {many:?}");
            continue;
        }
        if *name == REGROUPED {
            assert_eq!(more, many, "{name} among 1,000 and 100,000 devices");
            assert!(many.steps <= MOST_REGROUPING, "{name}: {many:?}");
            continue;
        }
        assert_eq!(few, more, "{name} among 10 and 1,000 devices");
        assert_eq!(few, many, "{name} among 10 and 100,000 devices");
    }
    assert_eq!(few.costs.len(), many.costs.len());
}
