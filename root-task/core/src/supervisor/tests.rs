//! The supervisor against hands that write down what they are told to do.

mod fake;
mod memory;
mod restarts;

use super::*;
use alloc::string::{String as Text, ToString};
use alloc::vec;
use alloc::vec::Vec as List;
use fake::Fake;
use ipc_proto::supervisor::{self, Request};
use ipc_proto::{Badge, BadgeKind, ClientId, Message, Refusal, Rule};

/// PDs of the test system: console, timer, iommu, msi, two pci shards, three clients.
const PCI1: u16 = 6;
const A: u16 = 7;
const B: u16 = 8;
const LOOKER: u16 = 9;

const RULES: Rules = Rules {
    testing: true,
    restarts: 8,
    end: End::Finished,
};

fn ward(name: &str, kind: Kind) -> Ward {
    Ward {
        name: name.try_into().unwrap(),
        kind,
        must_finish: matches!(kind, Kind::Client(0 | 1)),
        may_fault: false,
    }
}

fn wards() -> List<Ward> {
    vec![
        ward("console", Kind::Console),
        ward("timer", Kind::Timer),
        ward("iommu-server-0", Kind::Iommu(0)),
        ward("msi-server-0", Kind::Msi(0)),
        ward("pci-server-0", Kind::Pci(0)),
        ward("pci-server-1", Kind::Pci(1)),
        ward("a", Kind::Client(0)),
        ward("b", Kind::Client(1)),
        ward("looker", Kind::Client(2)),
    ]
}

/// Does what has become possible, and has memory taken back at once, unless that is to take long.
fn work(supervisor: &mut Supervisor, hands: &mut Fake) {
    supervisor.work(hands);
    while !hands.memory_takes_long && !hands.reclaiming.is_empty() {
        for pd in core::mem::take(&mut hands.reclaiming) {
            supervisor.reclaimed(pd, Ok(()), hands);
        }
        supervisor.work(hands);
    }
}

fn ask(
    supervisor: &mut Supervisor,
    hands: &mut Fake,
    pd: u16,
    request: Request,
) -> Option<Message> {
    let badge = Badge::plain(BadgeKind::Pd, pd).to_word();
    let answer = supervisor::dispatch(&mut supervisor.desk(), badge, &request.encode());
    work(supervisor, hands);
    answer
}

fn running_with(wards: List<Ward>, testing: bool, end: End) -> (Supervisor, Fake) {
    let count = wards.len() as u16;
    let rules = Rules {
        testing,
        end,
        ..RULES
    };
    let mut supervisor = Supervisor::new(wards.into_iter(), rules).unwrap();
    let mut hands = Fake::default();
    for pd in 1..=count {
        if pd == A {
            supervisor.remember_figures(&mut hands);
        }
        assert!(!supervisor.is_started(pd));
        assert!(ask(&mut supervisor, &mut hands, pd, Request::Ready {}).is_some());
        assert!(supervisor.is_started(pd));
    }
    assert_eq!(hands.take(), ["@figure before.iommu-server-0.buffers 0"]);
    (supervisor, hands)
}

fn running() -> (Supervisor, Fake) {
    running_with(wards(), true, End::Finished)
}

const EXIT: Request = Request::Exit { code: 0 };

#[test]
fn a_run_ends_when_all_that_must_have_finished() {
    let (mut supervisor, mut hands) = running();
    assert_eq!(
        ask(&mut supervisor, &mut hands, A, EXIT),
        None,
        "an exit is not answered"
    );
    assert_eq!(
        hands.take(),
        [
            "stop 7",
            "disown 7",
            "held 0 0",
            "pci 0 0",
            "held 1 0",
            "pci 1 0",
            "iommu 0 0",
            "msi 0 0",
            "reclaim 7",
            "@gone a exit 0",
        ]
    );
    ask(&mut supervisor, &mut hands, B, EXIT);
    let log = hands.take();
    let at = |text: &str| {
        log.iter()
            .position(|line| line == text)
            .unwrap_or_else(|| panic!("{text} in {log:?}"))
    };
    assert!(
        at("@gone b exit 0") < at("stop 9"),
        "who need not finish is stopped at the end"
    );
    assert!(at("@gone looker stopped") < at("@figure after.iommu-server-0.buffers 0"));
    assert_eq!(
        log[log.len() - 2..],
        [
            "@check resources_returned pass 1 figures are as before",
            "Pass Off"
        ]
    );
    ask(&mut supervisor, &mut hands, A, EXIT);
    assert_eq!(
        hands.take(),
        List::<Text>::new(),
        "nothing happens after the end"
    );
}

#[test]
fn nobody_can_ask_in_the_name_of_a_dead_client_when_servers_take_back_what_it_had() {
    let (mut supervisor, mut hands) = running();
    ask(&mut supervisor, &mut hands, A, EXIT);
    let log = hands.take();
    let at = |text: &str| log.iter().position(|line| line == text).unwrap();
    // What it handed on would else have a server give it more after it was told that it is gone.
    for server in ["pci 0 0", "pci 1 0", "iommu 0 0", "msi 0 0"] {
        assert!(at("stop 7") < at("disown 7") && at("disown 7") < at(server));
    }
}

#[test]
fn two_deaths_at_once_do_not_wait_for_each_other() {
    let (mut supervisor, mut hands) = running();
    hands.slow = [0, 1];
    ask(&mut supervisor, &mut hands, A, EXIT);
    hands.take();
    hands.slow = [0, 0];
    hands.owes = [0, 1];
    ask(&mut supervisor, &mut hands, LOOKER, EXIT);
    assert!(
        !hands.log.iter().any(|line| line.starts_with("@gone")),
        "shard 1 owes something, for whomever"
    );
    hands.owes = [0, 0];
    supervisor.signalled(event::SHARD_DONE << 1);
    work(&mut supervisor, &mut hands);
    let log = hands.take();
    assert!(
        log.contains(&"@gone a exit 0".into()) && log.contains(&"@gone looker exit 0".into()),
        "{log:?}"
    );
}

#[test]
fn an_unexpected_fault_fails_the_run_and_an_expected_one_does_not() {
    for (may_fault, verdict) in [
        (true, "Pass Off"),
        (false, "Fail(\"a died: page fault at 0x0\") Off"),
    ] {
        let mut list = wards();
        list[usize::from(A) - 1].may_fault = may_fault;
        let (mut supervisor, mut hands) = running_with(list, true, End::Finished);
        supervisor.fault(A, format_args!("page fault at {:#x}", 0));
        work(&mut supervisor, &mut hands);
        supervisor.fault(A, format_args!("again"));
        work(&mut supervisor, &mut hands);
        assert_eq!(
            hands.take().last().unwrap(),
            "@gone a fault page fault at 0x0"
        );
        ask(&mut supervisor, &mut hands, B, EXIT);
        assert_eq!(hands.take().last().unwrap(), verdict);
    }
}

#[test]
fn an_exit_code_fails_the_run() {
    let (mut supervisor, mut hands) = running();
    ask(&mut supervisor, &mut hands, A, Request::Exit { code: 3 });
    ask(&mut supervisor, &mut hands, B, EXIT);
    assert_eq!(
        hands.take().last().unwrap(),
        "Fail(\"a ended with code 3\") Off"
    );
}

#[test]
fn a_dead_server_ends_the_run_at_once_and_is_never_called() {
    for end in [End::Finished, End::Never] {
        let (mut supervisor, mut hands) = running_with(wards(), true, end);
        supervisor.fault(PCI1, format_args!("page fault"));
        assert!(supervisor.is_broken());
        work(&mut supervisor, &mut hands);
        let power = if end == End::Finished {
            Power::Off
        } else {
            Power::On
        };
        assert_eq!(
            hands.take(),
            [alloc::format!(
                "Fail(\"server pci-server-1 died: page fault\") {power:?}"
            )]
        );
        ask(&mut supervisor, &mut hands, A, EXIT);
        assert_eq!(hands.take(), List::<Text>::new());
    }
    let (mut supervisor, mut hands) = running();
    ask(&mut supervisor, &mut hands, 1, EXIT);
    assert_eq!(
        hands.take(),
        ["Fail(\"server console ended with code 0\") Off"]
    );
}

#[test]
fn resources_that_are_not_returned_fail_the_run() {
    let (mut supervisor, mut hands) = running();
    hands.resources = 2;
    ask(&mut supervisor, &mut hands, A, EXIT);
    ask(&mut supervisor, &mut hands, B, EXIT);
    let log = hands.take();
    let check = "@check resources_returned fail iommu-server-0.buffers 0 before, 2 after";
    assert_eq!(log[log.len() - 2], check);
    assert_eq!(
        log[log.len() - 1],
        "Fail(\"resources were not returned: iommu-server-0.buffers 2\") Off"
    );

    let (mut supervisor, mut hands) = running();
    hands.vectors_left = 1;
    ask(&mut supervisor, &mut hands, A, EXIT);
    ask(&mut supervisor, &mut hands, B, EXIT);
    assert_eq!(
        hands.take().last().unwrap(),
        "Fail(\"1 vectors were left with client 0\") Off"
    );
}

#[test]
fn a_server_that_refuses_keeps_the_clients_memory_out_of_circulation() {
    let (mut supervisor, mut hands) = running();
    hands.refuses = Some("pci");
    ask(&mut supervisor, &mut hands, A, EXIT);
    let log = hands.take();
    assert!(
        log.iter()
            .any(|line| line.starts_with("pci-server-1 does not let go of client 0")),
        "{log:?}"
    );
    assert!(
        !log.iter()
            .any(|line| line.starts_with("iommu") || line.starts_with("reclaim")),
        "{log:?}"
    );
    hands.refuses = None;
    ask(&mut supervisor, &mut hands, B, EXIT);
    assert!(hands.take().last().unwrap().starts_with("Fail("));
}

#[test]
fn a_suspended_server_is_not_called_and_what_waited_goes_on() {
    let (mut supervisor, mut hands) = running();
    let suspend = |switch| Request::Suspend { pd: PCI1, switch };
    ask(&mut supervisor, &mut hands, B, suspend(Switch::Off)).unwrap();
    assert_eq!(hands.take(), ["stop 6"]);
    ask(&mut supervisor, &mut hands, A, EXIT);
    assert_eq!(hands.take(), ["stop 7", "disown 7", "held 0 0", "pci 0 0"]);
    supervisor.signalled(event::SHARD_DONE << 1);
    work(&mut supervisor, &mut hands);
    assert_eq!(hands.take(), List::<Text>::new());
    ask(&mut supervisor, &mut hands, B, suspend(Switch::On)).unwrap();
    assert_eq!(
        hands.take(),
        [
            "resume 6",
            "held 1 0",
            "pci 1 0",
            "iommu 0 0",
            "msi 0 0",
            "reclaim 7",
            "@gone a exit 0"
        ]
    );
}

#[test]
fn tests_may_stop_clients_and_nothing_that_all_need() {
    let rule = |answer: Option<Message>| Rule::from_code(answer.unwrap().label);
    let (mut supervisor, mut hands) = running();
    for pd in [0, 1, 2, 3, 4, 10, 99, A] {
        let request = Request::Suspend {
            pd,
            switch: Switch::Off,
        };
        assert_eq!(
            rule(ask(&mut supervisor, &mut hands, A, request)),
            Some(Rule::BadArgument),
            "PD {pd}"
        );
        // Shards are restarted: `restarts` has them killed.
        if matches!(pd, 3 | 4) {
            continue;
        }
        let request = Request::Kill { pd };
        assert_eq!(
            rule(ask(&mut supervisor, &mut hands, A, request)),
            Some(Rule::BadArgument),
            "PD {pd}"
        );
    }
    assert_eq!(hands.take(), List::<Text>::new());
    assert_eq!(
        rule(ask(
            &mut supervisor,
            &mut hands,
            A,
            Request::Kill { pd: LOOKER }
        )),
        None
    );
    assert_eq!(hands.take().last().unwrap(), "@gone looker killed");
    assert_eq!(
        rule(ask(
            &mut supervisor,
            &mut hands,
            A,
            Request::Kill { pd: LOOKER }
        )),
        Some(Rule::ClientGone)
    );

    let (mut supervisor, mut hands) = running_with(wards(), false, End::Finished);
    assert_eq!(
        rule(ask(&mut supervisor, &mut hands, A, Request::Kill { pd: B })),
        Some(Rule::NotGranted)
    );
    let request = Request::Suspend {
        pd: B,
        switch: Switch::Off,
    };
    assert_eq!(
        rule(ask(&mut supervisor, &mut hands, A, request)),
        Some(Rule::NotGranted)
    );
}

#[test]
fn a_killed_client_does_not_fail_the_run() {
    let (mut supervisor, mut hands) = running();
    ask(
        &mut supervisor,
        &mut hands,
        A,
        Request::Suspend {
            pd: B,
            switch: Switch::Off,
        },
    )
    .unwrap();
    ask(&mut supervisor, &mut hands, A, Request::Kill { pd: B }).unwrap();
    ask(&mut supervisor, &mut hands, A, EXIT);
    assert_eq!(hands.take().last().unwrap(), "Pass Off");
}

#[test]
fn a_run_is_not_over_before_clients_have_started() {
    let mut supervisor = Supervisor::new(wards().into_iter(), RULES).unwrap();
    let mut hands = Fake::default();
    for pd in 1..=PCI1 {
        ask(&mut supervisor, &mut hands, pd, Request::Ready {});
    }
    supervisor.remember_figures(&mut hands);
    ask(&mut supervisor, &mut hands, A, EXIT);
    assert!(
        hands.take().contains(&"@gone a exit 0".into()),
        "a client may exit without having been ready"
    );
    ask(&mut supervisor, &mut hands, B, Request::Ready {});
    assert_eq!(hands.take(), List::<Text>::new());
}

#[test]
fn a_system_that_never_ends_stays_on() {
    let (mut supervisor, mut hands) = running_with(wards(), true, End::Never);
    for pd in [A, B] {
        ask(&mut supervisor, &mut hands, pd, EXIT);
    }
    assert_eq!(
        hands.take().last().unwrap(),
        "@gone b exit 0",
        "who need not finish goes on"
    );
    ask(&mut supervisor, &mut hands, LOOKER, EXIT);
    assert_eq!(hands.take().last().unwrap(), "Pass On");
}

#[test]
fn a_stranger_is_not_answered_as_a_protection_domain() {
    let (mut supervisor, mut hands) = running();
    let answer = ask(&mut supervisor, &mut hands, 77, Request::Ready {}).unwrap();
    assert_eq!(Rule::from_code(answer.label), Some(Rule::UnknownBadge));
    supervisor.fault(0, format_args!("none"));
    supervisor.fault(77, format_args!("none"));
    work(&mut supervisor, &mut hands);
    assert_eq!(hands.take(), List::<Text>::new());
}
