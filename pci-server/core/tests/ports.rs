//! The state machine of a hot-plug slot, alone: cards come, go and are pulled; commands one at a
//! time; nothing waits.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use hw::capability::{CapabilityList, Express};
use hw::header::Layout;
use hw::{BusRange, ConfigSpace, Sbdf};
use pci_core::ports::{GRACE_US, Port, PortFault, State, Task};
use sim::config::{Bridge, Endpoint, ExpressShape, Machine, PortKind, SlotEvent, Space};

const EXPRESS: u16 = 0x40;

fn port() -> Bridge {
    let shape = ExpressShape {
        kind: PortKind::RootPort,
        flr: false,
        slot: Some(7),
    };
    Bridge::new(0, 1, 1).with(|endpoint| endpoint.express(shape))
}

fn card() -> Vec<(Sbdf, Space)> {
    vec![(
        "01:00.0".parse().unwrap(),
        Endpoint::new(0x1af4, 0x1005).into(),
    )]
}

struct Bench {
    machine: Machine,
    port: Port,
    now: u64,
    held: bool,
    tasks: Vec<Task>,
}

impl Bench {
    fn new(occupied: bool) -> Self {
        let mut machine = Machine::new();
        let at = machine.add("00:01.0", port());
        if occupied {
            for (at, space) in card() {
                machine.insert(at, space);
            }
        }
        machine.add_slot(at, EXPRESS);
        let list = CapabilityList::read(&machine, at, Layout::Bridge);
        let express = list.find::<Express, _>(&machine, at).unwrap().unwrap();
        let slot = Port::slot_of(&machine, at, &express);
        assert_eq!(slot.as_ref().unwrap().number, 7);
        let mut port = Port::new(at, BusRange::new(1, 1).unwrap(), slot, None);
        port.begin(&mut machine, 0, occupied, true);
        let mut bench = Self {
            machine,
            port,
            now: 0,
            held: false,
            tasks: Vec::new(),
        };
        bench.settle();
        bench.tasks.clear();
        bench
    }

    fn done(&mut self, task: Task) {
        self.tasks.push(task);
        match task {
            Task::Enumerate => {
                let behind = self.machine.addresses().filter(|at| at.bus() == 1).count();
                let next = self.port.entered(&mut self.machine, self.now, behind);
                self.done(next);
            }
            Task::TakeBack | Task::Vanished => {
                self.held = false;
                self.port.withdrawn(&mut self.machine, self.now);
            }
            Task::Nothing | Task::Announce | Task::Keep | Task::Failed(_) => {}
        }
    }

    fn interrupts(&mut self) {
        // Bounded: a port that never stops would be a fault of the test.
        for _ in 0..100 {
            if self.machine.take_messages() == 0 {
                return;
            }
            let task = self.port.notice(&mut self.machine, self.now, self.held);
            self.done(task);
        }
        panic!("interrupts never end");
    }

    /// Lets time pass until `until` or until nothing is to be done.
    fn pass(&mut self, until: u64) {
        for _ in 0..1000 {
            self.interrupts();
            let due = self.port.due();
            if due > until {
                return;
            }
            self.now = self.now.max(due);
            let task = self.port.tick(&mut self.machine, self.now, self.held);
            self.done(task);
        }
        panic!("it never comes to rest");
    }

    fn settle(&mut self) {
        self.pass(u64::MAX - 1);
    }

    /// What the port asked for, without nothings.
    fn asked(&mut self) -> Vec<Task> {
        let tasks = std::mem::take(&mut self.tasks);
        tasks
            .into_iter()
            .filter(|task| *task != Task::Nothing)
            .collect()
    }
}

#[test]
fn a_card_is_powered_and_left_alone_until_it_may_be_asked() {
    let mut bench = Bench::new(false);
    assert_eq!(bench.port.state, State::Empty);
    let at = bench.port.at;
    assert!(!bench.machine.has_power(at));
    bench.machine.plug(at, card());
    bench.interrupts();
    assert!(matches!(bench.port.state, State::PoweringOn(_)));
    assert!(bench.machine.has_power(at));
    assert_eq!(bench.machine.power_indicator(at), 2);
    let reads = bench.machine.reads();
    let first = bench.port.due();
    bench.pass(first);
    assert!(matches!(bench.port.state, State::Settling(_)));
    assert!(
        bench.port.due() >= first + 100_000,
        "the first access comes 100 ms after the link"
    );
    assert!(bench.machine.reads() > reads);
    bench.settle();
    assert_eq!(bench.asked(), [Task::Enumerate]);
    assert_eq!(bench.port.state, State::Occupied);
    assert_eq!(bench.machine.power_indicator(at), 1);
}

#[test]
fn a_link_that_stays_down_is_given_up_after_a_second() {
    let mut bench = Bench::new(false);
    let at = bench.port.at;
    bench.machine.break_link(at);
    bench.machine.plug(at, card());
    bench.settle();
    assert_eq!(bench.asked(), [Task::Failed(PortFault::NoLink)]);
    assert_eq!(bench.port.state, State::Failed(PortFault::NoLink));
    assert!((900_000..1_200_000).contains(&bench.now), "{}", bench.now);
    assert!(!bench.machine.has_power(at));
    assert_eq!(bench.machine.attention_indicator(at), 1);
    bench.machine.pull(at);
    bench.settle();
    assert_eq!(bench.port.state, State::Empty);
    assert_eq!(bench.machine.attention_indicator(at), 3);
}

#[test]
fn a_function_that_never_answers_is_given_up() {
    let mut bench = Bench::new(false);
    let at = bench.port.at;
    let mut space: Space = Endpoint::new(0x1af4, 0x1005).into();
    space.misbehave(sim::config::Misbehaviour::AllOnes);
    bench
        .machine
        .plug(at, vec![("01:00.0".parse().unwrap(), space)]);
    bench.settle();
    assert_eq!(bench.asked(), [Task::Failed(PortFault::NoAnswer)]);
    assert!(bench.now < 2_500_000);
}

#[test]
fn the_button_asks_holders_and_takes_back_after_the_grace() {
    let mut bench = Bench::new(true);
    assert_eq!(bench.port.state, State::Occupied);
    let at = bench.port.at;
    bench.held = true;
    bench.machine.at_slot(at, SlotEvent::Button);
    bench.interrupts();
    assert_eq!(bench.asked(), [Task::Announce]);
    assert_eq!(bench.machine.power_indicator(at), 2);
    let start = bench.now;
    bench.pass(start + GRACE_US - 1);
    assert!(bench.asked().is_empty());
    assert!(bench.machine.has_power(at));
    bench.pass(start + GRACE_US);
    assert_eq!(bench.asked(), [Task::TakeBack]);
    assert!(!bench.machine.has_power(at));
    assert_eq!(bench.machine.power_indicator(at), 3);
    bench.settle();
    assert_eq!(bench.port.state, State::Empty);
}

#[test]
fn a_second_press_calls_the_removal_off() {
    let mut bench = Bench::new(true);
    let at = bench.port.at;
    bench.held = true;
    bench.machine.at_slot(at, SlotEvent::Button);
    bench.interrupts();
    bench.machine.at_slot(at, SlotEvent::Button);
    bench.settle();
    assert_eq!(bench.asked(), [Task::Announce, Task::Keep]);
    assert_eq!(bench.port.state, State::Occupied);
    assert_eq!(bench.machine.power_indicator(at), 1);
}

#[test]
fn without_a_holder_the_button_needs_no_grace() {
    let mut bench = Bench::new(true);
    let at = bench.port.at;
    bench.machine.at_slot(at, SlotEvent::Button);
    bench.interrupts();
    assert_eq!(bench.asked(), [Task::TakeBack]);
    assert!(!bench.machine.has_power(at));
}

#[test]
fn a_card_that_is_pulled_is_gone_in_every_state() {
    for moment in [0, 1, 20_000, 50_000, 130_000, 1_000_000] {
        let mut bench = Bench::new(false);
        let at = bench.port.at;
        bench.machine.plug(at, card());
        bench.pass(moment);
        let known = bench.port.state == State::Occupied;
        bench.asked();
        bench.machine.pull(at);
        bench.settle();
        let expected: &[Task] = if known { &[Task::Vanished] } else { &[] };
        assert_eq!(bench.asked(), expected, "pulled at {moment}");
        assert_eq!(bench.port.state, State::Empty, "pulled at {moment}");
        assert!(!bench.machine.has_power(at));
        // And the next one works.
        bench.machine.plug(at, card());
        bench.settle();
        assert_eq!(bench.asked(), [Task::Enumerate], "pulled at {moment}");
    }
}

#[test]
fn a_card_that_was_swapped_unseen_is_a_new_one() {
    let mut bench = Bench::new(true);
    let at = bench.port.at;
    bench.machine.pull(at);
    bench.machine.plug(at, card());
    bench.settle();
    assert_eq!(bench.asked(), [Task::Vanished, Task::Enumerate]);
    assert_eq!(bench.port.state, State::Occupied);
}

#[test]
fn a_power_fault_ends_it_until_the_card_is_changed() {
    let mut bench = Bench::new(true);
    let at = bench.port.at;
    bench.machine.at_slot(at, SlotEvent::PowerFault);
    bench.settle();
    assert_eq!(bench.asked(), [Task::Vanished]);
    assert_eq!(bench.port.state, State::Failed(PortFault::Power));
    assert!(!bench.machine.has_power(at));
    bench.machine.pull(at);
    bench.machine.plug(at, card());
    bench.settle();
    assert_eq!(bench.port.state, State::Occupied);
}

#[test]
fn what_the_bus_reset_does_to_the_slot_is_not_an_event() {
    let mut bench = Bench::new(true);
    let at = bench.port.at;
    bench.port.in_reset = true;
    bench.machine.poke(at, EXPRESS + 0x1a, &[0x48, 0x01]);
    let task = bench.port.notice(&mut bench.machine, 0, true);
    assert_eq!(task, Task::Nothing);
    assert_eq!(bench.port.state, State::Occupied);
    assert_eq!(
        bench.machine.read16(at, EXPRESS + 0x1a),
        0x40,
        "taken all the same"
    );
}

#[test]
fn a_port_that_reads_all_ones_has_lost_its_card() {
    let mut bench = Bench::new(true);
    bench.machine.remove(bench.port.at);
    let task = bench.port.notice(&mut bench.machine, 0, true);
    assert_eq!(task, Task::Vanished);
    bench.port.withdrawn(&mut bench.machine, 0);
    assert_eq!(bench.port.state, State::Failed(PortFault::PortGone));
}

#[test]
fn a_port_that_cannot_stop_is_looked_at_again_later() {
    let mut bench = Bench::new(true);
    let at = bench.port.at;
    // Status bits that no write clears.
    let mut space = bench.machine.space(at).unwrap();
    space.allow_clear(EXPRESS + 0x1a, &[0, 0]);
    space.poke(EXPRESS + 0x1a, &[0x50]);
    bench.machine.insert(at, space);
    let before = bench.machine.reads();
    let task = bench.port.notice(&mut bench.machine, 5, true);
    assert_eq!(task, Task::Nothing);
    assert!(bench.machine.reads() - before < 16, "bounded");
    assert_eq!(bench.port.due(), 20_005);
}

#[test]
fn the_next_command_waits_for_the_one_before() {
    let mut bench = Bench::new(true);
    let at = bench.port.at;
    let before = bench.machine.slot_commands(at);
    // The interrupt about the first command is late.
    bench.held = true;
    bench.port.ask(&mut bench.machine, 0, true);
    bench.port.withdraw(&mut bench.machine, 0);
    bench.port.withdrawn(&mut bench.machine, 0);
    assert_eq!(bench.machine.slot_commands(at), before + 1);
    assert!(bench.machine.has_power(at), "the order to switch off waits");
    let look = bench.port.due();
    assert!(look <= 20_000);
    bench.port.tick(&mut bench.machine, look, false);
    assert_eq!(bench.machine.slot_commands(at), before + 2);
    assert!(!bench.machine.has_power(at));
}
