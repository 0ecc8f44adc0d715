//! Anything that clients can send, in any order, with calls failing and time
//! passing in between: the shard lives, and its invariants hold after every step.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::kernel::{Object, Place};
use common::*;
use hw::Sbdf;
use ipc_proto::{BadgeKind, ClientId, DeviceState, Mechanism, Message, Switch, Width, pci};
use proptest::prelude::*;
use sim::config::Machine;
use system::model::DeviceMatch;

fn booted() -> (Booted, Vec<Sbdf>) {
    let mut machine = Machine::new();
    let devices = vec![
        machine.add("00:03.0", edu(0xe000_0000)),
        machine.add("00:04.0", nvme(0x80_0000_0000)),
        machine.add("00:05.0", conventional(0xe010_0000)),
        machine.add("00:06.0", power_cycled(0xe020_0000)),
    ];
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let edu = DeviceMatch::Ids {
        vendor: 0x1234,
        device: 0x11e8,
    };
    (
        Booted::new(
            machine,
            vec![
                client("zero", &[any]),
                client("one", &[any]),
                client("two", &[edu]),
            ],
        ),
        devices,
    )
}

#[derive(Clone, Debug)]
enum Step {
    /// A client asks for a device.
    Assign {
        client: u16,
        device: usize,
        slot: u16,
    },
    /// Something is asked over a device capability that lies somewhere, or lay there once.
    Use { which: usize, request: pci::Request },
    /// The timer runs out.
    Tick,
    /// A call of the next step fails.
    FailNext(usize),
    /// A client copies what it has.
    Copy(usize),
    /// Words that mean anything.
    Noise {
        badge: u64,
        label: u64,
        words: Vec<u64>,
        cap: Option<u64>,
    },
}

fn request() -> impl Strategy<Value = pci::Request> {
    use pci::Request::*;
    let width = prop_oneof![Just(Width::Byte), Just(Width::Word), Just(Width::Dword)];
    prop_oneof![
        3 => Just(Release {}),
        1 => Just(Info {}),
        1 => Just(Reset {}),
        2 => prop_oneof![Just(Switch::On), Just(Switch::Off)].prop_map(|switch| BusMaster { switch }),
        2 => (0u8..3, 0u32..260, 0u16..70, 0u16..260).prop_map(|(bar, first, count, slot)| BarFrames { bar, first, count, slot }),
        2 => (any::<bool>(), 0u16..3, 0u16..6, 0u16..260).prop_map(|(msi, first, count, slot)| {
            let mechanism = if msi { Mechanism::Msi } else { Mechanism::MsiX };
            MsiEnable { mechanism, first, count, slot }
        }),
        1 => Just(MsiDisable {}),
        2 => (0u16..4100, width, any::<u32>()).prop_map(|(offset, width, value)| ConfigWrite { offset, width, value }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let label =
        prop_oneof![4 => (0u64..64).prop_map(|operation| 1 << 8 | operation), 1 => any::<u64>()];
    let badge = prop_oneof![
        4 => (1u64..8, 0u64..4, 0u64..4).prop_map(|(kind, generation, index)| kind << 24 | generation << 12 | index),
        1 => any::<u64>(),
    ];
    prop_oneof![
        4 => (0u16..4, 0usize..4, 0u16..8).prop_map(|(client, device, slot)| Step::Assign { client, device, slot }),
        8 => (0usize..16, request()).prop_map(|(which, request)| Step::Use { which, request }),
        3 => Just(Step::Tick),
        1 => (0usize..4).prop_map(Step::FailNext),
        1 => (0usize..16).prop_map(Step::Copy),
        2 => (badge, label, prop::collection::vec(prop_oneof![0u64..8, any::<u64>()], 0..6), prop::option::of(any::<u64>()))
            .prop_map(|(badge, label, words, cap)| Step::Noise { badge, label, words, cap }),
    ]
}

/// Supervisor's operations are the root task's: noise with its badge is not sent.
fn is_supervisor(badge: u64) -> bool {
    badge >> 24 == BadgeKind::Supervisor as u64
}

fn check(booted: &Booted) {
    let states: Vec<_> = (0..)
        .map_while(|index| booted.supervisor().holder(index).ok())
        .collect();
    booted.world(|world| {
        for holder in &states {
            let at = holder.device;
            let held = holder.holder != 0;
            let context = world.attached.get(&at).map(|client| client.0 + 1);
            match holder.state {
                DeviceState::Assigned | DeviceState::Resetting | DeviceState::Draining => {
                    assert!(held);
                    assert_eq!(context, Some(holder.holder), "{at} in whose context?");
                }
                DeviceState::Quarantined => {
                    assert!(!held);
                    assert_eq!(context, None, "{at} is attached without a holder");
                    assert!(
                        !world.vectors.contains_key(&at),
                        "{at} has vectors without a holder"
                    );
                    assert_eq!(
                        world.machine.snapshot(at)[4] & 7,
                        0,
                        "{at} decodes or masters without a holder"
                    );
                }
                DeviceState::Broken => assert!(!held),
                other => panic!("{at} is {other:?}"),
            }
        }
        // A client holds no frame of an MSI-X table, nor of a device that another holds.
        for (place, object) in world.kernel.held_by_clients() {
            let Object::Frame { base, .. } = object else {
                continue;
            };
            assert!(
                !(0x80_0000_2000..0x80_0000_4000).contains(&base),
                "an MSI-X page is out"
            );
            let owner = states.iter().find(|holder| {
                let bars = [
                    (0xe000_0000, 1 << 20),
                    (0x80_0000_0000, 16 << 10),
                    (0xe010_0000, 4096),
                    (0xe020_0000, 16 << 10),
                ];
                let (start, bytes) = bars[(holder.device.device() - 3) as usize];
                (start..start + bytes).contains(&base)
            });
            let owner = owner.unwrap();
            if let Place::Window(client, _) = place {
                let leaking = owner.state == DeviceState::Broken;
                assert!(
                    leaking || owner.holder == client + 1,
                    "{place:?} holds a frame of {owner:?}"
                );
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]
    #[test]
    fn the_shard_lives_and_its_invariants_hold(steps in prop::collection::vec(step(), 1..80)) {
        let (booted, devices) = booted();
        let before = booted.state();
        let mut badges = Vec::new();
        let mut failed = false;
        for step in steps {
            match step {
                Step::Assign { client, device, slot } => {
                    if booted.send(ipc_proto::Badge::plain(BadgeKind::Client, client), pci::Request::Assign { device: devices[device], slot, context: ipc_proto::ContextChoice::Shared })
                        .is_some_and(|reply| reply.label == 0)
                    {
                        badges.push(booted.badge_in(client, slot));
                    }
                }
                Step::Use { which, request } => {
                    if let Some(badge) = badges.get(which) {
                        booted.send(*badge, request);
                    }
                }
                Step::Tick => drop(booted.tick().then_some(())),
                Step::FailNext(n) => {
                    failed = true;
                    booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls + n));
                }
                Step::Copy(which) => booted.world(|world| {
                    if let Some((place, _)) = world.kernel.held_by_clients().get(which) {
                        world.kernel.client_copies(*place);
                    }
                }),
                Step::Noise { badge, label, words, cap } => {
                    if !is_supervisor(badge) {
                        let mut message = Message::with_words(label, &words).unwrap();
                        message.cap = cap;
                        booted.shard.borrow_mut().serve(badge, &message, |reply| *reply);
                    }
                }
            }
            check(&booted);
        }
        booted.world(|world| world.kernel.fail_at = None);
        for client in 0..3 {
            booted.supervisor().client_gone(ClientId(client)).unwrap();
        }
        booted.settle();
        check(&booted);
        prop_assert_eq!(booted.supervisor().pending().unwrap().count, 0);
        prop_assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
        if !failed {
            // Messages of disabled capabilities and status bits aside, all is as it was.
            booted.world(|world| {
                for at in &devices {
                    let (start, bytes): (u16, usize) = match at.device() {
                        3 => (0x44, 10),
                        5 => (0x44, 6),
                        _ => continue,
                    };
                    world.machine.poke(*at, start, &vec![0; bytes]);
                    if at.device() == 5 {
                        world.machine.poke(*at, 0x4c, &[0]);
                    }
                }
            });
            prop_assert_eq!(format!("{:?}", booted.state()), format!("{before:?}"));
        }
    }
}
