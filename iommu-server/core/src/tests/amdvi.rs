//! The AMD back end against a unit that caches all it may, entries that are
//! not present too, and reorders what is not fenced.

use ipc_proto::{Access, ClientId};
use sim::amdvi::{Ailment, AmdVi as Model, Blocked};
use sim::vtd::{Dma, Interrupt, Memory};
use system::info::Scope;

use super::kernel::forever;
use super::machine::{OPTIONS, TABLES, TestTables, device, small};
use crate::amdvi::unit::{State, UnitError};
use crate::amdvi::{AmdVi, Storage, UnitSetup};
use crate::{
    Addressing, Backend, BackendError, DeviceCache, Extent, InterruptMessage, MessagePart,
};

const IOVA: u64 = 0x10_0000;
/// The I/O APIC's requester id.
const IOAPIC: u16 = 0xa0;
const PAGES: u32 = 640;

type Tested = AmdVi<'static, Model, TestTables>;

fn start_with(units: &[(Model, bool, &[Scope])], memory: &Memory, pages: u32) -> Tested {
    let tables = TestTables {
        memory: memory.clone(),
        pages,
    };
    let setups = units.iter().map(|(unit, include_all, scopes)| UnitSetup {
        window: unit.clone(),
        include_all: *include_all,
        scopes,
    });
    AmdVi::start(forever(Storage::new()), tables, TABLES, 0, setups, &OPTIONS)
}

fn machine() -> (Model, Tested) {
    let memory = Memory::new();
    let unit = Model::new(memory.clone(), Model::QEMU);
    let scopes = [Scope::IoApic {
        id: 0,
        requester: IOAPIC,
    }];
    let tested = start_with(&[(unit.clone(), true, &scopes)], &memory, PAGES);
    assert_eq!(tested.report(0), Some(State::Running));
    (unit, tested)
}

#[test]
fn a_started_unit_blocks_every_device() {
    let (unit, tested) = machine();
    for requester in [0, 0x18, 0xff, 0x100, 0x8000, 0xffff, IOAPIC] {
        for address in [0, IOVA, TABLES, 1 << 38] {
            let blocked = unit.dma(requester, address, Dma::Read);
            assert_eq!(blocked, Err(Blocked::PageFault), "{requester:#x}");
        }
    }
    let promised = tested
        .properties(device(0x18), DeviceCache::Depth(1))
        .unwrap();
    assert!(promised.dma_isolated && promised.interrupts_isolated);
    assert!(promised.faults_reported && !promised.translation_cached);
    assert_eq!(
        tested.addressing(),
        Addressing::Translated { limit: 1 << 39 }
    );
    assert_eq!(tested.properties(device(0x1_0018), DeviceCache::None), None);
}

#[test]
fn what_firmware_left_on_does_not_stay_open() {
    let memory = Memory::new();
    let unit = Model::new(memory.clone(), Model::QEMU);
    // A table of zeros lets everything through.
    unit.leave_on(0x20_0000);
    assert_eq!(unit.dma(0x18, IOVA, Dma::Write), Ok(IOVA));
    let tested = start_with(&[(unit.clone(), true, &[])], &memory, PAGES);
    assert_eq!(tested.report(0), Some(State::Running));
    assert!(unit.dma(0x18, IOVA, Dma::Write).is_err());
    // One that cannot forget everything is not believed.
    let stubborn = Model::new(memory.clone(), 0);
    stubborn.leave_on(0x20_0000);
    let tested = start_with(&[(stubborn, true, &[])], &memory, PAGES);
    let failed = Some(State::Failed(UnitError::CannotForget));
    assert_eq!(tested.report(0), failed);
    assert_eq!(tested.properties(device(0x18), DeviceCache::None), None);
}

#[test]
fn without_memory_or_answers_a_unit_is_refused() {
    let memory = Memory::new();
    let unit = Model::new(memory.clone(), Model::QEMU);
    let tested = start_with(&[(unit.clone(), true, &[])], &memory, 400);
    assert_eq!(tested.report(0), Some(State::Failed(UnitError::Tables)));
    unit.set_ailment(Ailment::Stuck);
    let mut tested = start_with(&[(unit, true, &[])], &memory, PAGES);
    assert_eq!(
        tested.report(0),
        Some(State::Failed(UnitError::Unconfirmed))
    );
    let domain = tested.create_domain(ClientId(0)).unwrap();
    let refused = tested.attach(device(0x18), domain, DeviceCache::None);
    assert_eq!(refused, Err(BackendError::NoUnit));
}

#[test]
fn a_device_reaches_exactly_what_is_mapped_while_it_is_attached() {
    let (unit, mut tested) = machine();
    let domain = tested.create_domain(ClientId(0)).unwrap();
    let dma = |iova, direction| unit.dma(0x18, iova, direction);
    assert!(dma(IOVA, Dma::Read).is_err());
    tested
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    // Cached as nothing, and mapped all the same.
    assert!(dma(IOVA, Dma::Read).is_err());
    let extents = [small(0x1234_5000, 1), small(0x4_0000_0000, 2)];
    tested
        .map(domain, IOVA, &extents, Access::ReadWrite)
        .unwrap();
    assert_eq!(dma(IOVA + 8, Dma::Read), Ok(0x1234_5008));
    assert_eq!(dma(IOVA + 0x1fff, Dma::Write), Ok(0x4_0000_0fff));
    assert_eq!(dma(IOVA + 0x2000, Dma::Write), Ok(0x4_0000_1000));
    assert!(dma(IOVA + 0x3000, Dma::Read).is_err());
    tested.unmap(domain, IOVA, 0x3000).unwrap();
    for page in 0..3 {
        assert!(dma(IOVA + page * 0x1000, Dma::Read).is_err());
    }
    tested
        .map(domain, IOVA, &[small(0x7000, 1)], Access::Read)
        .unwrap();
    assert_eq!(dma(IOVA, Dma::Read), Ok(0x7000));
    assert!(dma(IOVA, Dma::Write).is_err());
    tested.detach(device(0x18), domain).unwrap();
    assert!(dma(IOVA, Dma::Read).is_err());
    tested.unmap(domain, IOVA, 0x1000).unwrap();
    tested.destroy_domain(domain).unwrap();
    assert_eq!((tested.tables_used(), tested.domains_used()), (0, 0));
}

#[test]
fn a_domain_id_used_again_knows_nothing_of_its_past() {
    let (unit, mut tested) = machine();
    for life in 0..4u64 {
        let domain = tested.create_domain(ClientId(0)).unwrap();
        assert_eq!(domain.0, 1);
        tested
            .attach(device(0x18), domain, DeviceCache::None)
            .unwrap();
        for page in 0..4 {
            assert!(unit.dma(0x18, IOVA + page * 0x1000, Dma::Read).is_err());
        }
        let mine = IOVA + life * 0x1000;
        tested
            .map(domain, mine, &[small(0x5000, 1)], Access::Read)
            .unwrap();
        assert_eq!(unit.dma(0x18, mine, Dma::Read), Ok(0x5000));
        tested.detach(device(0x18), domain).unwrap();
        // Told to nobody: nobody can have it.
        tested.unmap(domain, mine, 0x1000).unwrap();
        tested.destroy_domain(domain).unwrap();
    }
}

#[test]
fn domains_and_large_pages() {
    let (unit, mut tested) = machine();
    let one = tested.create_domain(ClientId(0)).unwrap();
    let other = tested.create_domain(ClientId(1)).unwrap();
    tested.attach(device(0x18), one, DeviceCache::None).unwrap();
    tested
        .attach(device(0x20), other, DeviceCache::None)
        .unwrap();
    let large = |bytes| Extent {
        physical: 4 << 30,
        bytes,
        frames: 0,
        page_bits: 21,
    };
    let at = 8 << 30;
    // A table that a large page replaces, and that serves elsewhere then.
    tested
        .map(one, at, &[small(0x5000, 1)], Access::Read)
        .unwrap();
    assert_eq!(unit.dma(0x18, at, Dma::Read), Ok(0x5000));
    tested.unmap(one, at, 0x1000).unwrap();
    tested
        .map(one, at, &[large(4 << 20)], Access::ReadWrite)
        .unwrap();
    tested
        .map(one, IOVA, &[small(0x6000, 1)], Access::Read)
        .unwrap();
    for offset in [0, 0x1f_ffff, 0x20_0000, 0x3f_ffff] {
        let reached = unit.dma(0x18, at + offset, Dma::Write);
        assert_eq!(reached, Ok((4 << 30) + offset));
    }
    assert!(unit.dma(0x20, at, Dma::Read).is_err());
    tested.unmap(one, at, 4 << 20).unwrap();
    assert!(unit.dma(0x18, at, Dma::Read).is_err());
    tested
        .map(other, at, &[large(1 << 30)], Access::Read)
        .unwrap();
    let last = (1 << 30) - 1;
    assert_eq!(unit.dma(0x20, at + last, Dma::Read), Ok((4 << 30) + last));
    assert!(unit.dma(0x18, at + last, Dma::Read).is_err());
}

const KERNELS: InterruptMessage = InterruptMessage {
    address: 0xfee0_3000,
    data: 0x41,
};

#[test]
fn a_message_is_delivered_for_its_device_alone() {
    let (unit, mut tested) = machine();
    let send = |requester: u16, message: InterruptMessage, number: u32| {
        unit.message(requester, message.address, message.data + number)
    };
    assert_eq!(send(0x18, KERNELS, 0), Err(Blocked::Interrupt));
    let message = tested.remap(device(0x18), &[], KERNELS, 4).unwrap();
    for number in 0..4 {
        let expected = Interrupt {
            destination: 3,
            vector: 0x41 + number as u8,
            mode: 0,
        };
        assert_eq!(send(0x18, message, number), Ok(expected));
    }
    assert!(send(0x18, message, 4).is_err());
    assert!(send(0x20, message, 0).is_err());
    // The kernel's own format means an entry here, and there is none.
    assert!(send(0x18, KERNELS, 0).is_err());
    // The I/O APIC goes on as it was.
    assert!(unit.message(IOAPIC, KERNELS.address, KERNELS.data).is_ok());
    tested.unremap(device(0x18)).unwrap();
    assert!(send(0x18, message, 0).is_err());
    // The table is another's now.
    let others = tested.remap(device(0x20), &[], KERNELS, 1).unwrap();
    assert!(send(0x20, others, 0).is_ok());
    assert!(send(0x18, message, 0).is_err());
}

#[test]
fn an_alias_loses_its_messages_with_its_device() {
    let (unit, mut tested) = machine();
    let message = tested
        .remap(device(0x208), &[device(0x200)], KERNELS, 1)
        .unwrap();
    for sender in [0x208, 0x200] {
        assert!(unit.message(sender, message.address, message.data).is_ok());
    }
    tested.unremap(device(0x208)).unwrap();
    tested.remap(device(0x18), &[], KERNELS, 1).unwrap();
    for sender in [0x208, 0x200] {
        assert!(unit.message(sender, message.address, message.data).is_err());
    }
}

#[test]
fn messages_go_to_another_core_one_by_one() {
    let (unit, mut tested) = machine();
    let owner = device(0x208);
    let sent = tested.remap(owner, &[device(0x200)], KERNELS, 4).unwrap();
    let other = tested.remap(device(0x18), &[], KERNELS, 1).unwrap();
    let destinations = |unit: &Model, sender: u16| {
        [0, 1, 2, 3].map(|number| {
            let interrupt = unit.message(sender, sent.address, sent.data + number);
            interrupt.map(|interrupt| (interrupt.destination, interrupt.vector))
        })
    };
    let at = |cores: [u32; 4]| [0, 1, 2, 3].map(|n: u8| Ok((cores[usize::from(n)], 0x41 + n)));
    // The unit caches all entries now.
    assert_eq!(destinations(&unit, 0x208), at([3, 3, 3, 3]));
    tested.reroute(owner, sent, (1, 2), 0xfee0_5000).unwrap();
    for sender in [0x208, 0x200] {
        assert_eq!(destinations(&unit, sender), at([3, 5, 5, 3]));
    }
    let untouched = unit.message(0x18, other.address, other.data).unwrap();
    assert_eq!(untouched.destination, 3);
    let bad = |part| Err(BackendError::BadMessage(part));
    let mut reroute = |owner, messages, address| tested.reroute(owner, sent, messages, address);
    assert_eq!(reroute(owner, (0, 5), 0xfee0_5000), bad(MessagePart::Count));
    assert_eq!(reroute(owner, (0, 0), 0xfee0_5000), bad(MessagePart::Count));
    assert_eq!(
        reroute(owner, (0, 1), 0xfed0_0000),
        bad(MessagePart::Address)
    );
    // Nobody's, and one that has fewer.
    assert!(reroute(device(0x28), (0, 1), 0xfee0_5000).is_err());
    assert!(reroute(device(0x18), (1, 1), 0xfee0_5000).is_err());
    assert_eq!(destinations(&unit, 0x208), at([3, 5, 5, 3]));
}

#[test]
fn messages_are_checked_and_tables_bounded() {
    let (_, mut tested) = machine();
    let mut remap = |address, data, count| {
        tested.remap(device(0x18), &[], InterruptMessage { address, data }, count)
    };
    let bad = |part| Err(BackendError::BadMessage(part));
    assert_eq!(remap(0xfed0_0000, 0x41, 1), bad(MessagePart::Address));
    assert_eq!(remap(0xfee0_0000, 0x0e, 1), bad(MessagePart::Data));
    assert_eq!(remap(0xfee0_0000, 0x41, 0), bad(MessagePart::Count));
    let mut made = 0;
    while tested.remap(device(0x100 + made), &[], KERNELS, 1).is_ok() {
        made += 1;
    }
    assert!(made >= 63, "{made}");
    tested.unremap(device(0x100)).unwrap();
    assert!(tested.remap(device(0x18), &[], KERNELS, 1).is_ok());
}

#[test]
fn faults_are_read_in_order_and_overflow_is_said() {
    let (unit, mut tested) = machine();
    assert_eq!(unit.take_raised(), 0);
    let _ = unit.dma(0x18, 0x5123, Dma::Write);
    assert_eq!(unit.take_raised(), 1);
    let mut seen = std::vec::Vec::new();
    let drained = tested.drain_faults(0, 8, &mut |fault| seen.push(fault));
    assert_eq!(
        (drained.records, drained.more, drained.overflow),
        (1, false, false)
    );
    assert_eq!((seen[0].device, seen[0].address), (device(0x18), 0x5000));
    assert_eq!(seen[0].access, Access::Write);
    for page in 0..1000u64 {
        let _ = unit.dma(0x20, page << 12, Dma::Read);
    }
    let mut read = 0;
    let mut overflowed = false;
    for _ in 0..100 {
        let drained = tested.drain_faults(0, 16, &mut |_| ());
        assert!(drained.records <= 16);
        read += drained.records;
        overflowed |= drained.overflow;
        if !drained.more {
            break;
        }
    }
    assert_eq!((read, overflowed), (255, true));
    // It logs again.
    let _ = unit.dma(0x20, 0x7000, Dma::Read);
    assert_eq!(tested.drain_faults(0, 16, &mut |_| ()).records, 1);
}

#[test]
fn a_silenced_device_is_blocked_and_not_recorded() {
    let (unit, mut tested) = machine();
    let domain = tested.create_domain(ClientId(0)).unwrap();
    tested
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    tested
        .map(domain, IOVA, &[small(0x5000, 1)], Access::Read)
        .unwrap();
    assert!(unit.dma(0x18, IOVA, Dma::Read).is_ok());
    tested.silence(device(0x18), Some(domain)).unwrap();
    for _ in 0..100 {
        assert!(unit.dma(0x18, IOVA, Dma::Read).is_err());
    }
    assert_eq!(tested.drain_faults(0, 16, &mut |_| ()).records, 0);
    tested.detach(device(0x18), domain).unwrap();
    tested
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    assert!(unit.dma(0x18, IOVA, Dma::Read).is_ok());
    assert!(unit.dma(0x18, 0, Dma::Read).is_err());
    assert_eq!(tested.drain_faults(0, 16, &mut |_| ()).records, 1);
}

#[test]
fn a_unit_that_stops_confirming_is_never_believed_again() {
    let (unit, mut tested) = machine();
    let domain = tested.create_domain(ClientId(0)).unwrap();
    tested
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    tested
        .map(domain, IOVA, &[small(0x5000, 1)], Access::Read)
        .unwrap();
    assert!(unit.dma(0x18, IOVA, Dma::Read).is_ok());
    unit.set_ailment(Ailment::Stuck);
    let unconfirmed = Err(BackendError::Unconfirmed);
    assert_eq!(tested.unmap(domain, IOVA, 0x1000), unconfirmed);
    // It is right not to believe it.
    assert!(unit.dma(0x18, IOVA, Dma::Read).is_ok());
    unit.set_ailment(Ailment::Healthy);
    assert_eq!(tested.detach(device(0x18), domain), unconfirmed);
    assert_eq!(tested.destroy_domain(domain), unconfirmed);
    assert_eq!(tested.properties(device(0x20), DeviceCache::None), None);
}

#[test]
fn the_model_shows_what_a_missing_command_does() {
    let (unit, mut tested) = machine();
    let domain = tested.create_domain(ClientId(0)).unwrap();
    tested
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    tested
        .map(domain, IOVA, &[small(0x5000, 1)], Access::Read)
        .unwrap();
    assert!(unit.dma(0x18, IOVA, Dma::Read).is_ok());
    unit.set_ailment(Ailment::Deaf);
    tested.unmap(domain, IOVA, 0x1000).unwrap();
    assert!(unit.dma(0x18, IOVA, Dma::Read).is_ok(), "stale translation");
    tested.detach(device(0x18), domain).unwrap();
    assert!(unit.dma(0x18, IOVA, Dma::Read).is_ok(), "stale entry");
}

#[test]
fn each_unit_takes_its_own_devices() {
    let memory = Memory::new();
    let one = Model::new(memory.clone(), Model::QEMU);
    let other = Model::new(memory.clone(), Model::QEMU);
    let scopes = [Scope::Buses(0x40, 0x7f)];
    let plan: [(Model, bool, &[Scope]); 2] =
        [(one.clone(), false, &scopes), (other.clone(), true, &[])];
    let mut tested = start_with(&plan, &memory, PAGES);
    assert_eq!(tested.unit_of(device(0x4018)), Some(0));
    assert_eq!(tested.unit_of(device(0x18)), Some(1));
    let domain = tested.create_domain(ClientId(0)).unwrap();
    for bits in [0x4018, 0x18] {
        tested
            .attach(device(bits), domain, DeviceCache::None)
            .unwrap();
    }
    tested
        .map(domain, IOVA, &[small(0x5000, 1)], Access::Read)
        .unwrap();
    assert_eq!(one.dma(0x4018, IOVA, Dma::Read), Ok(0x5000));
    assert_eq!(other.dma(0x18, IOVA, Dma::Read), Ok(0x5000));
    tested.unmap(domain, IOVA, 0x1000).unwrap();
    assert!(one.dma(0x4018, IOVA, Dma::Read).is_err());
    assert!(other.dma(0x18, IOVA, Dma::Read).is_err());
}
