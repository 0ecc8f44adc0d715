//! [`Timer`]: the service. A PD has one alarm; the newest counts.

use hw::Mmio;
use ipc_proto::timer::{ArmReply, NowReply, Service};
use ipc_proto::{Call, Refusal, Reply, Rule};

use super::hpet::LEAD;
use super::{Deadlines, Hpet};

/// Most attempts to set the alarm.
const ROUNDS: u32 = 17;

/// How the service wakes PDs.
pub trait Signals {
    /// Whether PD `pd` can be woken.
    fn reaches(&self, pd: u16) -> bool;
    /// Signals `event::TIMER` on the event notification of PD `pd`.
    fn signal(&mut self, pd: u16);
}

/// The timer service.
#[derive(Debug)]
pub struct Timer<M: Mmio, S: Signals> {
    hpet: Hpet<M>,
    signals: S,
    deadlines: Deadlines,
}

impl<M: Mmio, S: Signals> Timer<M, S> {
    /// The service over a started HPET; nobody waits.
    pub const fn new(hpet: Hpet<M>, signals: S) -> Self {
        Self {
            hpet,
            signals,
            deadlines: Deadlines::new(),
        }
    }

    /// The alarm's interrupt came (or may have come: too often does no harm). The kernel's acknowledgement
    /// must be before this, or an alarm set here is lost.
    pub fn on_interrupt(&mut self) {
        self.hpet.acknowledge();
        self.settle();
    }

    /// Wakes every PD whose time has come, and sets the alarm for the next.
    fn settle(&mut self) {
        // Each round leaves more time to set the alarm; the last leaves 65,536 times the first.
        for round in 0..ROUNDS {
            let now = self.hpet.now();
            while let Some(pd) = self.deadlines.expire(now) {
                self.signals.signal(pd);
            }
            match self.deadlines.next() {
                None => return self.hpet.clear_alarm(),
                Some(next) if self.hpet.set_alarm(next, LEAD << round) => return,
                // The counter has come too near while it was being set: look again.
                Some(_) => {}
            }
        }
    }
}

impl<M: Mmio, S: Signals> Service for Timer<M, S> {
    fn arm(&mut self, call: Call, micros: u64) -> Result<Reply<ArmReply>, Refusal> {
        let pd = call.badge.index;
        let deadline =
            (micros != 0).then(|| self.hpet.now().saturating_add(self.hpet.ticks(micros)));
        if !self.signals.reaches(pd) || !self.deadlines.set(pd, deadline) {
            return Err(Refusal::new(Rule::UnknownBadge, call.badge.to_word()));
        }
        self.settle();
        Ok(Reply::Now(ArmReply {}))
    }

    fn now(&mut self, _call: Call) -> Result<Reply<NowReply>, Refusal> {
        Ok(Reply::Now(NowReply {
            micros: self.hpet.micros(self.hpet.now()),
        }))
    }
}
