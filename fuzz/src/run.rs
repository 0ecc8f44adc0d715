//! Millions of inputs on all processors: [`run`], and one again: [`replay`].

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::check::{Outcome, Violation};
use crate::corpus::Corpus;
use crate::mutate::{self, Random};

/// Inputs that a worker takes at a time.
const BATCH: u64 = 256;
/// An input that takes longer does not end: the others take microseconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);
/// No input is under way.
const IDLE: u64 = u64::MAX;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Inputs 0 to this, excluded.
    pub inputs: u64,
    /// Decides all of them.
    pub seed: u64,
    /// Workers; at least one.
    pub workers: usize,
}

/// Why a run ended early: which input, and what with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The input.
    pub index: u64,
    /// What happened.
    pub what: String,
}

/// One input, as all of its seed.
#[must_use]
pub fn input(corpus: &Corpus, seed: u64, index: u64) -> (Vec<u8>, Random) {
    let base = ChaCha8Rng::seed_from_u64(seed);
    one(corpus, &base, index)
}

fn one(corpus: &Corpus, base: &ChaCha8Rng, index: u64) -> (Vec<u8>, Random) {
    let mut random = Random::new(base, index);
    let bytes = mutate::input(corpus, &mut random);
    (bytes, random)
}

/// Checks one input.
///
/// # Errors
/// Something that must be true is not.
pub fn replay(corpus: &Corpus, seed: u64, index: u64) -> Result<Outcome, Violation> {
    let (bytes, mut random) = input(corpus, seed, index);
    Outcome::of(&bytes, &mut random)
}

thread_local! {
    static CURRENT: Cell<u64> = const { Cell::new(IDLE) };
}

/// The input that this thread is at, for a panic hook.
#[must_use]
pub fn current() -> Option<u64> {
    Some(CURRENT.get()).filter(|index| *index != IDLE)
}

/// Where the workers are.
struct Shared {
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    /// Input that each worker is at.
    at: Vec<AtomicU64>,
    failure: Mutex<Option<Failure>>,
    total: Mutex<Outcome>,
}

impl Shared {
    fn fail(&self, failure: Failure) {
        self.stop.store(true, Ordering::Relaxed);
        if let Ok(mut first) = self.failure.lock() {
            first.get_or_insert(failure);
        }
    }
}

/// Checks all inputs. `progress` hears now and then how many are done.
///
/// Where a panic ends the program, a panic hook can tell the input: [`current`].
///
/// # Errors
/// The first input with which something was not as it must be, or that does not end. Of one that does
/// not end the worker is left behind.
pub fn run(corpus: Corpus, plan: Plan, mut progress: impl FnMut(u64)) -> Result<Outcome, Failure> {
    let workers = plan.workers.max(1);
    let shared = std::sync::Arc::new(Shared {
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        at: (0..workers).map(|_| AtomicU64::new(IDLE)).collect(),
        failure: Mutex::new(None),
        total: Mutex::new(Outcome::default()),
    });
    let corpus = std::sync::Arc::new(corpus);
    // Not scoped: a worker that does not come back must not be waited for.
    let threads: Vec<_> = (0..workers)
        .map(|number| {
            let (shared, corpus) = (shared.clone(), corpus.clone());
            std::thread::spawn(move || work(&shared, &corpus, plan, number))
        })
        .collect();
    let mut seen: Vec<(u64, Instant)> = vec![(IDLE, Instant::now()); workers];
    while threads.iter().any(|thread| !thread.is_finished()) {
        std::thread::sleep(TICK);
        progress(shared.done.load(Ordering::Relaxed));
        for (at, (last, since)) in shared.at.iter().zip(&mut seen) {
            let now = at.load(Ordering::Relaxed);
            if now != *last {
                (*last, *since) = (now, Instant::now());
            } else if now != IDLE && since.elapsed() > PATIENCE {
                let what = format!("takes more than {} s", PATIENCE.as_secs());
                return Err(Failure { index: now, what });
            }
        }
    }
    for thread in threads {
        if thread.join().is_err() {
            let what = "a panic, told above".to_owned();
            let index = shared.at.iter().map(|at| at.load(Ordering::Relaxed));
            let index = index.filter(|at| *at != IDLE).min().unwrap_or(IDLE);
            shared.fail(Failure { index, what });
        }
    }
    progress(shared.done.load(Ordering::Relaxed));
    let failure = shared
        .failure
        .lock()
        .ok()
        .and_then(|mut first| first.take());
    match (failure, shared.total.lock()) {
        (Some(failure), _) => Err(failure),
        (None, Ok(total)) => Ok(total.clone()),
        (None, Err(_)) => Err(Failure {
            index: IDLE,
            what: "a worker died".to_owned(),
        }),
    }
}

fn work(shared: &Shared, corpus: &Corpus, plan: Plan, number: usize) {
    let base = ChaCha8Rng::seed_from_u64(plan.seed);
    let mut own = Outcome::default();
    let idle = AtomicU64::new(IDLE);
    let at = shared.at.get(number).unwrap_or(&idle);
    while !shared.stop.load(Ordering::Relaxed) {
        let first = shared.next.fetch_add(BATCH, Ordering::Relaxed);
        if first >= plan.inputs {
            break;
        }
        let last = plan.inputs.min(first + BATCH);
        for index in first..last {
            at.store(index, Ordering::Relaxed);
            CURRENT.set(index);
            let (bytes, mut random) = one(corpus, &base, index);
            match Outcome::of(&bytes, &mut random) {
                Ok(outcome) => own.add(outcome),
                Err(Violation(what)) => {
                    shared.fail(Failure { index, what });
                    return;
                }
            }
        }
        shared.done.fetch_add(last - first, Ordering::Relaxed);
    }
    at.store(IDLE, Ordering::Relaxed);
    if let Ok(mut total) = shared.total.lock() {
        total.add(own);
    }
}
