//! The driver and the service against a strict model of the hardware: an alarm comes only when the running
//! counter goes over the comparator's value while that is set and enabled. Every access takes time.

extern crate std;

use std::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use ipc_proto::timer::{ArmReply, NowReply, Request, dispatch};
use ipc_proto::{Badge, BadgeKind, Message, Rule};
use proptest::prelude::*;

use super::*;
use crate::timer::{Signals, Timer};

/// What the machine is made of. Its offsets are written down again here, so that one error cannot hide in both.
#[derive(Debug)]
struct Machine {
    capabilities: u64,
    running: bool,
    counter: u64,
    config: u64,
    comparator: u64,
    /// When the comparator's value comes into force.
    in_force: u64,
    pending: bool,
    /// Ticks that each access takes; used round robin.
    delays: Vec<u64>,
    accesses: usize,
    writes: usize,
}

impl Machine {
    fn new(delays: Vec<u64>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            // 10 ns, 64 bits, legacy routing, 3 comparators.
            capabilities: 10_000_000 << 32 | 1 << 15 | 1 << 13 | 2 << 8,
            running: false,
            counter: 77,
            // As firmware may leave it: periodic, 32-bit mode, level, enabled, routed elsewhere. Pins 2 and 8.
            config: 0x104 << 32 | 1 << 5 | 1 << 4 | 1 << 8 | 1 << 3 | 1 << 1 | 1 << 2 | 8 << 9,
            comparator: u64::MAX,
            in_force: 0,
            pending: false,
            delays,
            accesses: 0,
            writes: 0,
        }))
    }

    fn advance(&mut self, ticks: u64) {
        if !self.running {
            return;
        }
        let before = self.counter;
        self.counter += ticks;
        let armed = self.config & 1 << 2 != 0;
        let over = before.max(self.in_force) < self.comparator && self.comparator <= self.counter;
        if armed && over {
            self.pending = true;
        }
    }

    fn access(&mut self) {
        let delay = self.delays[self.accesses % self.delays.len()];
        self.accesses += 1;
        self.advance(delay);
    }

    fn read(&mut self, offset: usize) -> u32 {
        self.access();
        let word = match offset & !7 {
            0x00 => self.capabilities,
            0x10 => u64::from(self.running),
            0xf0 => self.counter,
            0x100 => self.config,
            0x108 => self.comparator,
            other => panic!("read of {other:#x}"),
        };
        (word >> (offset % 8 * 8)) as u32
    }

    fn write(&mut self, offset: usize, value: u32) {
        self.access();
        self.writes += 1;
        let shift = offset % 8 * 8;
        let set =
            |word: &mut u64| *word = *word & !(0xffff_ffff << shift) | u64::from(value) << shift;
        match offset & !7 {
            0x10 => {
                assert_eq!(value & 2, 0, "legacy routing takes the PIT away");
                self.running = value & 1 != 0;
            }
            0x20 => {}
            0xf0 => {
                assert!(
                    !self.running,
                    "the counter may be written only while it stands still"
                );
                set(&mut self.counter);
            }
            0x100 => {
                assert_eq!(offset, 0x100, "the routes are read-only");
                // What software may change: 2.3.8.
                const WRITABLE: u64 = 0x7f4e;
                assert_eq!(value & 1 << 1, 0, "level-triggered");
                assert_eq!(value & 1 << 3, 0, "periodic");
                assert_eq!(value & 1 << 8, 0, "32-bit mode");
                assert_eq!(value >> 9 & 0x1f, 2, "pin");
                self.config = self.config & !WRITABLE | u64::from(value) & WRITABLE;
            }
            0x108 => {
                assert_eq!(self.config & 1 << 2, 0, "half a comparator is armed");
                set(&mut self.comparator);
                self.in_force = self.counter + 100;
            }
            other => panic!("write of {other:#x}"),
        }
    }
}

#[derive(Clone, Debug)]
struct Registers(Rc<RefCell<Machine>>);

impl Mmio for Registers {
    fn len(&self) -> usize {
        1024
    }
    fn read32(&self, offset: usize) -> u32 {
        self.0.borrow_mut().read(offset)
    }
    fn read64(&self, _offset: usize) -> u64 {
        panic!("not every HPET takes 64-bit accesses")
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.0.borrow_mut().write(offset, value);
    }
    fn write64(&mut self, _offset: usize, _value: u64) {
        panic!("not every HPET takes 64-bit accesses")
    }
}

/// Notes who was woken and when. PD 9 cannot be woken.
#[derive(Clone, Debug)]
struct Woken(Rc<RefCell<Vec<(u16, u64)>>>, Rc<RefCell<Machine>>);

impl Signals for Woken {
    fn reaches(&self, pd: u16) -> bool {
        pd != 9
    }
    fn signal(&mut self, pd: u16) {
        let now = self.1.borrow().counter;
        self.0.borrow_mut().push((pd, now));
    }
}

struct Bench {
    machine: Rc<RefCell<Machine>>,
    woken: Rc<RefCell<Vec<(u16, u64)>>>,
    timer: Timer<Registers, Woken>,
}

impl Bench {
    fn new(delays: Vec<u64>) -> Self {
        let machine = Machine::new(delays);
        let woken = Rc::new(RefCell::new(Vec::new()));
        let hpet = Hpet::start(Registers(machine.clone()), 2).unwrap();
        let timer = Timer::new(hpet, Woken(woken.clone(), machine.clone()));
        Self {
            machine,
            woken,
            timer,
        }
    }

    fn ask(&mut self, pd: u16, request: Request) -> Message {
        dispatch(
            &mut self.timer,
            Badge::plain(BadgeKind::Pd, pd).to_word(),
            &request.encode(),
        )
        .unwrap()
    }

    /// Lets time pass, and delivers the interrupt when it comes.
    fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks / 16 {
            self.machine.borrow_mut().advance(16);
            if std::mem::take(&mut self.machine.borrow_mut().pending) {
                self.timer.on_interrupt();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]
    #[test]
    fn everybody_is_woken_once_and_in_time(
        delays in prop::collection::vec(prop_oneof![5 => 0u64..4, 1 => 0u64..400], 1..20),
        steps in prop::collection::vec((0u16..5, prop_oneof![Just(0u64), 1u64..3, 1u64..200], 0u64..6000), 1..30),
    ) {
        let slowest: u64 = 80 * delays.iter().max().unwrap() + 400;
        let mut bench = Bench::new(delays);
        let mut waiting = [None; 5];
        for (pd, micros, pause) in steps {
            bench.woken.borrow_mut().clear();
            let before = bench.machine.borrow().counter;
            prop_assert_eq!(ArmReply::decode(&bench.ask(pd, Request::Arm { micros })), Ok(ArmReply {}));
            waiting[usize::from(pd)] = (micros != 0).then(|| (before + micros * 100, bench.machine.borrow().counter + micros * 100));
            bench.pass(pause);
            // Those who were woken had waited, and long enough; nobody else should have been woken by now.
            for (pd, at) in bench.woken.borrow().iter() {
                let (earliest, _) = waiting[usize::from(*pd)].take().expect("woken without having asked");
                prop_assert!(*at >= earliest, "PD {} at {} before {}", pd, at, earliest);
            }
            let now = bench.machine.borrow().counter;
            for latest in waiting.iter().flatten().map(|(_, latest)| *latest) {
                prop_assert!(now <= latest + slowest, "{} passed {} and nobody was woken", now, latest);
            }
        }
        // Left alone, everybody is woken: no time is lost for want of a later request.
        bench.woken.borrow_mut().clear();
        bench.pass(100_000);
        let mut woken: Vec<u16> = bench.woken.borrow().iter().map(|(pd, _)| *pd).collect();
        woken.sort_unstable();
        let wanted: Vec<u16> = (0..5).filter(|pd| waiting[usize::from(*pd)].is_some()).collect();
        prop_assert_eq!(woken, wanted);
        prop_assert_eq!(bench.machine.borrow().config & 1 << 2, 0, "nobody waits, but the alarm is on");
    }
}

#[test]
fn a_time_that_passes_while_it_is_set_is_not_lost() {
    // All ways for the time to fall between the accesses of the set-up.
    for delay in (0..120).chain([1000, 50_000]) {
        for micros in 1..12 {
            let mut bench = Bench::new(vec![delay]);
            bench.ask(3, Request::Arm { micros });
            bench.pass(20_000 + 40 * delay);
            assert_eq!(
                bench.woken.borrow().len(),
                1,
                "{micros} us, {delay} ticks an access"
            );
        }
    }
}

#[test]
fn many_times_close_together_are_not_lost() {
    let mut bench = Bench::new(vec![25]);
    let pds = (0..64).filter(|pd| *pd != 9);
    for pd in pds.clone() {
        let passed = bench.machine.borrow().counter / 100;
        let micros = 1000 + u64::from(pd) - passed;
        bench.ask(pd, Request::Arm { micros });
    }
    assert!(bench.woken.borrow().is_empty());
    bench.pass(150_000);
    assert_eq!(bench.woken.borrow().len(), pds.count());
}

#[test]
fn a_wait_is_never_shorter_than_asked_for() {
    let machine = Machine::new(vec![0]);
    // The common 14.318 MHz.
    machine.borrow_mut().capabilities = 69_841_279 << 32 | 1 << 13;
    let hpet = Hpet::start(Registers(machine), 2).unwrap();
    for micros in (1..1000).chain([1 << 40]) {
        let ticks = hpet.ticks(micros);
        assert!(
            u128::from(ticks) * 69_841_279 >= u128::from(micros) * 1_000_000_000,
            "{micros}"
        );
        assert!(
            u128::from(ticks - 1) * 69_841_279 < u128::from(micros) * 1_000_000_000,
            "{micros}"
        );
    }
}

#[test]
fn the_newest_request_counts_and_zero_takes_it_back() {
    let mut bench = Bench::new(vec![1]);
    bench.ask(1, Request::Arm { micros: 10 });
    bench.ask(1, Request::Arm { micros: 1000 });
    bench.ask(2, Request::Arm { micros: 10 });
    bench.ask(2, Request::Arm { micros: 0 });
    bench.pass(50_000);
    assert!(bench.woken.borrow().is_empty());
    bench.pass(60_000);
    assert_eq!(bench.woken.borrow().len(), 1);
    bench.ask(1, Request::Arm { micros: 10 });
    assert_ne!(bench.machine.borrow().config & 1 << 2, 0);
    bench.ask(1, Request::Arm { micros: 0 });
    assert_eq!(bench.machine.borrow().config & 1 << 2, 0);
}

#[test]
fn endless_waits_do_not_overflow() {
    let mut bench = Bench::new(vec![1]);
    for micros in [u64::MAX, u64::MAX / 100, 1 << 57] {
        assert!(ArmReply::decode(&bench.ask(1, Request::Arm { micros })).is_ok());
    }
    assert!(bench.machine.borrow().comparator <= 1 << 41);
    bench.pass(10_000);
    assert!(bench.woken.borrow().is_empty());
}

#[test]
fn a_wait_beyond_the_horizon_is_set_in_steps() {
    let mut bench = Bench::new(vec![1]);
    bench.ask(
        1,
        Request::Arm {
            micros: 30_000_000_000,
        },
    );
    for _ in 0..10 {
        let comparator = bench.machine.borrow().comparator;
        bench.machine.borrow_mut().counter = comparator - 8;
        bench.pass(64);
    }
    let woken = bench.woken.borrow();
    assert_eq!(woken.len(), 1);
    assert!(woken[0].1 >= 3_000_000_000_000);
}

#[test]
fn now_is_in_microseconds_of_the_counter() {
    let mut bench = Bench::new(vec![0]);
    bench.machine.borrow_mut().counter = 0x1_0000_0000_0000;
    assert_eq!(
        NowReply::decode(&bench.ask(0, Request::Now {}))
            .unwrap()
            .micros,
        0x1_0000_0000_0000 / 100
    );
}

#[test]
fn a_carry_between_the_halves_is_seen() {
    let mut bench = Bench::new(vec![3]);
    for start in 0xffff_fff0..=0x1_0000_0000u64 {
        bench.machine.borrow_mut().counter = start;
        let micros = NowReply::decode(&bench.ask(0, Request::Now {}))
            .unwrap()
            .micros;
        assert!(
            micros >= start / 100 && micros <= (start + 20) / 100,
            "{micros} at {start}"
        );
    }
}

#[test]
fn who_cannot_be_woken_is_refused() {
    let mut bench = Bench::new(vec![1]);
    for pd in [9, 64, 0xfff] {
        let refusal = ArmReply::decode(&bench.ask(pd, Request::Arm { micros: 5 })).unwrap_err();
        assert_eq!(refusal.rule, Rule::UnknownBadge);
    }
}

#[test]
fn unusable_hardware_is_refused_untouched() {
    let refused = |change: fn(&mut Machine), pin| {
        let machine = Machine::new(vec![0]);
        change(&mut machine.borrow_mut());
        let error = Hpet::start(Registers(machine.clone()), pin)
            .map(|_| ())
            .unwrap_err();
        assert_eq!(machine.borrow().writes, 0);
        error
    };
    assert_eq!(
        refused(|machine| machine.capabilities = u64::MAX, 2),
        HpetError::Period(u32::MAX)
    );
    assert_eq!(
        refused(|machine| machine.capabilities &= 0xffff_ffff, 2),
        HpetError::Period(0)
    );
    assert_eq!(
        refused(|machine| machine.capabilities &= !(1 << 13), 2),
        HpetError::Narrow
    );
    assert_eq!(
        refused(|machine| machine.config &= !(1 << 5), 2),
        HpetError::Narrow
    );
    assert_eq!(
        refused(|_| {}, 3),
        HpetError::Pin {
            pin: 3,
            routes: 0x104
        }
    );
    assert_eq!(
        refused(|_| {}, 40),
        HpetError::Pin {
            pin: 40,
            routes: 0x104
        }
    );
}
