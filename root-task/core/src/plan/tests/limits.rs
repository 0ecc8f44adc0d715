//! The plan at its limits: the largest system, too large a one, and a machine that lacks things.

use super::*;
use crate::facts::Unit;
use crate::shards::tests::unit;
use system::info::{MAX_RESERVED, MAX_SCOPES, Reserved, Scope};

#[test]
fn information_fits_its_pages_in_the_largest_system() {
    let rules: Vec<DeviceMatch> = (0..16)
        .map(|n| DeviceMatch::Class {
            class: 0xff_ffff - n,
            mask: 0xff_ffff,
        })
        .collect();
    let mut all = vec![];
    for n in 0..32 {
        let mut client = client(&alloc::format!("a-client-of-some-name-{n:02}"), &rules);
        (client.inspect, client.admin) = (true, true);
        client.args = core::iter::repeat_n('x', system::model::MAX_ARGS).collect();
        all.push(client);
    }
    let system = system(&all);
    let mut machine = q35((0..16).map(|n| host(n * 16, n * 16 + 15, &[])).collect());
    let scope = Scope::IoApic {
        id: 255,
        requester: u16::MAX,
    };
    machine.units = (0..8)
        .map(|n| Unit {
            include_all: false,
            scopes: vec![scope; MAX_SCOPES],
            ..unit(0xfed9_0000 + n * 4096)
        })
        .collect();
    machine.reserved = (0..MAX_RESERVED)
        .map(|_| Reserved {
            segment: u16::MAX,
            base: u64::MAX - 4095,
            last: u64::MAX,
            used: system::info::ReservedUse::ReadWrite,
            scopes: [scope; 8].into_iter().collect(),
        })
        .collect();
    with(&machine, &system, |inputs| {
        let plan = Plan::make(inputs).unwrap();
        // Devices keep most vectors even so.
        assert!(plan.irqs.iter().all(|irq| irq.vector >= 64));
        assert_eq!(plan.irqs.len(), 8 + 1 + 16);
        crate::distribution::check(&plan).unwrap();
        for pd in &plan.pds {
            let bytes = postcard::to_allocvec(&*plan.info(inputs, pd).unwrap()).unwrap();
            let pages = pd
                .runs
                .iter()
                .find(|run| run.content == Content::Info)
                .unwrap()
                .pages;
            assert!(
                bytes.len() + 4 <= pages as usize * 4096,
                "{}: {} bytes",
                pd.name,
                bytes.len()
            );
        }
    });
}

#[test]
fn a_machine_without_units_or_timer_is_dealt_with() {
    let mut machine = q35(hosts());
    machine.units.clear();
    let plan = with(&machine, &system(&clients()), |inputs| {
        Plan::make(inputs).unwrap()
    });
    let of_units = plan.irqs.iter().filter(|irq| irq.pd == 3);
    assert_eq!(of_units.count(), 0);
    machine.timer = None;
    let error = with(&machine, &system(&clients()), |inputs| {
        Plan::make(inputs).unwrap_err()
    });
    assert_eq!(error, PlanError::Policy(PolicyError::NoTimer));
}

#[test]
fn a_system_that_is_too_large_says_what_is_missing() {
    let mut large = system(&clients());
    large.dma_pool = 1 << 30;
    let error = with(&q35(hosts()), &large, |inputs| {
        Plan::make(inputs).unwrap_err()
    });
    assert!(
        matches!(error, PlanError::Memory(MemoryError::NoRam { .. })),
        "{error}"
    );
    let mut machine = q35(hosts());
    machine.empty_slots = (5000, 5300);
    let error = with(&machine, &system(&clients()), |inputs| {
        Plan::make(inputs).unwrap_err()
    });
    assert!(
        matches!(
            error,
            PlanError::Memory(MemoryError::NoSlots(_)) | PlanError::Carve(_)
        ),
        "{error}"
    );
}
