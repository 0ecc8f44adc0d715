//! What the medic decides, death by death.

use super::*;
use ipc_proto::supervisor::{self, Request};
use ipc_proto::{Badge, BadgeKind};

const IOMMU: u16 = 3;
const PCI: u16 = 5;
const MINUTE: u64 = CALM_US;

fn ask(medic: &mut Medic, pd: u16, request: Request) -> Option<Result<(), Rule>> {
    let badge = Badge::plain(BadgeKind::Pd, pd).to_word();
    supervisor::dispatch(&mut medic.desk(), badge, &request.encode()).map(|answer| {
        match answer.label {
            0 => Ok(()),
            code => Err(Rule::from_code(code).unwrap()),
        }
    })
}

fn ready(medic: &mut Medic, pd: u16) {
    assert_eq!(ask(medic, pd, Request::Ready {}), Some(Ok(())));
    assert_eq!(medic.deed(), Some(Deed::Tell(Told::Ready { pd })));
}

fn medic(bound: u8) -> Medic {
    let mut medic = Medic::new([IOMMU, PCI].into_iter(), bound).unwrap();
    ready(&mut medic, IOMMU);
    ready(&mut medic, PCI);
    medic
}

fn fault(medic: &mut Medic, now: u64) -> Treatment {
    match medic.faulted(PCI, now) {
        Told::Died {
            pd: PCI,
            cause: Cause::Fault,
            treatment,
        } => treatment,
        told => panic!("{told:?}"),
    }
}

#[test]
fn a_server_that_faults_is_restarted_and_told_how_often() {
    let mut medic = medic(8);
    assert_eq!(fault(&mut medic, 1), Treatment::Restart(1));
    ready(&mut medic, PCI);
    assert_eq!(fault(&mut medic, 2), Treatment::Restart(2));
    ready(&mut medic, PCI);
    assert_eq!(ask(&mut medic, PCI, Request::Ready {}), Some(Ok(())));
    assert_eq!(medic.deed(), None, "it is ready once a start");
}

#[test]
fn faults_without_a_calm_minute_come_to_an_end() {
    let mut medic = medic(3);
    for (count, now) in [(1, 0), (2, MINUTE - 1), (3, 2 * MINUTE - 2)] {
        assert_eq!(fault(&mut medic, now), Treatment::Restart(count));
        ready(&mut medic, PCI);
    }
    let mut calm = MINUTE * 3 - 2;
    for count in 4..20 {
        assert_eq!(fault(&mut medic, calm), Treatment::Restart(count));
        ready(&mut medic, PCI);
        calm += MINUTE;
    }
    calm -= MINUTE;
    for count in [20, 21] {
        assert_eq!(fault(&mut medic, calm), Treatment::Restart(count));
        ready(&mut medic, PCI);
    }
    assert_eq!(fault(&mut medic, calm), Treatment::GiveUp);
    assert_eq!(ask(&mut medic, PCI, Request::Ready {}), Some(Ok(())));
    assert_eq!(medic.deed(), None, "it refuses, and is no server any more");
    assert_eq!(fault(&mut medic, calm), Treatment::Leave, "not even that");
    assert_eq!(
        medic.faulted(IOMMU, calm),
        died(IOMMU, Cause::Fault, Treatment::Restart(1)),
        "each is counted by itself"
    );
}

#[test]
fn a_fault_in_the_recovery_is_the_end_and_a_kill_is_not() {
    let mut one = medic(8);
    assert_eq!(fault(&mut one, 1), Treatment::Restart(1));
    for count in 2..30 {
        assert_eq!(
            one.killed(PCI),
            died(PCI, Cause::Kill, Treatment::Restart(count)),
            "kills do not count"
        );
    }
    assert_eq!(fault(&mut one, MINUTE * 9), Treatment::GiveUp);
    assert!(!one.can_be_killed(PCI));
}

#[test]
fn a_fault_at_the_first_start_is_not_tried_again() {
    let mut medic = Medic::new([PCI].into_iter(), 8).unwrap();
    assert!(!medic.can_be_killed(PCI), "nothing is there to recover");
    assert_eq!(fault(&mut medic, 1), Treatment::GiveUp);
}

#[test]
fn without_restarts_every_fault_is_the_end() {
    let mut medic = medic(0);
    assert!(!medic.can_be_killed(PCI));
    assert_eq!(fault(&mut medic, 1), Treatment::GiveUp);
}

#[test]
fn a_fault_that_was_asked_for_is_told_apart() {
    let mut medic = medic(8);
    medic.crashing(PCI);
    let crash = died(PCI, Cause::Crash, Treatment::Restart(1));
    assert_eq!(medic.faulted(PCI, 1), crash);
    ready(&mut medic, PCI);
    // Killed before it came to it: the next fault is its own.
    medic.crashing(PCI);
    medic.killed(PCI);
    ready(&mut medic, PCI);
    assert_eq!(fault(&mut medic, 2), Treatment::Restart(3));
}

#[test]
fn only_the_supervisor_asks_for_deaths() {
    let mut medic = medic(8);
    for request in [
        Request::Kill { pd: PCI },
        Request::Crash { pd: PCI },
        Request::Fail { pd: PCI },
        Request::Hang { pd: PCI },
    ] {
        assert_eq!(ask(&mut medic, IOMMU, request), Some(Err(Rule::NotGranted)));
        assert_eq!(medic.deed(), None);
    }
    assert_eq!(
        ask(&mut medic, pd::ROOT, Request::Kill { pd: PCI }),
        Some(Ok(()))
    );
    assert_eq!(medic.deed(), Some(Deed::Kill(PCI)));
    assert_eq!(
        ask(&mut medic, pd::ROOT, Request::Kill { pd: 1 }),
        Some(Err(Rule::BadArgument)),
        "the console is not in its care"
    );
    assert_eq!(
        ask(
            &mut medic,
            PCI,
            Request::Chaos {
                pd: 0,
                seed: 1,
                kills: 1,
                span: 1
            }
        ),
        Some(Err(Rule::NotGranted))
    );
}

#[test]
fn a_server_that_exits_is_told_of_and_not_answered() {
    let mut medic = medic(8);
    assert_eq!(ask(&mut medic, PCI, Request::Exit { code: 3 }), None);
    let told = Told::Exit { pd: PCI, code: 3 };
    assert_eq!(medic.deed(), Some(Deed::Tell(told)));
    assert!(!medic.can_be_killed(PCI));
}

/// What was restarted is ready in time, or given up.
#[test]
fn a_restarted_server_that_is_not_ready_in_time_is_given_up() {
    let mut medic = medic(8);
    assert_eq!(medic.watch(5), None, "nobody starts");
    assert_eq!(fault(&mut medic, 10), Treatment::Restart(1));
    assert_eq!(medic.watch(10), Some(10 + START_US));
    assert_eq!(medic.watch(20), Some(10 + START_US), "not put off");
    assert_eq!(medic.overdue(9 + START_US), None);
    let silent = died(PCI, Cause::Silence, Treatment::GiveUp);
    assert_eq!(medic.overdue(10 + START_US), Some(silent));
    assert_eq!(medic.watch(11 + START_US), None);
    assert!(!medic.can_be_killed(PCI));
    assert_eq!(fault(&mut medic, 12 + START_US), Treatment::Leave);
}

#[test]
fn a_server_that_is_ready_or_has_died_again_is_not_given_up_for_an_earlier_start() {
    let mut medic = medic(8);
    assert_eq!(fault(&mut medic, 0), Treatment::Restart(1));
    medic.watch(0);
    ready(&mut medic, PCI);
    assert_eq!(medic.overdue(START_US), None, "it was ready");
    assert_eq!(medic.watch(START_US), None);
    medic.killed(PCI);
    assert_eq!(medic.watch(START_US), Some(2 * START_US));
    medic.killed(PCI);
    assert_eq!(medic.overdue(2 * START_US), None, "another start");
    assert_eq!(medic.watch(2 * START_US), Some(3 * START_US));
    assert!(medic.overdue(3 * START_US).is_some());
}

#[test]
fn a_recovery_that_waits_for_another_has_its_time_after_it() {
    let mut medic = medic(8);
    medic.killed(PCI);
    assert_eq!(medic.watch(0), Some(START_US));
    // The server below dies while the one above recovers.
    medic.killed(IOMMU);
    assert_eq!(medic.watch(START_US / 2), Some(START_US / 2 + START_US));
    assert_eq!(medic.overdue(START_US), None, "it waits for the other");
    let hangs = |pd| Some(died(pd, Cause::Silence, Treatment::GiveUp));
    assert_eq!(medic.overdue(2 * START_US), hangs(IOMMU));
    // From now on it is refused there: its own time begins.
    assert_eq!(medic.watch(2 * START_US), Some(3 * START_US));
    assert_eq!(medic.overdue(3 * START_US), hangs(PCI));
}

#[test]
fn the_first_start_takes_as_long_as_it_takes() {
    let mut medic = Medic::new([PCI, IOMMU].into_iter(), 8).unwrap();
    assert_eq!(medic.watch(0), None);
    assert_eq!(medic.overdue(u64::MAX), None);
}
