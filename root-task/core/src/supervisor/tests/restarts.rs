//! Servers that die, as the medic tells of it, at every point of the supervisor's work.

use super::*;
use crate::medic::{Cause, Told, Treatment};

const IOMMU: u16 = 3;
const MSI: u16 = 4;
const PCI0: u16 = 5;

fn died(
    supervisor: &mut Supervisor,
    hands: &mut Fake,
    pd: u16,
    cause: Cause,
    treatment: Treatment,
) {
    let told = Told::Died {
        pd,
        cause,
        treatment,
    };
    supervisor.told(told, 1000, format_args!("page fault"), hands);
    work(supervisor, hands);
}

fn ready(supervisor: &mut Supervisor, hands: &mut Fake, pd: u16) {
    supervisor.told(Told::Ready { pd }, 2000, format_args!(""), hands);
    work(supervisor, hands);
}

/// The server dies and is there again.
fn restart(supervisor: &mut Supervisor, hands: &mut Fake, pd: u16) {
    died(supervisor, hands, pd, Cause::Kill, Treatment::Restart(1));
    ready(supervisor, hands, pd);
}

fn finish(supervisor: &mut Supervisor, hands: &mut Fake) -> Text {
    ask(supervisor, hands, A, EXIT);
    ask(supervisor, hands, B, EXIT);
    hands.take().pop().unwrap()
}

#[test]
fn a_restart_is_told_and_the_run_goes_on() {
    let (mut supervisor, mut hands) = running();
    died(
        &mut supervisor,
        &mut hands,
        MSI,
        Cause::Kill,
        Treatment::Restart(1),
    );
    assert_eq!(
        hands.take(),
        [
            "restarted msi-server-0 after kill (1)",
            "@restarted msi-server-0 kill 1"
        ]
    );
    ready(&mut supervisor, &mut hands, MSI);
    assert_eq!(finish(&mut supervisor, &mut hands), "Pass Off");
}

#[test]
fn a_fault_that_nobody_asked_for_fails_the_run_but_does_not_end_it() {
    for (cause, verdict) in [
        (
            Cause::Fault,
            "Fail(\"server iommu-server-0 died: page fault\") Off",
        ),
        (Cause::Crash, "Pass Off"),
    ] {
        let (mut supervisor, mut hands) = running();
        died(
            &mut supervisor,
            &mut hands,
            IOMMU,
            cause,
            Treatment::Restart(1),
        );
        assert_eq!(
            hands.take(),
            [
                "restarted iommu-server-0 after fault (1)",
                "@restarted iommu-server-0 fault 1"
            ]
        );
        ready(&mut supervisor, &mut hands, IOMMU);
        assert_eq!(finish(&mut supervisor, &mut hands), verdict);
    }
}

/// It refuses what it is asked: the others go on, what it served stays where it is, and the run has failed.
#[test]
fn the_system_goes_on_without_a_shard_that_is_given_up_and_the_run_fails() {
    let (mut supervisor, mut hands) = running();
    died(
        &mut supervisor,
        &mut hands,
        PCI1,
        Cause::Fault,
        Treatment::GiveUp,
    );
    assert!(!supervisor.is_broken());
    assert_eq!(
        hands.take(),
        ["gave up pci-server-1: it refuses whatever it is asked"]
    );
    let refused = ask(
        &mut supervisor,
        &mut hands,
        LOOKER,
        Request::Kill { pd: PCI1 },
    );
    assert_eq!(refused.unwrap().label, Rule::ClientGone as u64);
    // A client dies: the other shard is asked and waited for, the servers below still serve the lost one's devices.
    hands.slow = [1, 0];
    ask(&mut supervisor, &mut hands, A, EXIT);
    let log = hands.take();
    assert!(log.contains(&"pci 0 0".into()), "{log:?}");
    hands.owes = [0, 0];
    supervisor.signalled(event::SHARD_DONE);
    work(&mut supervisor, &mut hands);
    let log = hands.take();
    let kept = "pci-server-1 does not let go of client 0";
    assert!(log[0].starts_with(kept), "{log:?}");
    assert_eq!(log.len(), 1, "nothing is taken back: {log:?}");
    hands.slow = [0, 0];
    ask(&mut supervisor, &mut hands, B, EXIT);
    let verdict = "Fail(\"server pci-server-1 died: page fault\") Off";
    assert_eq!(hands.take().last().unwrap(), verdict);
}

#[test]
fn a_shard_that_cannot_even_refuse_ends_the_run() {
    let (mut supervisor, mut hands) = running();
    for treatment in [Treatment::GiveUp, Treatment::Leave] {
        died(&mut supervisor, &mut hands, PCI1, Cause::Fault, treatment);
    }
    assert!(supervisor.is_broken());
    let verdict = "Fail(\"server pci-server-1 died: page fault\") Off";
    assert_eq!(hands.take().last().unwrap(), verdict);
}

/// Who waits for an answer of it is refused there, so nobody is taken down twice.
#[test]
fn a_shard_that_is_given_up_while_a_client_is_taken_down_is_not_waited_for() {
    let (mut supervisor, mut hands) = running();
    hands.slow = [0, 1];
    ask(&mut supervisor, &mut hands, A, EXIT);
    hands.take();
    died(
        &mut supervisor,
        &mut hands,
        PCI1,
        Cause::Silence,
        Treatment::GiveUp,
    );
    work(&mut supervisor, &mut hands);
    let log = hands.take();
    let kept = "pci-server-1 does not let go of client 0";
    assert!(log.last().unwrap().starts_with(kept), "{log:?}");
}

#[test]
fn a_server_that_dies_before_its_first_ready_ends_the_start() {
    let mut supervisor = Supervisor::new(wards().into_iter(), RULES).unwrap();
    let mut hands = Fake::default();
    died(
        &mut supervisor,
        &mut hands,
        IOMMU,
        Cause::Fault,
        Treatment::GiveUp,
    );
    assert!(supervisor.is_started(IOMMU) && supervisor.is_broken());
}

#[test]
fn every_step_with_a_server_is_taken_again_when_its_restart_breaks_it_off() {
    for (step, pd) in [
        ("pci", PCI0),
        ("pending", PCI0),
        ("iommu", IOMMU),
        ("msi", MSI),
    ] {
        let (mut supervisor, mut hands) = running();
        hands.breaks_off = Some(step);
        ask(&mut supervisor, &mut hands, A, EXIT);
        let log = hands.take();
        assert!(log.contains(&alloc::format!("{step} broken off")));
        assert!(
            !log.iter().any(|line| line.starts_with("reclaim")),
            "nothing is done behind a step that is open: {log:?}"
        );
        // Told in one go: the restart was over before the supervisor looked.
        restart(&mut supervisor, &mut hands, pd);
        let log = hands.take();
        assert!(log.contains(&"@gone a exit 0".into()), "{step}: {log:?}");
        let held = log.iter().filter(|line| line.starts_with("held")).count();
        assert!(held <= 1, "what a client holds is printed once: {log:?}");
        hands.log.clear();
        assert_eq!(finish(&mut supervisor, &mut hands), "Pass Off");
    }
}

#[test]
fn a_shard_that_dies_while_it_owes_a_revocation_is_asked_again() {
    let (mut supervisor, mut hands) = running();
    hands.slow = [1, 0];
    ask(&mut supervisor, &mut hands, A, EXIT);
    hands.take();
    // It dies after it has said that it would, and before it signals that it has.
    hands.slow = [0, 0];
    hands.owes = [0, 0];
    died(
        &mut supervisor,
        &mut hands,
        PCI0,
        Cause::Kill,
        Treatment::Restart(1),
    );
    hands.take();
    ready(&mut supervisor, &mut hands, PCI0);
    assert_eq!(
        hands.take(),
        [
            "pci 0 0",
            "iommu 0 0",
            "msi 0 0",
            "reclaim 7",
            "@gone a exit 0"
        ],
        "nobody waits for a signal that died with it"
    );
}

#[test]
fn a_shard_that_died_after_it_had_let_go_is_not_asked_again() {
    let (mut supervisor, mut hands) = running();
    hands.slow = [0, 1];
    ask(&mut supervisor, &mut hands, A, EXIT);
    hands.take();
    hands.slow = [0, 0];
    restart(&mut supervisor, &mut hands, PCI0);
    let log = hands.take();
    assert!(!log.iter().any(|line| line == "pci 0 0"), "{log:?}");
    hands.owes = [0, 0];
    supervisor.signalled(event::SHARD_DONE << 1);
    work(&mut supervisor, &mut hands);
    assert_eq!(hands.take().last().unwrap(), "@gone a exit 0");
}

#[test]
fn several_servers_that_die_at_once_break_off_one_step_each() {
    let (mut supervisor, mut hands) = running();
    hands.breaks_off = Some("pci");
    ask(&mut supervisor, &mut hands, A, EXIT);
    for pd in [PCI0, IOMMU, MSI] {
        let told = Told::Died {
            pd,
            cause: Cause::Kill,
            treatment: Treatment::Restart(1),
        };
        supervisor.told(told, 1000, format_args!("killed"), &mut hands);
    }
    hands.take();
    hands.breaks_off = Some("iommu");
    ready(&mut supervisor, &mut hands, PCI0);
    assert_eq!(hands.take(), ["pci 0 0", "iommu broken off"]);
    hands.breaks_off = Some("msi");
    ready(&mut supervisor, &mut hands, IOMMU);
    assert_eq!(hands.take(), ["iommu 0 0", "msi broken off"]);
    ready(&mut supervisor, &mut hands, MSI);
    assert_eq!(hands.take(), ["msi 0 0", "reclaim 7", "@gone a exit 0"]);
}

#[test]
fn a_test_can_have_shards_die_and_nobody_else() {
    let (mut supervisor, mut hands) = running();
    let mut fate = |request| {
        let answer = ask(&mut supervisor, &mut hands, A, request).unwrap();
        (Rule::from_code(answer.label), hands.take())
    };
    assert_eq!(
        fate(Request::Kill { pd: PCI1 }),
        (None, vec!["Kill 6".to_string()])
    );
    assert_eq!(
        fate(Request::Crash { pd: IOMMU }),
        (None, vec!["Crash 3".to_string()])
    );
    for request in [
        Request::Kill { pd: 1 },
        Request::Crash { pd: 2 },
        Request::Crash { pd: B },
        Request::Deaths { pd: 99 },
    ] {
        assert_eq!(fate(request), (Some(Rule::BadArgument), vec![]));
    }
    fate(Request::Suspend {
        pd: PCI1,
        switch: Switch::Off,
    });
    assert_eq!(
        fate(Request::Kill { pd: PCI1 }),
        (Some(Rule::BadArgument), vec![]),
        "it would run again"
    );
}

#[test]
fn deaths_are_refused_where_servers_are_not_restarted_or_nothing_is_tested() {
    for (rules, rule) in [
        (
            Rules {
                testing: false,
                ..RULES
            },
            Rule::NotGranted,
        ),
        (
            Rules {
                restarts: 0,
                ..RULES
            },
            Rule::BadArgument,
        ),
    ] {
        let mut supervisor = Supervisor::new(wards().into_iter(), rules).unwrap();
        let mut hands = Fake::default();
        for pd in 1..=LOOKER {
            ask(&mut supervisor, &mut hands, pd, Request::Ready {});
        }
        for request in [Request::Kill { pd: PCI1 }, Request::Crash { pd: PCI1 }] {
            let answer = ask(&mut supervisor, &mut hands, A, request).unwrap();
            assert_eq!(Rule::from_code(answer.label), Some(rule));
        }
        let chaos = Request::Chaos {
            pd: 0,
            seed: 1,
            kills: 1,
            span: 1,
        };
        let answer = ask(&mut supervisor, &mut hands, A, chaos).unwrap();
        assert_eq!(Rule::from_code(answer.label), Some(Rule::NotGranted));
        assert_eq!(hands.take(), List::<Text>::new());
    }
}

fn deaths(supervisor: &mut Supervisor, hands: &mut Fake, pd: u16) -> supervisor::DeathsReply {
    let answer = ask(supervisor, hands, A, Request::Deaths { pd }).unwrap();
    supervisor::DeathsReply::decode(&answer).unwrap()
}

#[test]
fn chaos_kills_as_often_as_asked_at_times_of_its_seed() {
    let times = |seed: u64, victim: u16| {
        let (mut supervisor, mut hands) = running();
        let chaos = Request::Chaos {
            pd: victim,
            seed,
            kills: 60,
            span: 5000,
        };
        assert_eq!(ask(&mut supervisor, &mut hands, A, chaos).unwrap().label, 0);
        let (mut times, mut at_once) = (List::new(), 0);
        while let Some((pd, micros)) = hands.alarm.take() {
            assert!((1..=5000).contains(&micros));
            assert!(victim == 0 || pd == victim);
            times.push((pd, micros));
            let left = 60 - times.len() as u32;
            let count = times.iter().filter(|(other, _)| *other == pd).count() as u32;
            died(
                &mut supervisor,
                &mut hands,
                pd,
                Cause::Kill,
                Treatment::Restart(count),
            );
            let dead = deaths(&mut supervisor, &mut hands, pd);
            assert_eq!(
                (dead.restarts, dead.died, dead.ready, dead.left),
                (count, 1000, 0, left)
            );
            // Half of the times the next is to die whether this one is back or not.
            if hands.alarm.is_some() {
                at_once += 1;
            } else {
                for server in [IOMMU, MSI, PCI0, PCI1] {
                    ready(&mut supervisor, &mut hands, server);
                }
                assert_eq!(deaths(&mut supervisor, &mut hands, pd).ready, 2000);
            }
        }
        assert!((10..50).contains(&at_once), "{at_once} of 60");
        times
    };
    let one = times(1, 0);
    assert_eq!(one.len(), 60);
    assert_eq!(one, times(1, 0), "the same seed, the same times");
    assert_ne!(one, times(2, 0));
    for pd in [IOMMU, MSI, PCI0, PCI1] {
        assert!(
            one.iter().any(|(victim, _)| *victim == pd),
            "{pd} in {one:?}"
        );
    }
    let short = one.iter().filter(|(_, micros)| *micros < 64).count();
    assert!((10..50).contains(&short), "short and long times: {one:?}");
    assert_eq!(times(3, MSI).len(), 60);
}
