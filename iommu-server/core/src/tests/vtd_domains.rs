//! Domains of the VT-d back end against units that never forget by
//! themselves.

use ipc_proto::{Access, ClientId};
use sim::vtd::{Ailment, Dma, Model, Reason};

use super::machine::{Machine, device, small};
use crate::{Addressing, Backend, BackendError, DeviceCache, DomainId, Extent};

const IOVA: u64 = 0x10_0000;

fn models() -> [(&'static str, Model); 8] {
    [
        ("qemu", Model::QEMU),
        ("caching mode", Model::QEMU.caching()),
        ("four levels", Model::QEMU.four_levels()),
        ("four levels caching", Model::QEMU.four_levels().caching()),
        ("small pages", Model::QEMU.small_pages()),
        ("whole domains", Model::QEMU.whole_domains()),
        ("snooping", Model::QEMU.snooping()),
        ("write buffer", Model::QEMU.write_buffer().caching()),
    ]
}

#[test]
fn a_device_reaches_exactly_what_is_mapped_while_it_is_attached() {
    for (name, model) in models() {
        let Machine { units, mut vtd } = Machine::new(&[model]);
        let edu = device(0x18);
        let dma = |iova, direction| units[0].dma(0x18, iova, direction);
        assert!(dma(IOVA, Dma::Read).is_err(), "{name}");
        let domain = vtd.create_domain(ClientId(0)).unwrap();
        vtd.attach(edu, domain, DeviceCache::None).unwrap();
        assert_eq!(dma(IOVA, Dma::Read), Err(Reason::Read), "{name}");
        assert_eq!(dma(IOVA + 0x1000, Dma::Write), Err(Reason::Write), "{name}");
        let extents = [small(0x1234_5000, 1), small(0x4_0000_0000, 2)];
        vtd.map(domain, IOVA, &extents, Access::ReadWrite).unwrap();
        assert_eq!(dma(IOVA + 8, Dma::Read), Ok(0x1234_5008), "{name}");
        assert_eq!(dma(IOVA + 0x1fff, Dma::Write), Ok(0x4_0000_0fff), "{name}");
        assert_eq!(dma(IOVA + 0x2000, Dma::Write), Ok(0x4_0000_1000), "{name}");
        assert!(dma(IOVA + 0x3000, Dma::Read).is_err(), "{name}");
        assert!(dma(IOVA - 1, Dma::Read).is_err(), "{name}");
        vtd.unmap(domain, IOVA, 0x3000).unwrap();
        for page in 0..3 {
            assert!(dma(IOVA + page * 0x1000, Dma::Read).is_err(), "{name}");
        }
        vtd.map(domain, IOVA, &extents, Access::ReadWrite).unwrap();
        assert_eq!(dma(IOVA, Dma::Read), Ok(0x1234_5000), "{name}");
        vtd.detach(edu, domain).unwrap();
        assert_eq!(
            dma(IOVA, Dma::Read),
            Err(Reason::ContextNotPresent),
            "{name}"
        );
        vtd.unmap(domain, IOVA, 0x3000).unwrap();
        vtd.destroy_domain(domain).unwrap();
        assert_eq!((vtd.tables_used(), vtd.domains_used()), (0, 0), "{name}");
    }
}

#[test]
fn access_is_what_was_asked_for() {
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU]);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    let dma = |iova, direction| units[0].dma(0x18, iova, direction);
    vtd.map(domain, IOVA, &[small(0x5000, 1)], Access::Read)
        .unwrap();
    vtd.map(domain, 2 * IOVA, &[small(0x6000, 1)], Access::Write)
        .unwrap();
    assert_eq!(dma(IOVA, Dma::Read), Ok(0x5000));
    assert_eq!(dma(IOVA, Dma::Write), Err(Reason::Write));
    assert_eq!(dma(2 * IOVA, Dma::Read), Err(Reason::Read));
    assert_eq!(dma(2 * IOVA, Dma::Write), Ok(0x6000));
}

#[test]
fn devices_of_a_client_share_and_those_of_others_do_not() {
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU]);
    let (one, other) = (
        vtd.create_domain(ClientId(0)).unwrap(),
        vtd.create_domain(ClientId(0)).unwrap(),
    );
    assert_ne!(one, other);
    vtd.attach(device(0x18), one, DeviceCache::None).unwrap();
    vtd.attach(device(0x520), one, DeviceCache::None).unwrap();
    vtd.attach(device(0x521), other, DeviceCache::None).unwrap();
    vtd.map(one, IOVA, &[small(0x5000, 1)], Access::ReadWrite)
        .unwrap();
    vtd.map(other, IOVA, &[small(0x6000, 1)], Access::ReadWrite)
        .unwrap();
    let dma = |requester| units[0].dma(requester, IOVA, Dma::Write);
    assert_eq!(
        [dma(0x18), dma(0x520), dma(0x521)],
        [Ok(0x5000), Ok(0x5000), Ok(0x6000)]
    );
    assert_eq!(dma(0x522), Err(Reason::ContextNotPresent));
    vtd.detach(device(0x18), one).unwrap();
    assert!(dma(0x18).is_err());
    assert_eq!([dma(0x520), dma(0x521)], [Ok(0x5000), Ok(0x6000)]);
}

#[test]
fn a_domain_id_used_again_knows_nothing_of_its_past() {
    for (name, model) in models() {
        let Machine { units, mut vtd } = Machine::new(&[model]);
        let mut seen = None;
        for life in 0..4 {
            let domain = vtd.create_domain(ClientId(0)).unwrap();
            assert_eq!(
                *seen.get_or_insert(domain),
                domain,
                "the lowest id is reused"
            );
            vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
            let physical = 0x100_0000 + life * 0x1000;
            for page in 0..4 {
                let reached = units[0].dma(0x18, IOVA + page * 0x1000, Dma::Read);
                assert!(reached.is_err(), "{name}: stale {reached:x?}");
            }
            let mine = IOVA + life * 0x1000;
            vtd.map(domain, mine, &[small(physical, 1)], Access::ReadWrite)
                .unwrap();
            assert_eq!(units[0].dma(0x18, mine, Dma::Read), Ok(physical), "{name}");
            vtd.unmap(domain, mine, 0x1000).unwrap();
            vtd.detach(device(0x18), domain).unwrap();
            vtd.destroy_domain(domain).unwrap();
        }
    }
}

/// Were the driver to leave an invalidation out, the unit would go on using what it cached, and the
/// tests above would see it: here the unit drops them.
#[test]
fn the_model_shows_what_a_missing_invalidation_does() {
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU]);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    vtd.map(domain, IOVA, &[small(0x5000, 1)], Access::ReadWrite)
        .unwrap();
    let dma = || units[0].dma(0x18, IOVA, Dma::Write);
    assert_eq!(dma(), Ok(0x5000));
    units[0].set_ailment(Ailment::DeafToTranslations);
    vtd.unmap(domain, IOVA, 0x1000).unwrap();
    assert_eq!(dma(), Ok(0x5000), "stale translation");
    units[0].set_ailment(Ailment::DeafToContexts);
    vtd.map(domain, IOVA, &[small(0x7000, 1)], Access::ReadWrite)
        .unwrap();
    vtd.detach(device(0x18), domain).unwrap();
    assert_eq!(dma(), Ok(0x7000), "stale context");
    // With caching mode, what was not present stays so.
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU.caching()]);
    let dma = || units[0].dma(0x18, IOVA, Dma::Write);
    assert!(dma().is_err());
    units[0].set_ailment(Ailment::DeafToContexts);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    assert_eq!(dma(), Err(Reason::ContextNotPresent));
}

#[test]
fn large_pages_are_used_where_everything_is_aligned() {
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU]);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    let large = Extent {
        physical: 0x4000_0000,
        bytes: 4 << 20,
        frames: 0,
        page_bits: 21,
    };
    vtd.map(domain, 0x40_0000, &[large], Access::ReadWrite)
        .unwrap();
    // Root and directory, no table of small leaves.
    assert_eq!(vtd.tables_used(), 2);
    let dma = |iova| units[0].dma(0x18, iova, Dma::Read);
    for offset in [0, 0x1f_ffff, 0x20_0000, 0x3f_ffff] {
        assert_eq!(dma(0x40_0000 + offset), Ok(0x4000_0000 + offset));
    }
    assert!(dma(0x80_0000).is_err() && dma(0x3f_ffff).is_err());
    vtd.unmap(domain, 0x40_0000, 4 << 20).unwrap();
    assert!(dma(0x40_0000).is_err() && dma(0x60_0000).is_err());
    // The same extent at an odd place takes small leaves.
    vtd.map(domain, 0x40_1000, &[large], Access::ReadWrite)
        .unwrap();
    assert_eq!(vtd.tables_used(), 5);
    for offset in [0, 0x1f_ffff, 0x20_0000, 0x3f_ffff] {
        assert_eq!(dma(0x40_1000 + offset), Ok(0x4000_0000 + offset));
    }
    vtd.unmap(domain, 0x40_1000, 4 << 20).unwrap();
    assert!(dma(0x40_1000).is_err());
    // And a large leaf may take an empty table's place, which then serves elsewhere.
    vtd.map(domain, 0x40_0000, &[large], Access::ReadWrite)
        .unwrap();
    assert_eq!(vtd.tables_used(), 3);
    for offset in [0, 0x1f_ffff, 0x20_0000, 0x3f_ffff] {
        assert_eq!(dma(0x40_0000 + offset), Ok(0x4000_0000 + offset));
    }
}

#[test]
fn a_table_that_a_large_page_replaced_is_not_used_again_by_mistake() {
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU]);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    let dma = |iova| units[0].dma(0x18, iova, Dma::Read);
    let large = Extent {
        physical: 0x4000_0000,
        bytes: 2 << 20,
        frames: 0,
        page_bits: 21,
    };
    for round in 0..3u64 {
        let page = [small(0x5000 + (round << 12), 1)];
        vtd.map(domain, 0x40_0000, &page, Access::Read).unwrap();
        assert_eq!(dma(0x40_0000), Ok(0x5000 + (round << 12)));
        vtd.unmap(domain, 0x40_0000, 0x1000).unwrap();
        vtd.map(domain, 0x40_0000, &[large], Access::Read).unwrap();
        assert_eq!(dma(0x40_0000), Ok(0x4000_0000));
        vtd.unmap(domain, 0x40_0000, 2 << 20).unwrap();
        assert!(dma(0x40_0000).is_err());
    }
    vtd.detach(device(0x18), domain).unwrap();
    vtd.destroy_domain(domain).unwrap();
    assert_eq!(vtd.tables_used(), 0);
}

#[test]
fn tables_are_bounded_a_domain_and_taken_back_from_empty_places() {
    let Machine { units, mut vtd } = Machine::with_tables(&[Model::QEMU], 64);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    // Each gigabyte takes two tables of its own: no more than 6 of the 13 in a quarter fit.
    let at = |number: u64| number << 30;
    let mut mapped = 0;
    while vtd
        .map(domain, at(mapped), &[small(0x5000, 1)], Access::Read)
        .is_ok()
    {
        mapped += 1;
        assert!(mapped < 10);
    }
    assert!(mapped >= 3);
    let before = vtd.tables_used();
    assert_eq!(
        vtd.map(domain, at(mapped), &[small(0x5000, 1)], Access::Read),
        Err(BackendError::TablesExhausted)
    );
    assert_eq!(vtd.tables_used(), before);
    assert!(units[0].dma(0x18, at(mapped), Dma::Read).is_err());
    assert_eq!(units[0].dma(0x18, at(0), Dma::Read), Ok(0x5000));
    // Unmapping leaves tables behind; they make room when it is needed.
    vtd.unmap(domain, at(0), 0x1000).unwrap();
    assert_eq!(vtd.tables_used(), before);
    vtd.map(domain, at(mapped), &[small(0x6000, 1)], Access::Read)
        .unwrap();
    assert_eq!(units[0].dma(0x18, at(mapped), Dma::Read), Ok(0x6000));
    assert!(units[0].dma(0x18, at(0), Dma::Read).is_err());
    for number in 1..mapped {
        assert_eq!(units[0].dma(0x18, at(number), Dma::Read), Ok(0x5000));
    }
    // Another client's share is untouched by all that.
    let other = vtd.create_domain(ClientId(1)).unwrap();
    vtd.map(other, IOVA, &[small(0x8000, 1)], Access::Read)
        .unwrap();
}

#[test]
fn ids_are_bounded_by_what_the_unit_has() {
    // 16 ids, of which 0 is not used.
    let mut model = Model::QEMU;
    model.capability &= !7;
    let Machine { mut vtd, .. } = Machine::new(&[model]);
    let domains: std::vec::Vec<DomainId> = (0..15)
        .map(|number| vtd.create_domain(ClientId(number % 4)).unwrap())
        .collect();
    assert_eq!(
        vtd.create_domain(ClientId(0)),
        Err(BackendError::DomainsExhausted)
    );
    vtd.destroy_domain(domains[7]).unwrap();
    assert_eq!(vtd.create_domain(ClientId(0)), Ok(domains[7]));
    assert!(domains.iter().all(|domain| (1..16).contains(&domain.0)));
}

#[test]
fn the_queue_wraps_around() {
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU]);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    let before = units[0].descriptors();
    for round in 0..400u64 {
        let physical = 0x10_0000 + round * 0x1000;
        vtd.map(domain, IOVA, &[small(physical, 1)], Access::ReadWrite)
            .unwrap();
        assert_eq!(units[0].dma(0x18, IOVA, Dma::Read), Ok(physical));
        vtd.unmap(domain, IOVA, 0x1000).unwrap();
        assert!(units[0].dma(0x18, IOVA, Dma::Read).is_err());
    }
    // Two descriptors a round: the page selected, and the wait. Mapping needs none.
    assert_eq!(units[0].descriptors() - before, 800);
}

#[test]
fn a_unit_that_stops_confirming_is_never_believed_again() {
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU]);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    vtd.map(domain, IOVA, &[small(0x5000, 1)], Access::ReadWrite)
        .unwrap();
    assert_eq!(units[0].dma(0x18, IOVA, Dma::Read), Ok(0x5000));
    units[0].set_ailment(Ailment::QueueStuck);
    let unconfirmed = Err(BackendError::Unconfirmed);
    assert_eq!(vtd.unmap(domain, IOVA, 0x1000), unconfirmed);
    // It is right not to believe it: the device still gets through.
    assert_eq!(units[0].dma(0x18, IOVA, Dma::Read), Ok(0x5000));
    units[0].set_ailment(Ailment::Healthy);
    assert_eq!(vtd.detach(device(0x18), domain), unconfirmed);
    assert_eq!(vtd.destroy_domain(domain), unconfirmed);
    assert_eq!(vtd.domains_used(), 1);
    assert_ne!(vtd.create_domain(ClientId(0)).unwrap(), domain);
    assert_eq!(vtd.properties(device(0x20), DeviceCache::None), None);
}

#[test]
fn each_unit_with_a_device_of_the_domain_is_told() {
    let Machine { units, mut vtd } =
        Machine::new(&[Model::QEMU, Model::QEMU.caching(), Model::QEMU]);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(device(0x18), domain, DeviceCache::None).unwrap();
    vtd.attach(device(0x1_0018), domain, DeviceCache::None)
        .unwrap();
    let before = units[2].descriptors();
    for physical in [0x5000, 0x6000] {
        vtd.map(domain, IOVA, &[small(physical, 1)], Access::ReadWrite)
            .unwrap();
        for unit in &units[..2] {
            assert_eq!(unit.dma(0x18, IOVA, Dma::Read), Ok(physical));
        }
        vtd.unmap(domain, IOVA, 0x1000).unwrap();
        for unit in &units[..2] {
            assert!(unit.dma(0x18, IOVA, Dma::Read).is_err());
        }
    }
    assert_eq!(units[2].descriptors(), before, "it has no device of it");
    vtd.detach(device(0x18), domain).unwrap();
    assert_eq!(vtd.destroy_domain(domain), Err(BackendError::Unconfirmed));
}

#[test]
fn addresses_end_where_the_units_say() {
    let limit = |model| match Machine::new(&[model]).vtd.addressing() {
        Addressing::Translated { limit } => limit,
        Addressing::Physical => 0,
    };
    assert_eq!(limit(Model::QEMU), 1 << 39);
    assert_eq!(limit(Model::QEMU.four_levels()), 1 << 48);
    let mut narrow = Model::QEMU;
    narrow.capability = narrow.capability & !(0x3f << 16) | 35 << 16;
    assert_eq!(limit(narrow), 1 << 36);
}

#[test]
fn what_does_not_exist_is_refused() {
    let Machine { mut vtd, .. } = Machine::new(&[Model::QEMU]);
    for domain in [DomainId(0), DomainId(1), DomainId(64), DomainId(u16::MAX)] {
        let error = Err(BackendError::NoDomain);
        assert_eq!(
            vtd.attach(device(0x18), domain, DeviceCache::None),
            Err(BackendError::NoDomain)
        );
        assert_eq!(vtd.detach(device(0x18), domain), error);
        assert_eq!(vtd.destroy_domain(domain), error);
        assert_eq!(vtd.map(domain, IOVA, &[small(0, 1)], Access::Read), error);
        assert_eq!(vtd.unmap(domain, IOVA, 0x1000), error);
    }
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    let elsewhere = device(0x5_0018);
    assert_eq!(
        vtd.attach(elsewhere, domain, DeviceCache::None),
        Err(BackendError::NoUnit)
    );
}
