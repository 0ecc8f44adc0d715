//! Channels: who has which mailbox and signals whom, and masters of what clients are given.

use super::*;
use crate::distribution::{self, Violation};
use crate::objects::Part;
use crate::plan::Grant;
use system::model::Channel;

fn channel(name: &str, ends: [u16; 2]) -> Channel {
    Channel {
        name: name.try_into().unwrap(),
        ends,
    }
}

/// Clients 0 and 1 are joined twice, 1 and 2 once, 3 not at all.
fn joined(use_it: impl FnOnce(&Plan, &Inputs<'_>)) {
    let names = ["zero", "one", "two", "alone"];
    let mut system = system(&names.map(|name| client(name, &[])));
    for one in [
        channel("up", [0, 1]),
        channel("down", [1, 0]),
        channel("side", [1, 2]),
    ] {
        system.channels.push(one).unwrap();
    }
    with(&q35(hosts()), &system, |inputs| {
        use_it(&Plan::make(inputs).unwrap(), inputs);
    });
}

#[test]
fn who_may_be_given_a_buffer_reaches_the_iommu_server() {
    let mut peer = client("peer", &[]);
    peer.dma_quota = 0;
    let mut alone = client("alone", &[]);
    alone.dma_quota = 0;
    let mut system = system(&[client("owner", &[]), peer, alone]);
    system.channels.push(channel("ring", [0, 1])).unwrap();
    with(&q35(hosts()), &system, |inputs| {
        let plan = Plan::make(inputs).unwrap();
        assert_eq!(distribution::check(&plan), Ok(()));
        let reaches = |id| {
            let info = plan.info(inputs, plan.client(id).unwrap()).unwrap();
            matches!(info.role, Role::Client(told) if told.iommu == Some(0))
        };
        assert_eq!([0, 1, 2].map(reaches), [true, true, false]);
    });
}

#[test]
fn ends_are_told_where_their_mailbox_is_and_whom_they_signal() {
    joined(|plan, inputs| {
        assert_eq!(distribution::check(plan), Ok(()));
        let ends = |id| {
            let pd = plan.client(id).unwrap();
            let info = plan.info(inputs, pd).unwrap();
            let Role::Client(told) = info.role else {
                panic!()
            };
            told.channels.into_iter().map(move |end| (pd, end))
        };
        let all: Vec<_> = (0..4).flat_map(ends).collect();
        let said: Vec<(&str, u8)> = all
            .iter()
            .map(|(_, end)| (end.name.as_str(), end.side))
            .collect();
        let expected = [
            ("up", 0),
            ("down", 1),
            ("up", 1),
            ("down", 0),
            ("side", 0),
            ("side", 1),
        ];
        assert_eq!(said, expected);
        let mut boxes = BTreeSet::new();
        for (pd, end) in &all {
            let (mailbox, signal) = (end.mailbox.into(), end.signal.into());
            let Some(Cap::Mailbox(number)) = cap(plan, pd.number, mailbox) else {
                panic!("{end:?}")
            };
            assert_eq!(plan.channels[number].name, end.name);
            boxes.insert(plan.mailbox(number).unwrap());
            let (_, peer) = plan.channels[number].of(pd.number).unwrap();
            // The n-th end of the peer is told of by the n-th flag.
            let flags = event::CHANNEL << peer.number;
            let of = peer.pd;
            assert_eq!(
                cap(plan, pd.number, signal),
                Some(Cap::Signal { of, flags })
            );
        }
        assert_eq!(boxes.len(), 3, "each channel has a mailbox of its own");
        let lie_in = |id: u16| {
            let layout = &plan.client(id).unwrap().layout;
            layout.run(Part::Mailboxes).map_or(0, |run| run.count)
        };
        assert_eq!([0, 1, 2, 3].map(lie_in), [1, 2, 0, 0]);
    });
}

#[test]
fn nobody_else_has_the_mailbox_or_signals() {
    joined(|plan, _| {
        let alone = plan.client(3).unwrap().number;
        let (zero, two) = (
            plan.client(0).unwrap().number,
            plan.client(2).unwrap().number,
        );
        let more = |pd: u16, cap| {
            let mut plan = plan.clone();
            let pd = &mut plan.pds[usize::from(pd) - 1];
            pd.grants.push(Grant {
                slot: pd.first_free,
                cap,
            });
            pd.first_free += 1;
            distribution::check(&plan)
        };
        let forbidden = |pd, what| Err(Violation::Forbidden { pd, what });
        let mailbox = "the mailbox of a channel of others";
        assert_eq!(more(alone, Cap::Mailbox(0)), forbidden(alone, mailbox));
        assert_eq!(more(two, Cap::Mailbox(0)), forbidden(two, mailbox));
        assert_eq!(more(zero, Cap::Mailbox(9)), forbidden(zero, mailbox));
        let signal = "a signal to another than the console";
        let flags = event::CHANNEL;
        let to = |of, flags| Cap::Signal { of, flags };
        assert_eq!(more(zero, to(two, flags)), forbidden(zero, signal));
        assert_eq!(more(alone, to(zero, flags)), forbidden(alone, signal));
        // Joined, but not with these flags: it would pass for a server's or another channel's.
        let one = plan.client(1).unwrap().number;
        for flags in [event::FAULT, event::CHANNEL << 2, event::CHANNEL << 7] {
            assert_eq!(more(zero, to(one, flags)), forbidden(zero, signal));
        }
    });
}

#[test]
fn what_outlives_a_client_is_given_to_it_as_a_copy_of_a_master() {
    joined(|plan, _| {
        for pd in &plan.pds {
            let minted =
                |grant: &&Grant| matches!(grant.cap, Cap::Call { .. } | Cap::Signal { .. });
            let minted: Vec<Cap> = pd.grants.iter().filter(minted).map(|g| g.cap).collect();
            let kept: Vec<Cap> = pd.masters().map(|(_, cap)| cap).collect();
            if pd.kind.is_server() {
                assert!(kept.is_empty());
                continue;
            }
            assert_eq!(kept, minted, "{}", pd.name);
            for grant in &pd.grants {
                let master = pd.master_of(grant.slot);
                let found = pd.masters().find(|(slot, _)| Some(*slot) == master);
                assert_eq!(found.map(|(_, cap)| cap == grant.cap), master.map(|_| true));
            }
        }
    });
}

#[test]
fn a_client_has_so_many_ends_and_no_more() {
    let mut system = system(&["a", "b"].map(|name| client(name, &[])));
    for n in 0..9 {
        let name = alloc::format!("c{n}");
        system.channels.push(channel(&name, [0, 1])).unwrap();
    }
    with(&q35(hosts()), &system, |inputs| {
        let refused = Plan::make(inputs).map(drop);
        let what = "channels of a client";
        assert_eq!(refused, Err(PlanError::TooMany { what, limit: 8 }));
    });
}
