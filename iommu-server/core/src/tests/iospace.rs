//! The back end over the kernel's I/O spaces, against a model of them that
//! refuses what the kernel would, and can be told to refuse the nth step.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::vec::Vec;

use hw::Sbdf;
use ipc_proto::{Access, ClientId};

use super::kernel::forever;
use super::machine::device;
use crate::iospace::{IoSpaces, MAX_SPACES, PlaceError, Spaces, Storage};
use crate::pool::Slots;
use crate::{Addressing, Backend, BackendError, DeviceCache, DomainId, EffectError, Extent, Slot};

const IOVA: u64 = 0x10_0000;
/// Frame n has physical address n << 12.
const FRAME: Slot = 0x5000;
const SLOTS: u32 = 200;

#[derive(Default)]
struct State {
    /// Requester of each space.
    spaces: BTreeMap<Slot, Sbdf>,
    /// (requester, bits covered, address >> bits) of each table.
    tables: BTreeSet<(u32, u32, u64)>,
    table_slots: BTreeSet<Slot>,
    /// (requester, page) -> (frame, copy, access).
    pages: BTreeMap<(u32, u64), (Slot, Slot, Access)>,
    steps: u64,
    refuse: Option<u64>,
    table_memory: u32,
}

#[derive(Clone, Default)]
struct Model(Rc<RefCell<State>>);

impl Model {
    fn step(&self) -> Result<(), EffectError> {
        let state = &mut *self.0.borrow_mut();
        state.steps += 1;
        if state.refuse == Some(state.steps - 1) {
            return Err(EffectError::Kernel(9));
        }
        Ok(())
    }

    fn refuse(&self, nth: Option<u64>) {
        let state = &mut *self.0.borrow_mut();
        (state.refuse, state.steps) = (nth, 0);
    }

    fn refused(&self) -> bool {
        let state = self.0.borrow();
        state.refuse.is_some_and(|nth| nth < state.steps)
    }

    fn occupied(&self, slot: Slot) -> bool {
        let state = self.0.borrow();
        state.spaces.contains_key(&slot)
            || state.table_slots.contains(&slot)
            || state.pages.values().any(|(_, copy, _)| *copy == slot)
    }

    fn reached(&self, requester: u32, iova: u64) -> Option<(Slot, Access)> {
        let state = self.0.borrow();
        let found = state.pages.get(&(requester, iova >> 12))?;
        Some((found.0, found.2))
    }

    fn pages(&self) -> usize {
        self.0.borrow().pages.len()
    }
}

impl Spaces for Model {
    fn open(&mut self, requester: Sbdf, into: Slot) -> Result<(), EffectError> {
        self.step()?;
        assert!(!self.occupied(into));
        let spaces = &mut self.0.borrow_mut().spaces;
        assert!(
            !spaces.values().any(|other| *other == requester),
            "minted twice"
        );
        spaces.insert(into, requester);
        Ok(())
    }

    fn add_table(&mut self, space: Slot, iova: u64, into: Slot) -> Result<(), EffectError> {
        self.step()?;
        assert!(!self.occupied(into));
        let state = &mut *self.0.borrow_mut();
        let requester = state.spaces[&space].to_bits();
        if state.table_memory == 0 {
            return Err(EffectError::Kernel(10));
        }
        let missing = [39, 30, 21]
            .into_iter()
            .find(|bits| !state.tables.contains(&(requester, *bits, iova >> bits)));
        let bits = missing.expect("a table that is there already");
        state.tables.insert((requester, bits, iova >> bits));
        state.table_slots.insert(into);
        state.table_memory -= 1;
        Ok(())
    }

    fn place(
        &mut self,
        space: Slot,
        frame: Slot,
        copy: Slot,
        iova: u64,
        access: Access,
    ) -> Result<(), PlaceError> {
        self.step().map_err(PlaceError::Refused)?;
        assert!(!self.occupied(copy));
        assert!(iova < 1 << 39, "the kernel would cut the address");
        let state = &mut *self.0.borrow_mut();
        let requester = state.spaces[&space].to_bits();
        for bits in [39, 30, 21] {
            if !state.tables.contains(&(requester, bits, iova >> bits)) {
                return Err(PlaceError::NoTable);
            }
        }
        let key = (requester, iova >> 12);
        let before = state.pages.insert(key, (frame, copy, access));
        assert!(before.is_none(), "mapped over");
        Ok(())
    }

    fn take_away(&mut self, copy: Slot) -> Result<(), EffectError> {
        self.step()?;
        let pages = &mut self.0.borrow_mut().pages;
        let before = pages.len();
        pages.retain(|_, (_, slot, _)| *slot != copy);
        assert_eq!(pages.len() + 1, before);
        Ok(())
    }
}

struct World {
    model: Model,
    backend: IoSpaces<'static, Model>,
}

impl World {
    fn new() -> Self {
        let model = Model::default();
        model.0.borrow_mut().table_memory = 24;
        let slots = forever(Slots::new(1000, SLOTS).unwrap());
        let backend = IoSpaces::new(model.clone(), forever(Storage::new()), slots, 4);
        Self { model, backend }
    }
}

fn extent(frame: Slot, pages: u64) -> Extent {
    Extent {
        physical: u64::from(frame) << 12,
        bytes: pages << 12,
        frames: frame,
        page_bits: 12,
    }
}

#[test]
fn a_mapping_is_carried_out_for_every_device_of_the_domain() {
    let World { model, mut backend } = World::new();
    let domain = backend.create_domain(ClientId(0)).unwrap();
    backend
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    let extents = [extent(FRAME, 2), extent(0x6000, 1)];
    backend.map(domain, IOVA, &extents, Access::Read).unwrap();
    // One that comes later gets it too.
    backend
        .attach(device(0x20), domain, DeviceCache::None)
        .unwrap();
    for requester in [0x18, 0x20] {
        for (page, frame) in [FRAME, FRAME + 1, 0x6000].into_iter().enumerate() {
            let at = IOVA + (page as u64) * 0x1000;
            assert_eq!(model.reached(requester, at), Some((frame, Access::Read)));
        }
        assert_eq!(model.reached(requester, IOVA + 0x3000), None);
    }
    backend.detach(device(0x18), domain).unwrap();
    assert_eq!(model.reached(0x18, IOVA), None);
    assert!(model.reached(0x20, IOVA).is_some());
    backend.unmap(domain, IOVA, 0x3000).unwrap();
    assert_eq!(model.pages(), 0);
    backend.detach(device(0x20), domain).unwrap();
    backend.destroy_domain(domain).unwrap();
    assert_eq!(backend.domains_used(), 0);
    // A space is never minted again.
    let next = backend.create_domain(ClientId(1)).unwrap();
    backend
        .attach(device(0x18), next, DeviceCache::None)
        .unwrap();
}

#[test]
fn domains_do_not_see_each_other() {
    let World { model, mut backend } = World::new();
    let one = backend.create_domain(ClientId(0)).unwrap();
    let other = backend.create_domain(ClientId(1)).unwrap();
    backend
        .attach(device(0x18), one, DeviceCache::None)
        .unwrap();
    backend
        .attach(device(0x20), other, DeviceCache::None)
        .unwrap();
    backend
        .map(one, IOVA, &[extent(FRAME, 1)], Access::Read)
        .unwrap();
    backend
        .map(other, IOVA, &[extent(0x6000, 1)], Access::Write)
        .unwrap();
    assert_eq!(model.reached(0x18, IOVA), Some((FRAME, Access::Read)));
    assert_eq!(model.reached(0x20, IOVA), Some((0x6000, Access::Write)));
    backend.unmap(one, IOVA, 0x1000).unwrap();
    assert_eq!(model.reached(0x18, IOVA), None);
    assert!(model.reached(0x20, IOVA).is_some());
}

#[test]
fn what_it_cannot_do_is_said() {
    let World { mut backend, .. } = World::new();
    let promised = backend
        .properties(device(0x18), DeviceCache::Depth(4))
        .unwrap();
    assert!(promised.dma_isolated && !promised.interrupts_isolated);
    assert!(!promised.faults_reported && !promised.translation_cached);
    assert!(!backend.large_frames());
    assert_eq!(
        backend.addressing(),
        Addressing::Translated { limit: 1 << 39 }
    );
    let domain = backend.create_domain(ClientId(0)).unwrap();
    let mut large = extent(FRAME, 512);
    large.page_bits = 21;
    let mut firmwares = extent(FRAME, 1);
    firmwares.frames = 0;
    for memory in [large, firmwares] {
        let refused = backend.map(domain, IOVA, &[memory], Access::Read);
        assert_eq!(refused, Err(BackendError::Cannot));
    }
    let kept = backend.attach(device(0x18), domain, DeviceCache::Depth(4));
    assert_eq!(kept, Ok(DeviceCache::None));
}

#[test]
fn a_refused_step_leaves_nothing_half_done() {
    type Operation = fn(&mut IoSpaces<'static, Model>) -> Result<(), BackendError>;
    let operations: [Operation; 2] = [
        |backend| backend.map(DomainId(1), 2 * IOVA, &[extent(0x7000, 3)], Access::Read),
        |backend| {
            let attached = backend.attach(device(0x28), DomainId(1), DeviceCache::None);
            attached.map(drop)
        },
    ];
    for operation in operations {
        for nth in 0.. {
            let World { model, mut backend } = World::new();
            let domain = backend.create_domain(ClientId(0)).unwrap();
            for bits in [0x18, 0x20] {
                backend
                    .attach(device(bits), domain, DeviceCache::None)
                    .unwrap();
            }
            backend
                .map(domain, IOVA, &[extent(FRAME, 2)], Access::Read)
                .unwrap();
            let before = model.0.borrow().pages.clone();
            model.refuse(Some(nth));
            let outcome = operation(&mut backend);
            if !model.refused() {
                assert_eq!(outcome, Ok(()));
                assert!(nth > 3, "{nth}");
                break;
            }
            assert!(outcome.is_err(), "step {nth}");
            model.refuse(None);
            assert_eq!(model.0.borrow().pages, before, "step {nth}");
            operation(&mut backend).unwrap();
        }
    }
}

#[test]
fn what_the_kernel_does_not_take_away_is_not_used_again() {
    let World { model, mut backend } = World::new();
    let domain = backend.create_domain(ClientId(0)).unwrap();
    backend
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    backend
        .map(domain, IOVA, &[extent(FRAME, 3)], Access::Read)
        .unwrap();
    model.refuse(Some(1));
    assert_eq!(
        backend.unmap(domain, IOVA, 0x3000),
        Err(BackendError::Unconfirmed)
    );
    model.refuse(None);
    assert_eq!(model.pages(), 1);
    let _ = backend.detach(device(0x18), domain);
    assert_eq!(
        backend.destroy_domain(domain),
        Err(BackendError::Unconfirmed)
    );
    assert_ne!(backend.create_domain(ClientId(0)).unwrap(), domain);
}

#[test]
fn a_silenced_device_has_nothing_mapped_and_gets_nothing_new() {
    let World { model, mut backend } = World::new();
    let domain = backend.create_domain(ClientId(0)).unwrap();
    backend
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    backend
        .attach(device(0x20), domain, DeviceCache::None)
        .unwrap();
    backend
        .map(domain, IOVA, &[extent(FRAME, 1)], Access::Read)
        .unwrap();
    backend.silence(device(0x18), Some(domain)).unwrap();
    backend
        .map(domain, 2 * IOVA, &[extent(0x6000, 1)], Access::Read)
        .unwrap();
    assert_eq!(model.reached(0x18, IOVA), None);
    assert_eq!(model.reached(0x18, 2 * IOVA), None);
    assert!(model.reached(0x20, 2 * IOVA).is_some());
    backend.detach(device(0x18), domain).unwrap();
    backend
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    assert!(model.reached(0x18, 2 * IOVA).is_some());
}

#[test]
fn spaces_tables_and_slots_are_bounded() {
    let World { model, mut backend } = World::new();
    let domain = backend.create_domain(ClientId(0)).unwrap();
    backend
        .attach(device(0x18), domain, DeviceCache::None)
        .unwrap();
    // Slots: one for the space, three for tables, the rest for pages.
    let pages = u64::from(SLOTS) + 1;
    assert_eq!(
        backend.map(domain, IOVA, &[extent(FRAME, pages)], Access::Read),
        Err(BackendError::TablesExhausted)
    );
    assert_eq!(model.pages(), 0);
    let mut mapped = Vec::new();
    for gigabyte in 0..64u64 {
        let at = IOVA + (gigabyte << 30);
        if backend
            .map(domain, at, &[extent(FRAME, 1)], Access::Read)
            .is_ok()
        {
            mapped.push(at);
        }
    }
    // Tables are the scarce thing here: three for the first, two for each other gigabyte.
    assert_eq!(mapped.len(), 11);
    assert_eq!(model.pages(), mapped.len());
    for at in mapped {
        backend.unmap(domain, at, 0x1000).unwrap();
    }
    for number in 0..MAX_SPACES as u32 {
        let outcome = backend.attach(device(0x100 + number), domain, DeviceCache::None);
        assert_eq!(outcome.is_ok(), number < MAX_SPACES as u32 - 1, "{number}");
    }
}

#[test]
fn a_client_has_a_share_of_domains() {
    let World { mut backend, .. } = World::new();
    let mut made = 0;
    while backend.create_domain(ClientId(0)).is_ok() {
        made += 1;
    }
    assert_eq!(made, 16);
    assert!(backend.create_domain(ClientId(1)).is_ok());
}
