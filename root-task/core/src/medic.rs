//! The medic: what becomes of a server shard that faults or is killed. A state machine beside the supervisor's,
//! run by a thread of its own above the supervisor's: the supervisor may itself be waiting for the answer of the very
//! server that has died, and gets one only when the server runs again. So the medic calls no server, allocates
//! nothing, and decides each death by itself; the supervisor is told afterwards ([`Told`]).
//!
//! A restart gives the thread its first registers again and the number of the restart; all else (capabilities,
//! tables, the ledger) is as the server left it. A server that faults again before it is ready, or too often, is not
//! restarted as a server: it runs on only to refuse what it is asked ([`Treatment::GiveUp`]), so that nobody
//! waits for it for ever. So does one that was restarted and is not ready in time ([`Medic::watch`]).

use heapless::Vec;
use ipc_proto::supervisor::{
    ChaosReply, CrashReply, DeathsReply, ExitReply, FailReply, HangReply, KillReply, ReadyReply,
    Service, SuspendReply,
};
use ipc_proto::{Call, Refusal, Reply, Rule, Switch};
use system::layout::{MAX_PDS, pd};

/// Faults that count together: those with less than this between one and the next.
const CALM_US: u64 = 60_000_000;
/// How long a restarted server may take to be ready. A thousand times what a recovery takes among a few devices, and more
/// than a hundred times what it takes among a thousand: who takes longer loops, or waits for what never comes. It is of the
/// guest's time, in which an emulator on a busy machine may be slow.
const START_US: u64 = 10_000_000;

/// Why a server died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// It faulted or panicked.
    Fault,
    /// A test made it fault.
    Crash,
    /// A test killed it.
    Kill,
    /// It was restarted, and not ready in time.
    Silence,
}

impl Cause {
    /// The word for it: a fault is one whoever made it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fault | Self::Crash => "fault",
            Self::Kill => "kill",
            Self::Silence => "silence",
        }
    }
}

/// What is to be done with a server that died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// Start it again; it is told that this is the n-th time.
    Restart(u32),
    /// Let it refuse whatever it is asked.
    GiveUp,
    /// Leave it: it is none that is restarted, or cannot even refuse.
    Leave,
}

/// What the medic tells the supervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// The server is ready.
    Ready {
        /// PD number.
        pd: u16,
    },
    /// It died, and this was done about it.
    Died {
        /// PD number.
        pd: u16,
        /// Why.
        cause: Cause,
        /// What was done.
        treatment: Treatment,
    },
    /// It says that it has finished, which no server does.
    Exit {
        /// PD number.
        pd: u16,
        /// Its code.
        code: u32,
    },
}

/// How a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    /// Starts for the first time.
    Starting,
    /// Serves.
    Ready,
    /// Starts again.
    Recovering,
    /// Refuses everything.
    GivenUp,
    /// Does not run.
    Left,
}

/// A server shard in the medic's care.
#[derive(Clone, Debug)]
struct Patient {
    pd: u16,
    life: Life,
    /// All restarts so far.
    restarts: u32,
    /// Faults without [`CALM_US`] in between.
    faults: u8,
    /// The last of them.
    fault_us: u64,
    /// Was a fault asked for that has not come yet?
    crash_asked: bool,
}

/// What is asked for by the supervisor, to be done when it has been answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Kill this server.
    Kill(u16),
    /// Make it fault.
    Crash(u16),
    /// Make it fault, and let that count.
    Fail(u16),
    /// Restart it, and let it hang.
    Hang(u16),
    /// Tell the supervisor.
    Tell(Told),
}

/// A start that is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Watch {
    pd: u16,
    /// Which start it is.
    restarts: u32,
    /// When the server is to be ready.
    due_us: u64,
}

/// The medic's state.
#[derive(Debug)]
pub struct Medic {
    /// In ascending order of PD numbers: those that a server calls come before it.
    patients: Vec<Patient, MAX_PDS>,
    watch: Option<Watch>,
    /// Faults of a server that are put up with; 0: nothing is restarted.
    bound: u8,
    deed: Option<Deed>,
}

impl Medic {
    /// A medic that restarts each of these servers, up to `bound` faults without a minute in between.
    ///
    /// # Errors
    /// There are more than [`MAX_PDS`].
    pub fn new(servers: impl Iterator<Item = u16>, bound: u8) -> Result<Self, &'static str> {
        let mut patients = Vec::new();
        for pd in servers {
            let patient = Patient {
                pd,
                life: Life::Starting,
                restarts: 0,
                faults: 0,
                fault_us: 0,
                crash_asked: false,
            };
            patients
                .push(patient)
                .map_err(|_| "more servers than the medic has room for")?;
        }
        patients.sort_unstable_by_key(|patient| patient.pd);
        Ok(Self {
            patients,
            watch: None,
            bound,
            deed: None,
        })
    }

    fn patient(&mut self, pd: u16) -> Option<&mut Patient> {
        self.patients.iter_mut().find(|patient| patient.pd == pd)
    }

    /// Can it be killed now, to be restarted?
    #[must_use]
    pub fn can_be_killed(&self, pd: u16) -> bool {
        let up = |life| matches!(life, Life::Ready | Life::Recovering);
        self.bound > 0
            && self
                .patients
                .iter()
                .any(|patient| patient.pd == pd && up(patient.life))
    }

    /// The server died by a fault, at this time.
    pub fn faulted(&mut self, pd: u16, now_us: u64) -> Told {
        let bound = self.bound;
        let Some(patient) = self.patient(pd) else {
            return died(pd, Cause::Fault, Treatment::Leave);
        };
        if core::mem::take(&mut patient.crash_asked) {
            return died(pd, Cause::Crash, patient.restart());
        }
        if now_us.saturating_sub(patient.fault_us) >= CALM_US {
            patient.faults = 0;
        }
        patient.faults = patient.faults.saturating_add(1);
        patient.fault_us = now_us;
        let treatment = match patient.life {
            Life::Ready if patient.faults <= bound => patient.restart(),
            // The first start is made under its creator's eyes; after it, what was left must be something to start from.
            Life::Starting | Life::Ready | Life::Recovering => {
                patient.life = Life::GivenUp;
                Treatment::GiveUp
            }
            Life::GivenUp | Life::Left => {
                patient.life = Life::Left;
                Treatment::Leave
            }
        };
        died(pd, Cause::Fault, treatment)
    }

    /// The server was stopped for a test.
    pub fn killed(&mut self, pd: u16) -> Told {
        let treatment = match self.patient(pd) {
            Some(patient) => {
                patient.crash_asked = false;
                patient.restart()
            }
            None => Treatment::Leave,
        };
        died(pd, Cause::Kill, treatment)
    }

    /// Watches starts, at this time; gives the time at which to be called again, if any. To be called after everything else.
    ///
    /// A server that recovers may wait for one below that does, too, so one start is watched at a time: that of the first
    /// server that has nobody to wait for. Its time begins when it is so.
    pub fn watch(&mut self, now_us: u64) -> Option<u64> {
        let first = self
            .patients
            .iter()
            .find(|patient| patient.life == Life::Recovering);
        self.watch = first.map(|patient| {
            let (pd, restarts) = (patient.pd, patient.restarts);
            self.watch
                .filter(|watch| (watch.pd, watch.restarts) == (pd, restarts))
                .unwrap_or(Watch {
                    pd,
                    restarts,
                    due_us: now_us.saturating_add(START_US),
                })
        });
        self.watch.map(|watch| watch.due_us)
    }

    /// The server that is watched and should be ready by this time, if it is not: a start that hangs is no better than one
    /// that faults.
    pub fn overdue(&mut self, now_us: u64) -> Option<Told> {
        let watch = self.watch.take_if(|watch| watch.due_us <= now_us)?;
        let patient = self.patient(watch.pd)?;
        let hangs = patient.life == Life::Recovering && patient.restarts == watch.restarts;
        hangs.then(|| {
            patient.life = Life::GivenUp;
            died(watch.pd, Cause::Silence, Treatment::GiveUp)
        })
    }

    /// The server is about to fault for a test.
    pub fn crashing(&mut self, pd: u16) {
        if let Some(patient) = self.patient(pd) {
            patient.crash_asked = true;
        }
    }

    /// What the last request wants done.
    pub fn deed(&mut self) -> Option<Deed> {
        self.deed.take()
    }

    /// The service of the medic's endpoint: for its servers, and for the supervisor.
    pub fn desk(&mut self) -> Desk<'_> {
        Desk(self)
    }
}

impl Patient {
    fn restart(&mut self) -> Treatment {
        self.life = Life::Recovering;
        self.restarts = self.restarts.saturating_add(1);
        Treatment::Restart(self.restarts)
    }
}

const fn died(pd: u16, cause: Cause, treatment: Treatment) -> Told {
    Told::Died {
        pd,
        cause,
        treatment,
    }
}

/// What servers say, and the supervisor asks for.
#[derive(Debug)]
pub struct Desk<'a>(&'a mut Medic);

impl Desk<'_> {
    /// Only the supervisor may ask for a death; what it may be asked for itself it has checked.
    fn strike(&mut self, call: Call, pd: u16, deed: fn(u16) -> Deed) -> Result<(), Refusal> {
        if call.badge.index != pd::ROOT {
            return Err(Rule::NotGranted.into());
        }
        if !self.0.can_be_killed(pd) {
            return Err(Refusal::new(Rule::BadArgument, 0));
        }
        self.0.deed = Some(deed(pd));
        Ok(())
    }
}

impl Service for Desk<'_> {
    fn ready(&mut self, call: Call) -> Result<Reply<ReadyReply>, Refusal> {
        let pd = call.badge.index;
        let patient = self.0.patient(pd).ok_or(Rule::UnknownBadge)?;
        if matches!(patient.life, Life::Starting | Life::Recovering) {
            patient.life = Life::Ready;
            self.0.deed = Some(Deed::Tell(Told::Ready { pd }));
        }
        Ok(Reply::Now(ReadyReply {}))
    }

    fn exit(&mut self, call: Call, code: u32) -> Result<Reply<ExitReply>, Refusal> {
        let pd = call.badge.index;
        let patient = self.0.patient(pd).ok_or(Rule::UnknownBadge)?;
        patient.life = Life::Left;
        self.0.deed = Some(Deed::Tell(Told::Exit { pd, code }));
        Ok(Reply::Later)
    }

    fn kill(&mut self, call: Call, pd: u16) -> Result<Reply<KillReply>, Refusal> {
        self.strike(call, pd, Deed::Kill)?;
        Ok(Reply::Now(KillReply {}))
    }

    fn suspend(
        &mut self,
        _call: Call,
        _pd: u16,
        _switch: Switch,
    ) -> Result<Reply<SuspendReply>, Refusal> {
        Err(Rule::NotGranted.into())
    }

    fn crash(&mut self, call: Call, pd: u16) -> Result<Reply<CrashReply>, Refusal> {
        self.strike(call, pd, Deed::Crash)?;
        Ok(Reply::Now(CrashReply {}))
    }

    fn fail(&mut self, call: Call, pd: u16) -> Result<Reply<FailReply>, Refusal> {
        self.strike(call, pd, Deed::Fail)?;
        Ok(Reply::Now(FailReply {}))
    }

    fn hang(&mut self, call: Call, pd: u16) -> Result<Reply<HangReply>, Refusal> {
        self.strike(call, pd, Deed::Hang)?;
        Ok(Reply::Now(HangReply {}))
    }

    fn chaos(
        &mut self,
        _call: Call,
        _pd: u16,
        _seed: u64,
        _kills: u32,
        _span: u32,
    ) -> Result<Reply<ChaosReply>, Refusal> {
        Err(Rule::NotGranted.into())
    }

    fn deaths(&mut self, _call: Call, _pd: u16) -> Result<Reply<DeathsReply>, Refusal> {
        Err(Rule::NotGranted.into())
    }
}

#[cfg(test)]
mod tests;
