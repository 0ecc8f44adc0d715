//! A ledger that says anything: it is read with distrust. The shard starts, nobody gets what he may not have, no device is
//! two clients', and everything can be given back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use std::collections::BTreeMap;

use common::scene::*;
use common::*;
use ipc_proto::{ClientId, ContextChoice, DeviceState, Mechanism, Switch};
use proptest::prelude::*;

/// A shard in the middle of a working life.
fn busy() -> Booted {
    let booted = booted();
    take_everything(&booted, 0, EDU, Mechanism::Msi, 0);
    take_everything(&booted, 1, NVME, Mechanism::MsiX, 10);
    booted.assigned(1, at(NET), 20);
    booted
}

#[derive(Clone, Debug)]
enum Damage {
    /// A word is replaced.
    Word(usize, u64),
    /// A bit is turned.
    Bit(usize, u32),
    /// A word is another one's.
    Copy(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    // Most of the ledger is empty: what is in use is at its start, and behind the slots.
    let place =
        || prop_oneof![8 => 0usize..220, 1 => 4000usize..5300, 1 => 0usize..pci_core::notes::WORDS];
    prop_oneof![
        (place(), any::<u64>()).prop_map(|(at, word)| Damage::Word(at, word)),
        (place(), 0u32..64).prop_map(|(at, bit)| Damage::Bit(at, bit)),
        (place(), place()).prop_map(|(from, to)| Damage::Copy(from, to)),
    ]
}

fn check(booted: &Booted) {
    let supervisor = booted.supervisor();
    let mut holders = BTreeMap::new();
    let mut index = 0;
    while let Ok(holder) = supervisor.holder(index) {
        index += 1;
        let before = holders.insert(holder.device, holder.holder);
        assert_eq!(before, None, "{} twice", holder.device);
        assert_ne!(holder.state, DeviceState::Assigning);
        assert_eq!(
            holder.holder != 0,
            matches!(
                holder.state,
                DeviceState::Assigned | DeviceState::Resetting | DeviceState::Draining
            )
        );
    }
    booted.world(|world| {
        assert_eq!(world.kernel.forgotten(), []);
        // Whose DMA a device does is its holder, or nobody.
        for (device, client) in &world.attached {
            let holder = holders.get(device).copied().unwrap_or(0);
            assert!(
                holder == client.0 + 1 || holder == 0,
                "{device} is attached to {client:?} and held by {holder}"
            );
        }
    });
}

fn survive(damages: Vec<Damage>) {
    let booted = busy();
    booted.kill_after(0);
    booted.world(|world| {
        for damage in &damages {
            let ledger = &mut world.kernel.ledger;
            match *damage {
                Damage::Word(at, word) => ledger[at] = word,
                Damage::Bit(at, bit) => ledger[at] ^= 1 << bit,
                Damage::Copy(from, to) => ledger[to] = ledger[from],
            }
        }
    });
    let booted = booted.restarted();
    check(&booted);
    booted.settle();
    check(&booted);
    for client in [0, 1] {
        booted.supervisor().client_gone(ClientId(client)).unwrap();
        booted.settle();
    }
    check(&booted);
    let figures = booted.supervisor().figures().unwrap();
    assert_eq!((figures.assigned, figures.untyped_used), (0, 0));
    booted.world(|world| {
        let frames = world.kernel.held_by_clients();
        assert_eq!(frames, [], "somebody still has something");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_ledger_is_believed(damages in prop::collection::vec(damage(), 1..12)) {
        survive(damages);
    }
}

#[test]
fn a_ledger_of_another_layout_is_none() {
    let booted = busy();
    booted.world(|world| world.kernel.ledger[0] = 0);
    // The first start was not complete: nobody holds anything, whatever is noted.
    let booted = booted.restarted();
    assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
}

#[test]
fn a_device_that_is_gone_is_taken_back() {
    let booted = busy();
    booted.kill_after(0);
    booted.world(|world| world.machine.remove(at(EDU)));
    let booted = booted.restarted();
    booted.settle();
    booted.world(|world| assert!(!world.attached.contains_key(&at(EDU))));
    assert_eq!(booted.supervisor().figures().unwrap().assigned, 2);
    // Another client's are as they were.
    let net = booted.device(booted.badge_in(1, 20));
    net.bus_master(Switch::On).unwrap();
    booted
        .client(0)
        .assign(at(SOUND), 30, ContextChoice::Shared)
        .unwrap();
}
