//! Random schedules: every seed is one run of the whole system, with effects
//! that the kernel refuses, devices that come, go and stop to answer, and servers that
//! are killed, between operations and before any effect of one. A seed that
//! fails is printed, and fails again: `PORTCULLIS_SEED=<seed> cargo test -p whole --test random`. Other
//! seeds than the usual ones: `PORTCULLIS_SEEDS=<first>..<last>`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use fastrand::Rng;
use ipc_proto::{Access, BadgeKind, ContextChoice, Switch, pci};
use sim::vtd::Model;
use whole::mortal::Doom;
use whole::told::Life;
use whole::{Action, Flaw, Mortal, Setting, Store, World};

const STEPS: usize = 120;
const SEEDS: u64 = 150;

fn model(rng: &mut Rng) -> Model {
    let mut model = Model::QEMU;
    if rng.bool() {
        model = model.caching();
    }
    if rng.bool() {
        model = model.four_levels();
    }
    if rng.u8(..4) == 0 {
        model = model.whole_domains();
    }
    if rng.u8(..4) == 0 {
        model = model.snooping();
    }
    if rng.u8(..4) == 0 {
        model = model.write_buffer();
    }
    model
}

/// Who may die; one alone with `PORTCULLIS_DEATHS=pci`, `iommu` or `msi`.
fn mortal(rng: &mut Rng) -> Mortal {
    match std::env::var("PORTCULLIS_DEATHS").as_deref() {
        Ok("pci") => Mortal::Pci,
        Ok("iommu") => Mortal::Iommu,
        Ok("msi") => Mortal::Msi,
        _ => [Mortal::Pci, Mortal::Iommu, Mortal::Msi][rng.usize(..3)],
    }
}

/// Who dies in the middle of what happens next, and before which effect; in most steps nobody.
fn dooms(rng: &mut Rng) -> Vec<Doom> {
    let doom = |rng: &mut Rng| {
        let most = 1 << rng.u32(1..7);
        (mortal(rng), rng.u32(..most))
    };
    match rng.u8(..8) {
        0 => vec![doom(rng)],
        1 => vec![doom(rng), doom(rng)],
        _ => Vec::new(),
    }
}

fn action(rng: &mut Rng, setting: &Setting) -> Action {
    let client = rng.u16(..setting.clients);
    let device = rng.usize(..setting.devices);
    let buffer = rng.u16(..3);
    let other = rng.u16(..setting.clients);
    match rng.u32(..100) {
        0..=13 => {
            let context = if rng.u8(..4) == 0 {
                ContextChoice::Private
            } else {
                ContextChoice::Shared
            };
            Action::Assign(client, device, context)
        }
        14..=19 => Action::Release(client, device),
        20..=22 => Action::Reset(client, device),
        23 => Action::BusReset(client, device),
        24..=27 => {
            let switch = if rng.u8(..4) == 0 {
                Switch::Off
            } else {
                Switch::On
            };
            Action::Master(client, device, switch)
        }
        28..=33 => Action::Messages(client, device, 1 << rng.u16(..3)),
        34..=35 => Action::Silence(client, device),
        36..=38 => Action::Registers(client, device),
        39..=42 => {
            let offset = rng.u16(..0x60) & !3;
            Action::Configure(client, device, offset, rng.u32(..))
        }
        43..=50 => Action::Alloc(client, buffer, 1 + rng.u16(..3)),
        51..=60 => {
            let access = [Access::Read, Access::Write, Access::ReadWrite][rng.usize(..3)];
            let context = rng.bool().then_some(device);
            Action::Map(client, buffer, access, context)
        }
        61..=64 => Action::Unmap(client, buffer),
        65..=68 => Action::Free(client, buffer),
        69..=72 => Action::Share(client, buffer, other, rng.u16(..3)),
        73..=75 => Action::Hand(client, device, other),
        76..=77 => Action::UseCopies(client),
        78..=82 => {
            let label = (1 + rng.u64(..2)) << 8 | rng.u64(..90);
            let mut words = Vec::new();
            for _ in 0..rng.usize(..5) {
                words.push(rng.u64(..) >> rng.u32(..64));
            }
            let slot = rng.bool().then_some(rng.u16(..112) & !7);
            Action::Babble(client, slot, label, words)
        }
        83 => Action::Kill(client),
        84 => Action::Restart(mortal(rng)),
        85 => Action::Pull(device),
        86..=88 => Action::Plug(device),
        89..=91 => Action::Scan,
        92 => Action::Vanish(device),
        _ => Action::Tick,
    }
}

fn run(seed: u64, flaw: Flaw, trace: &mut Vec<String>) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let setting = Setting {
        model: model(&mut rng),
        clients: 2 + rng.u16(..3),
        devices: 1 + rng.usize(..6),
        flaw,
    };
    let mut store = Store::new(&setting);
    let mut world = World::boot(&mut store, setting);
    let mut tried = BTreeSet::new();
    let at_boot = world.shape();
    world.check(&mut tried);
    for _ in 0..STEPS {
        let action = action(&mut rng, &setting);
        let refuse = (rng.u8(..3) == 0).then(|| rng.u64(..6));
        let dooms = dooms(&mut rng);
        trace.push(format!("{action:?}, refusing {refuse:?}, {dooms:?}"));
        world.kernel.refuse(refuse);
        world.hardware.lives.doom(dooms);
        world.act(&action);
        world.hardware.lives.doom([]);
        world.kernel.refuse(None);
        world.check(&mut tried);
    }
    // Everything comes back: all clients die, all devices are put back.
    for client in 0..setting.clients {
        trace.push(format!("the end of client {client}"));
        world.act(&Action::Kill(client));
        world.check(&mut tried);
    }
    for device in 0..setting.devices {
        world.act(&Action::Pull(device));
    }
    settle(&mut world, &mut tried);
    world.act(&Action::Scan);
    settle(&mut world, &mut tried);
    for device in 0..setting.devices {
        world.act(&Action::Plug(device));
    }
    world.oversee(BadgeKind::Admin, pci::Request::Rescan {});
    settle(&mut world, &mut tried);
    let gone = |client: &whole::told::Client| client.life == Life::Gone;
    assert!(world.told.clients.iter().all(gone), "a client never ends");
    assert_eq!(world.lost(), 0);
    let now = world.shape();
    assert!(
        at_boot == now,
        "not all is back: {}",
        at_boot.difference(&now)
    );
    world.hardware.lives.deaths()
}

fn settle(world: &mut World<'_>, tried: &mut BTreeSet<u64>) {
    for _ in 0..10_000 {
        if !world.tick() {
            return;
        }
        world.act(&Action::Tick);
        world.check(tried);
    }
    panic!("the timer never comes to rest");
}

fn seeds() -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("PORTCULLIS_SEED") {
        return seed.parse().map(|seed| seed..seed + 1).unwrap();
    }
    match std::env::var("PORTCULLIS_SEEDS") {
        Ok(seeds) => {
            let (first, last) = seeds.split_once("..").unwrap();
            first.parse().unwrap()..last.parse().unwrap()
        }
        Err(_) => 0..SEEDS,
    }
}

/// Storage of whole servers goes through the stack.
fn with_a_large_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(256 << 20);
    thread.spawn(test).unwrap().join().unwrap();
}

#[test]
fn whatever_happens_what_was_promised_holds() {
    with_a_large_stack(|| {
        let seeds = seeds();
        let (mut runs, mut deaths) = (0, 0);
        let mut failed = Vec::new();
        for seed in seeds {
            let mut trace = Vec::new();
            let outcome =
                std::panic::catch_unwind(AssertUnwindSafe(|| run(seed, Flaw::None, &mut trace)));
            runs += 1;
            if let Ok(died) = &outcome {
                deaths += died;
            }
            if outcome.is_err() {
                println!("seed {seed}, after {} steps:", trace.len());
                for line in &trace {
                    println!("  {line}");
                }
                failed.push(seed);
            }
        }
        println!("{runs} runs of {STEPS} steps, in which {deaths} servers died at work");
        assert!(failed.is_empty(), "these seeds fail: {failed:?}");
    });
}

/// The rules can be broken: each flaw is noticed in a few runs.
#[test]
fn what_is_broken_on_purpose_is_noticed() {
    with_a_large_stack(|| {
        let flaws = [
            Flaw::KeepsContexts,
            Flaw::KeepsTranslations,
            Flaw::KeepsCopies,
            Flaw::KeepsDeviceCapabilities,
            Flaw::LosesNotes(Mortal::Pci),
            Flaw::LosesNotes(Mortal::Iommu),
            Flaw::LosesNotes(Mortal::Msi),
        ];
        for flaw in flaws {
            let noticed = (0..SEEDS).position(|seed| {
                let mut trace = Vec::new();
                std::panic::catch_unwind(AssertUnwindSafe(|| run(seed, flaw, &mut trace))).is_err()
            });
            let Some(seed) = noticed else {
                panic!("{flaw:?} is not noticed");
            };
            println!("{flaw:?} is noticed with seed {seed}");
        }
    });
}

/// Killed one after the other, in any order, the servers know everything again: who holds what, every capability, what
/// devices are set to, and how much is in use.
#[test]
fn restarting_all_servers_in_any_order_leaves_every_assignment_as_it_was() {
    const ORDERS: [[Mortal; 3]; 6] = [
        [Mortal::Pci, Mortal::Iommu, Mortal::Msi],
        [Mortal::Pci, Mortal::Msi, Mortal::Iommu],
        [Mortal::Iommu, Mortal::Pci, Mortal::Msi],
        [Mortal::Iommu, Mortal::Msi, Mortal::Pci],
        [Mortal::Msi, Mortal::Pci, Mortal::Iommu],
        [Mortal::Msi, Mortal::Iommu, Mortal::Pci],
    ];
    with_a_large_stack(|| {
        let (mut held, mut messages) = (0, 0);
        for seed in 0..60 {
            let mut rng = Rng::with_seed(seed);
            let setting = Setting {
                model: model(&mut rng),
                clients: 2 + rng.u16(..3),
                devices: 1 + rng.usize(..6),
                flaw: Flaw::None,
            };
            let mut store = Store::new(&setting);
            let mut world = World::boot(&mut store, setting);
            let mut tried = BTreeSet::new();
            for _ in 0..60 {
                let action = action(&mut rng, &setting);
                // What is pulled out without a word a start would notice, and a scan.
                let other = matches!(
                    action,
                    Action::Kill(_) | Action::Restart(_) | Action::Pull(_) | Action::Vanish(_)
                );
                if !other {
                    world.act(&action);
                }
            }
            settle(&mut world, &mut tried);
            for order in ORDERS {
                for server in order {
                    let before = everything(&mut world);
                    let shape = world.shape().without_cuts();
                    world.act(&Action::Restart(server));
                    world.check(&mut tried);
                    let now = everything(&mut world);
                    let shape_now = world.shape().without_cuts();
                    assert!(
                        shape == shape_now,
                        "seed {seed}, {server:?} of {order:?}: {}",
                        shape.difference(&shape_now)
                    );
                    for (now, before) in now.iter().zip(&before) {
                        assert_eq!(now, before, "seed {seed}, {server:?} of {order:?}");
                    }
                }
            }
            let holders = world.holders();
            held += holders.iter().filter(|holder| holder.holder != 0).count();
            messages += holders.iter().filter(|holder| holder.messages != 0).count();
        }
        println!("{held} devices were held, {messages} with messages");
        assert!(held > 60 && messages > 10, "too little to lose");
    });
}

/// Who holds what, every capability, what devices are set to, how much is in use, and what clients have been told: in lines.
fn everything(world: &mut World<'_>) -> Vec<String> {
    let mut lines = vec![
        format!("{:?}", world.shape().without_cuts()),
        format!("{:?}", world.told),
    ];
    for holder in world.holders() {
        lines.push(format!("{holder:?}"));
    }
    for number in 0..world.setting.devices {
        let at = whole::hardware::device(number);
        let machine = world.hardware.machine.borrow();
        lines.push(format!("{at} {:x?}", machine.snapshot(at)));
    }
    lines.push(format!("{:x?}", world.hardware.registers.borrow()));
    lines
}
