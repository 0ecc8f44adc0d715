//! Random sequences of operations on the VT-d back end, compared after every
//! step with a plain map from (requester, page) to memory.

use std::collections::BTreeMap;
use std::vec::Vec;

use ipc_proto::{Access, ClientId};
use proptest::prelude::*;
use sim::vtd::{Dma, Model};

use super::machine::{Machine, device, small};
use crate::{Backend, DeviceCache, DomainId, Extent};

const DOMAINS: usize = 3;
const REQUESTERS: [u32; 4] = [0x08, 0x18, 0x19, 0x300];
/// Places that mappings begin at, in pages; small, with two that allow large leaves.
const PLACES: [u64; 6] = [0, 3, 510, 512, 1024, 1 << 18];

#[derive(Clone, Copy, Debug)]
enum Step {
    Create(usize),
    Destroy(usize),
    Attach(usize, usize),
    Detach(usize),
    Map {
        domain: usize,
        place: usize,
        pages: u64,
        frame: u64,
        access: Access,
    },
    Unmap(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let domain = 0..DOMAINS;
    let place = 0..PLACES.len();
    let access = prop_oneof![
        Just(Access::Read),
        Just(Access::Write),
        Just(Access::ReadWrite)
    ];
    prop_oneof![
        1 => domain.clone().prop_map(Step::Create),
        1 => domain.clone().prop_map(Step::Destroy),
        2 => (0..REQUESTERS.len(), domain.clone()).prop_map(|(r, d)| Step::Attach(r, d)),
        2 => (0..REQUESTERS.len()).prop_map(Step::Detach),
        4 => (
            domain.clone(),
            place.clone(),
            prop_oneof![1u64..6, 510u64..515, Just(1024u64)],
            prop_oneof![0u64..64, Just(512), Just(1024)],
            access,
        )
            .prop_map(|(domain, place, pages, frame, access)| Step::Map {
                domain,
                place,
                pages,
                frame: (1 << 20) + frame,
                access,
            }),
        3 => (domain, place).prop_map(|(d, p)| Step::Unmap(d, p)),
    ]
}

#[derive(Default)]
struct Expected {
    domains: [Option<DomainId>; DOMAINS],
    attached: BTreeMap<usize, usize>,
    /// (domain, first page) -> (pages, first frame, access)
    mapped: BTreeMap<(usize, u64), (u64, u64, Access)>,
}

impl Expected {
    fn overlaps(&self, domain: usize, first: u64, pages: u64) -> bool {
        self.mapped.iter().any(|((other, start), (length, ..))| {
            *other == domain && *start < first + pages && first < start + length
        })
    }

    fn frame(&self, requester: usize, page: u64, direction: Dma) -> Option<u64> {
        let domain = self.attached.get(&requester)?;
        let (start, (pages, frame, access)) = self
            .mapped
            .range((*domain, 0)..=(*domain, page))
            .next_back()
            .map(|((_, start), mapping)| (*start, *mapping))?;
        let allowed = match direction {
            Dma::Read => access.reads(),
            Dma::Write => access.writes(),
        };
        (page < start + pages && allowed).then(|| frame + page - start)
    }
}

fn run(model: Model, steps: &[Step]) {
    let mut machine = Machine::with_tables(&[model], 512);
    let mut expected = Expected::default();
    for step in steps {
        apply(&mut machine, &mut expected, *step);
        for (number, requester) in REQUESTERS.iter().enumerate() {
            for place in PLACES {
                for page in [place, place + 3, place + 511] {
                    for direction in [Dma::Read, Dma::Write] {
                        let reached = machine.dma(device(*requester), page << 12, direction);
                        let wanted = expected.frame(number, page, direction);
                        assert_eq!(
                            reached.ok(),
                            wanted.map(|frame| frame << 12),
                            "{requester:#x} page {page:#x} {direction:?} after {step:?}"
                        );
                    }
                }
            }
        }
    }
    // Everything goes back.
    for requester in 0..REQUESTERS.len() {
        apply(&mut machine, &mut expected, Step::Detach(requester));
    }
    for domain in 0..DOMAINS {
        apply(&mut machine, &mut expected, Step::Destroy(domain));
    }
    assert_eq!(machine.vtd.tables_used(), 0);
    assert_eq!(machine.vtd.domains_used(), 0);
}

fn apply(machine: &mut Machine, expected: &mut Expected, step: Step) {
    let vtd = &mut machine.vtd;
    match step {
        Step::Create(domain) => {
            if expected.domains[domain].is_none() {
                expected.domains[domain] = Some(vtd.create_domain(ClientId(0)).unwrap());
            }
        }
        Step::Destroy(domain) => {
            let in_use = expected.attached.values().any(|other| *other == domain);
            if let Some(id) = expected.domains[domain].filter(|_| !in_use) {
                vtd.destroy_domain(id).unwrap();
                expected.domains[domain] = None;
                expected.mapped.retain(|(other, _), _| *other != domain);
            }
        }
        Step::Attach(requester, domain) => {
            if let Some(id) = expected.domains[domain]
                && !expected.attached.contains_key(&requester)
            {
                vtd.attach(device(REQUESTERS[requester]), id, DeviceCache::None)
                    .unwrap();
                expected.attached.insert(requester, domain);
            }
        }
        Step::Detach(requester) => {
            if let Some(domain) = expected.attached.remove(&requester) {
                let id = expected.domains[domain].unwrap();
                vtd.detach(device(REQUESTERS[requester]), id).unwrap();
            }
        }
        Step::Map {
            domain,
            place,
            pages,
            frame,
            access,
        } => {
            let first = PLACES[place];
            if let Some(id) = expected.domains[domain]
                && !expected.overlaps(domain, first, pages)
            {
                // In two pieces when there is more than a page.
                let half = pages / 2;
                let extents: Vec<Extent> = [(0, half), (half, pages - half)]
                    .iter()
                    .filter(|(_, count)| *count > 0)
                    .map(|(at, count)| small((frame + at) << 12, *count))
                    .collect();
                vtd.map(id, first << 12, &extents, access).unwrap();
                expected
                    .mapped
                    .insert((domain, first), (pages, frame, access));
            }
        }
        Step::Unmap(domain, place) => {
            let first = PLACES[place];
            if let Some((pages, ..)) = expected.mapped.remove(&(domain, first)) {
                let id = expected.domains[domain].unwrap();
                vtd.unmap(id, first << 12, pages << 12).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 8))]

    #[test]
    fn qemus_unit(steps in prop::collection::vec(step(), 1..50)) {
        run(Model::QEMU, &steps);
    }

    #[test]
    fn four_levels_with_caching_mode(steps in prop::collection::vec(step(), 1..50)) {
        run(Model::QEMU.four_levels().caching(), &steps);
    }

    #[test]
    fn write_buffer_and_whole_domains(steps in prop::collection::vec(step(), 1..50)) {
        run(Model::QEMU.write_buffer().whole_domains(), &steps);
    }

    #[test]
    fn small_pages_with_caching_mode(steps in prop::collection::vec(step(), 1..50)) {
        run(Model::QEMU.small_pages().caching(), &steps);
    }
}
