//! Model checking: every schedule of a small world, up to a depth. The model's steps
//! are the servers' own code: a state is the schedule that leads to it, and a
//! step runs it again with one action more. States that nothing can tell
//! apart are visited once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{self, Receiver, Sender};

use ipc_proto::{Access, ContextChoice, Switch};
use sim::vtd::Model as Unit;
use stateright::{Checker, Model, Property};
use whole::told::{Life, Wait};
use whole::{Action, Flaw, Mortal, Setting, Store, World};

/// A small world: which devices, what can happen, how often.
#[derive(Clone)]
struct Every {
    setting: Setting,
    actions: Vec<Action>,
    depth: usize,
}

/// What has been seen in a state, for the properties.
#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    /// A client is being taken down while a device of it is busy.
    dying: bool,
    /// A device is pulled out and still held.
    pulled: bool,
    /// A release waits.
    releasing: bool,
    /// A client is gone.
    gone: bool,
}

#[derive(Clone, Debug)]
struct State {
    schedule: Vec<Action>,
    digest: u64,
    seen: Seen,
    broken: Option<String>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.broken.is_some() == other.broken.is_some()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.digest, self.broken.is_some()).hash(hasher);
    }
}

/// Runs a schedule in a new world.
fn run(setting: Setting, schedule: &[Action]) -> (u64, Seen) {
    let mut store = Store::new(&setting);
    let mut world = World::boot(&mut store, setting);
    let mut tried = BTreeSet::new();
    world.check(&mut tried);
    for action in schedule {
        world.act(action);
        world.check(&mut tried);
    }
    let clients = &world.told.clients;
    let pulled = |number: &usize| !world.hardware.present(whole::hardware::device(*number));
    let seen = Seen {
        dying: clients.iter().any(|client| client.life == Life::Dying),
        pulled: clients
            .iter()
            .any(|client| client.devices.keys().any(pulled)),
        releasing: clients
            .iter()
            .any(|client| matches!(client.waits, Some((_, Wait::Release(_))))),
        gone: clients.iter().any(|client| client.life == Life::Gone),
    };
    (world.digest(), seen)
}

/// A schedule, and what came of it: the words of a panic if something is broken.
type Outcome = (Vec<Action>, Result<(u64, Seen), String>);

/// A thread that runs schedules: the servers' storage goes through the stack, more than a checker's thread has.
/// One for each of these, since a new stack for every schedule takes longer than the schedule.
struct Runner {
    schedules: Sender<(Setting, Vec<Action>)>,
    outcomes: Receiver<Outcome>,
}

thread_local! {
    static RUNNER: Runner = Runner::new();
}

impl Runner {
    fn new() -> Self {
        let (schedules, to_run) = mpsc::channel::<(Setting, Vec<Action>)>();
        let (done, outcomes) = mpsc::channel();
        let thread = std::thread::Builder::new().stack_size(64 << 20);
        let work = move || {
            for (setting, schedule) in to_run {
                let outcome =
                    std::panic::catch_unwind(AssertUnwindSafe(|| run(setting, &schedule)));
                let said = outcome.map_err(|said| match said.downcast::<String>() {
                    Ok(said) => *said,
                    Err(_) => String::from("a panic without words"),
                });
                if done.send((schedule, said)).is_err() {
                    return;
                }
            }
        };
        thread.spawn(work).unwrap();
        Self {
            schedules,
            outcomes,
        }
    }

    fn run(&self, setting: Setting, schedule: Vec<Action>) -> Outcome {
        self.schedules.send((setting, schedule)).unwrap();
        self.outcomes.recv().unwrap()
    }
}

impl Every {
    fn state(&self, schedule: Vec<Action>) -> State {
        let (schedule, outcome) = RUNNER.with(|runner| runner.run(self.setting, schedule));
        match outcome {
            Ok((digest, seen)) => State {
                schedule,
                digest,
                seen,
                broken: None,
            },
            Err(said) => State {
                schedule,
                digest: 0,
                seen: Seen::default(),
                broken: Some(said),
            },
        }
    }
}

impl Model for Every {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.state(Vec::new())]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_none() {
            actions.extend(self.actions.iter().cloned());
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut schedule = last.schedule.clone();
        schedule.push(action);
        Some(self.state(schedule))
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.schedule.len() <= self.depth
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was promised holds", |_, state: &State| {
                state.broken.is_none()
            }),
            Property::sometimes(
                "a client dies while work for it is under way",
                |_, state: &State| state.seen.dying,
            ),
            Property::sometimes("a held device is pulled out", |_, state: &State| {
                state.seen.pulled
            }),
            Property::sometimes("a release waits", |_, state: &State| state.seen.releasing),
            Property::sometimes("a client is gone", |_, state: &State| state.seen.gone),
        ]
    }
}

/// Two clients and one device with a reset that takes time: assignment, DMA, messages, capabilities handed on,
/// release, death, reset, and the device coming and going in the middle of any of it.
fn contended(flaw: Flaw, depth: usize) -> Every {
    let device = 1;
    let mut actions = vec![
        Action::Pull(device),
        Action::Plug(device),
        Action::Scan,
        Action::Tick,
        Action::Restart(Mortal::Pci),
        Action::Restart(Mortal::Iommu),
        Action::Restart(Mortal::Msi),
    ];
    for client in 0..2 {
        actions.extend([
            Action::Assign(client, device, ContextChoice::Shared),
            Action::Release(client, device),
            Action::Reset(client, device),
            Action::Messages(client, device, 1),
            Action::Kill(client),
        ]);
    }
    actions.extend([
        Action::Master(0, device, Switch::On),
        Action::Hand(0, device, 1),
        Action::Alloc(0, 0, 1),
        Action::Map(0, 0, Access::ReadWrite, None),
        Action::Free(0, 0),
    ]);
    Every {
        setting: Setting {
            model: Unit::QEMU,
            clients: 2,
            devices: 2,
            flaw,
        },
        actions,
        depth,
    }
}

/// The same, in which a server is killed before one of the first effects of what the first client does.
fn mortal(depth: usize) -> Every {
    let mut every = contended(Flaw::None, depth);
    let device = 1;
    let fatal = [
        Action::Assign(0, device, ContextChoice::Shared),
        Action::Release(0, device),
        Action::Messages(0, device, 1),
        Action::Map(0, 0, Access::ReadWrite, None),
        Action::Free(0, 0),
    ];
    for action in fatal {
        for server in [Mortal::Pci, Mortal::Iommu, Mortal::Msi] {
            for effect in [0, 2, 5, 11] {
                let action = Box::new(action.clone());
                every.actions.push(Action::During(server, effect, action));
            }
        }
    }
    every
}

#[test]
fn every_short_schedule_with_a_death_at_work_keeps_what_was_promised() {
    let checker = mortal(3).checker().threads(2).spawn_bfs().join();
    println!(
        "{} steps lead to {} states",
        checker.state_count(),
        checker.unique_state_count()
    );
    if let Some(path) = checker.discovery("what was promised holds") {
        panic!("broken: {:#?}", path.last_state());
    }
}

#[test]
fn every_schedule_of_a_small_world_keeps_what_was_promised() {
    let checker = contended(Flaw::None, 6)
        .checker()
        .threads(2)
        .spawn_bfs()
        .join();
    println!(
        "{} steps lead to {} states, the longest schedule has {} steps",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    if let Some(path) = checker.discovery("what was promised holds") {
        panic!("broken: {:#?}", path.last_state());
    }
    checker.assert_properties();
}
