//! The model against a simulation: clients that queue for shards, and a
//! pci-server that keeps its turn while it waits for those below.

use super::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A step of a client's work: work, or a queue to enter or to leave.
#[derive(Clone, Copy)]
enum Step {
    Work(f64),
    Take(usize),
    Leave(usize),
}

/// Pieces of work an instruction that the simulated clients get done.
fn simulate(work: &Work, shape: Shape, clients: u32, seed: u64) -> f64 {
    const PIECES: u64 = 20_000;
    let (pci, iommu, msi) = match shape {
        Shape::Shards(pci, iommu, msi) => (pci, iommu, msi),
        Shape::Turnstile => (1, 1, 1),
    };
    // Queues: the lock, pci-servers, iommu-servers, msi-servers.
    let steps = |client: u32| {
        let at = |first: u32, count: u32| (first + client % count) as usize;
        let (pci, iommu, msi) = (at(1, pci), at(1 + pci, iommu), at(1 + pci + iommu, msi));
        let below = [(iommu, work.iommu), (msi, work.msi)];
        let below = below.into_iter().filter(|(_, work)| *work > 0.0);
        let below =
            below.flat_map(|(at, work)| [Step::Take(at), Step::Work(work), Step::Leave(at)]);
        let mut steps = vec![Step::Work(work.own)];
        if shape == Shape::Turnstile {
            steps.push(Step::Take(0));
        }
        if work.pci > 0.0 {
            steps.extend([Step::Take(pci), Step::Work(work.pci)]);
        }
        steps.extend(below);
        if work.pci > 0.0 {
            steps.push(Step::Leave(pci));
        }
        if shape == Shape::Turnstile {
            steps.push(Step::Leave(0));
        }
        steps
    };
    let all: Vec<Vec<Step>> = (0..clients).map(steps).collect();
    let mut queues = vec![(false, VecDeque::new()); (1 + pci + iommu + msi) as usize];
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut now = 0u64;
    let mut next = vec![0usize; clients as usize];
    let mut done = 0;
    let mut events: BinaryHeap<Reverse<(u64, u32)>> =
        (0..clients).map(|c| Reverse((0, c))).collect();
    while done < PIECES {
        let Reverse((time, client)) = events.pop().unwrap();
        now = time;
        let mut running = vec![client];
        while let Some(client) = running.pop() {
            let me = client as usize;
            loop {
                let step = all[me][next[me]];
                next[me] += 1;
                if next[me] == all[me].len() {
                    next[me] = 0;
                    done += 1;
                }
                match step {
                    Step::Work(work) => {
                        // Half as much again at the most, or half.
                        let spread = 0.5 + f64::from(random.next_u32()) / f64::from(u32::MAX);
                        events.push(Reverse((now + (work * spread) as u64, client)));
                        break;
                    }
                    Step::Take(queue) if queues[queue].0 => {
                        queues[queue].1.push_back(client);
                        break;
                    }
                    Step::Take(queue) => queues[queue].0 = true,
                    Step::Leave(queue) => match queues[queue].1.pop_front() {
                        // It is the next one's turn, who has taken it.
                        Some(waiting) => running.push(waiting),
                        None => queues[queue].0 = false,
                    },
                }
            }
        }
    }
    done as f64 / now as f64
}

/// Figures of a run, rounded.
const DEVICE: Work = Work {
    own: 6_000.0,
    pci: 12_000.0,
    iommu: 4_000.0,
    msi: 7_000.0,
};
const MAP: Work = Work {
    own: 900.0,
    pci: 0.0,
    iommu: 1_000.0,
    msi: 0.0,
};
const SHAPES: [Shape; 4] = [
    Shape::Turnstile,
    Shape::Shards(1, 1, 1),
    Shape::Shards(4, 1, 1),
    Shape::Shards(4, 4, 4),
];

#[test]
fn the_model_is_near_the_simulation() {
    let mut furthest: f64 = 0.0;
    for work in [DEVICE, MAP] {
        for shape in SHAPES {
            for clients in [1, 2, 4, 8, 16] {
                let simulated = simulate(&work, shape, clients, 7);
                let model = throughput(&work, shape, clients);
                let most = bound(&work, shape, clients);
                assert!(
                    simulated < most * 1.02,
                    "{shape:?} {clients}: {simulated} above {most}"
                );
                let off = (model / simulated - 1.0).abs();
                println!(
                    "{shape:?} {clients} clients: model {model:.3e} simulated {simulated:.3e}"
                );
                furthest = furthest.max(off);
            }
        }
    }
    assert!(furthest < 0.08, "{furthest}");
}

#[test]
fn shards_carry_further_than_a_lock() {
    let at = |shape| simulate(&DEVICE, shape, 16, 3);
    let [turnstile, one, bridges, all] = SHAPES.map(at);
    assert!(one > turnstile * 0.98);
    assert!(bridges > one * 2.5, "{bridges} {one}");
    assert!(all > bridges * 1.2, "{all} {bridges}");
    // 16 clients keep one lock busy, and no more.
    assert!((turnstile / bound(&DEVICE, Shape::Turnstile, 16) - 1.0).abs() < 0.05);
}

#[test]
fn one_client_waits_for_nobody() {
    for shape in SHAPES {
        let alone = throughput(&DEVICE, shape, 1);
        assert!((alone * DEVICE.total() - 1.0).abs() < 1e-9);
    }
    assert!((saturation(&DEVICE, Shape::Turnstile) - 29.0 / 23.0).abs() < 1e-9);
}

#[test]
fn measured_work_is_taken_apart() {
    let metrics: Metrics = [
        ("demand.device.total", 30_000.0),
        ("demand.device.pci", 20_000.0),
        ("demand.device.iommu", 4_000.0),
        ("demand.device.msi", 6_000.0),
        ("demand.map.total", 2_000.0),
        ("demand.map.pci", 9.0),
        ("demand.map.iommu", 900.0),
        ("demand.map.msi", 0.0),
        ("demand.read.total", 540.0),
        ("demand.read.pci", 81.0),
        ("demand.read.iommu", 2.0),
        ("demand.read.msi", 1.0),
        ("demand.buffer.total", 500.0),
        ("demand.buffer.pci", 3.0),
        ("demand.buffer.iommu", 1.0),
        ("demand.buffer.msi", 0.0),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let device = Work::measured("device", &metrics).unwrap();
    assert_eq!((device.iommu, device.msi), (4_204.0, 6_204.0));
    assert_eq!(device.pci, 20_204.0 - 4_204.0 - 6_204.0);
    assert_eq!(device.total(), 30_000.0);
    let map = Work::measured("map", &metrics).unwrap();
    assert_eq!((map.pci, map.iommu, map.own), (0.0, 1_104.0, 896.0));
    // A short turn is one all the same.
    let read = Work::measured("read", &metrics).unwrap();
    assert_eq!((read.pci, read.own), (285.0, 255.0));
    // Not measured; asks no server.
    assert_eq!(Work::measured("release", &metrics), None);
    assert_eq!(Work::measured("buffer", &metrics), None);
}
