//! What the supervisor makes of the deaths that the medic tells of, and the deaths that a test wants at random times.

use core::fmt;

use super::{Cut, Ending, Hands, Life, Supervisor};
use crate::medic::{Cause, Told, Treatment};
use crate::plan::Kind;

/// What is known of the deaths of a server shard. Times in ticks of the time-stamp counter; 0: not yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Record {
    pub restarts: u32,
    pub died: u64,
    pub ready: u64,
}

/// Deaths at random times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Chaos {
    /// Whose; `None`: any server shard's.
    pub victim: Option<u16>,
    /// How many are to come.
    pub left: u32,
    /// Most microseconds between one and the next.
    pub span: u32,
    random: u64,
    /// Who is to die by the alarm that is set.
    armed: Option<u16>,
    when: When,
}

/// From when on the time to the next death counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// From the last death: it may hit the recovery.
    AtOnce,
    /// From when all are ready: it hits whatever they do then.
    AllReady,
}

impl Chaos {
    pub(super) const fn new(victim: Option<u16>, seed: u64, left: u32, span: u32) -> Self {
        Self {
            victim,
            left,
            span,
            random: seed,
            armed: None,
            when: When::AllReady,
        }
    }

    /// The next random number (SplitMix64: Steele, Lea, Flood 2014).
    const fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A time of 1 to `span` microseconds, short ones as often as long ones.
    fn delay(&mut self) -> u64 {
        let span = u64::from(self.span.max(1));
        let bits = u64::from(span.ilog2()) + 1;
        let most = 1u64 << (self.random() % bits + 1);
        1 + self.random() % most.min(span)
    }
}

impl Supervisor {
    /// The medic tells what has become of a server shard, at a time in ticks of the time-stamp counter. `what` says how
    /// it died, if it did.
    pub fn told<H: Hands>(
        &mut self,
        told: Told,
        ticks: u64,
        what: fmt::Arguments<'_>,
        hands: &mut H,
    ) {
        match told {
            Told::Ready { pd } => self.ready(pd, ticks),
            Told::Died {
                pd,
                cause,
                treatment,
            } => {
                if cause == Cause::Kill
                    && let Some(chaos) = self.chaos.as_mut()
                    && chaos.armed == Some(pd)
                {
                    chaos.armed = None;
                    chaos.when = if chaos.random() & 1 == 0 {
                        When::AtOnce
                    } else {
                        When::AllReady
                    };
                    chaos.left = chaos.left.saturating_sub(1);
                }
                match treatment {
                    Treatment::Restart(count) => {
                        self.restarted(pd, cause, (count, ticks), what, hands);
                    }
                    // Before the first client there is nothing that could go on.
                    Treatment::GiveUp if self.before.is_some() => {
                        self.given_up(pd, ticks, what, hands);
                    }
                    Treatment::GiveUp | Treatment::Leave => self.fault(pd, what),
                }
            }
            Told::Exit { pd, code } => self.ends(pd, Ending::Exit(code)),
        }
    }

    fn ready(&mut self, pd: u16, ticks: u64) {
        let Some(index) = self.index(pd) else {
            return;
        };
        let Some((ward, life)) = self.wards.get_mut(index) else {
            return;
        };
        let kind = ward.kind;
        if *life == Life::Starting {
            *life = Life::Running;
            return;
        }
        if let Some(record) = self.records.get_mut(index) {
            record.ready = ticks;
        }
        if let Kind::Pci(shard) = kind {
            // Its signal may have died with it, and what it was asked too.
            self.shards_signalled = true;
            for (_, life) in &mut self.wards {
                if let Life::Dying(dying) = life {
                    dying.ask_again(shard);
                }
            }
        }
    }

    fn restarted<H: Hands>(
        &mut self,
        pd: u16,
        cause: Cause,
        (count, ticks): (u32, u64),
        what: fmt::Arguments<'_>,
        hands: &mut H,
    ) {
        let Some(index) = self.index(pd) else {
            return;
        };
        if let Some(record) = self.records.get_mut(index) {
            *record = Record {
                restarts: count,
                died: ticks,
                ready: 0,
            };
        }
        let Some(name) = self.wards.get(index).map(|(ward, _)| ward.name.clone()) else {
            return;
        };
        let word = cause.word();
        hands.say(format_args!("restarted {name} after {word} ({count})"));
        hands.say(format_args!("@restarted {name} {word} {count}"));
        // Nobody asked for it: the system goes on, but the run has not gone as described.
        if cause == Cause::Fault && self.failure.is_none() {
            let mut text = heapless::String::new();
            let died = format_args!("server {name} died: {what}");
            let _ = fmt::write(&mut Cut(&mut text), died);
            self.failure = Some(text);
        }
    }

    /// A server shard refuses everything from now on. The others go on, and the run has failed.
    fn given_up<H: Hands>(&mut self, pd: u16, ticks: u64, what: fmt::Arguments<'_>, hands: &mut H) {
        let Some(index) = self.index(pd) else {
            return;
        };
        let Some((ward, life)) = self.wards.get_mut(index) else {
            return;
        };
        *life = Life::GivenUp;
        let name = ward.name.clone();
        hands.say(format_args!(
            "gave up {name}: it refuses whatever it is asked"
        ));
        if let Some(record) = self.records.get_mut(index) {
            // Nobody waits for it to be ready.
            record.ready = ticks;
        }
        if let Some(chaos) = &mut self.chaos {
            chaos.armed.take_if(|armed| *armed == pd);
        }
        if self.failure.is_none() {
            let mut text = heapless::String::new();
            let _ = fmt::write(
                &mut Cut(&mut text),
                format_args!("server {name} died: {what}"),
            );
            self.failure = Some(text);
        }
    }

    /// Sets the alarm for the next death of a chaos, if there is one to come.
    pub(super) fn arm_chaos<H: Hands>(&mut self, hands: &mut H) {
        let Some(chaos) = self.chaos.as_mut() else {
            return;
        };
        if chaos.left == 0 || chaos.armed.is_some() {
            return;
        }
        let recovering = |record: &Record| record.restarts > 0 && record.ready == 0;
        if chaos.when == When::AllReady && self.records.iter().any(recovering) {
            return;
        }
        let any = chaos.victim;
        let running = self
            .wards
            .iter()
            .enumerate()
            .filter(|(_, (ward, life))| ward.kind.is_shard() && *life == Life::Running);
        let numbers = running.map(|(index, _)| index as u16 + 1);
        let candidates = || {
            numbers
                .clone()
                .filter(|pd| any.is_none_or(|only| only == *pd))
        };
        let count = candidates().count() as u64;
        let Some(choice) = chaos.random().checked_rem(count) else {
            return;
        };
        let Some(victim) = candidates().nth(choice as usize) else {
            return;
        };
        chaos.armed = Some(victim);
        hands.alarm(victim, chaos.delay());
    }
}
