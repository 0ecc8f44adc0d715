//! The supervisor: what becomes of a PD that faults, exits or is stopped, and
//! when a run is over. A state machine; what it does to the world goes through
//! [`Hands`], so that it runs the same under test.
//!
//! Messages only change states ([`Supervisor::fault`], and the methods of
//! [`ipc_proto::supervisor::Service`] through [`Desk`]). The caller is answered, and
//! then [`Supervisor::work`] does what has become possible, one step a PD at a time:
//!
//! 1. stop the thread: no new requests;
//! 2. every pci-server shard: tell what the client holds, `ClientGone`;
//! 3. wait until the shards owe nothing (they signal; nobody waits in a call);
//! 4. iommu-server, msi-server shards: `ClientGone`;
//! 5. take the PD's memory back: begun here, and told of when it is over ([`Supervisor::reclaimed`]).
//!
//! A server that is suspended for a test is not called; the step waits for it. Server shards that die are restarted by
//! the medic ([`crate::medic`]), which tells ([`Supervisor::told`]); a step that a restart broke off is taken again when
//! the server is ready. A server that died for good is never called again: what it served stays out of circulation. A shard
//! that was given up refuses everything, and the rest of the system goes on; without any other server nothing does.

mod desk;
mod down;
pub mod figures;
mod hands;
mod restart;
#[cfg(test)]
mod tests;

pub use desk::Desk;
pub use hands::{Hands, Power, Strike, Verdict};

use core::fmt;

use down::Dying;
use figures::{Figures, compare};
use heapless::{String, Vec};
use ipc_proto::Switch;
use restart::{Chaos, Record};
use system::layout::{MAX_PDS, event};
use system::model::{End, Name};

use crate::plan::Kind;

/// A PD, as the supervisor needs to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ward {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Does the run wait for it to finish?
    pub must_finish: bool,
    /// Is its fault expected?
    pub may_fault: bool,
}

/// Why a PD ended.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Ending {
    Exit(u32),
    /// With the first words of what happened.
    Fault(String<64>),
    /// A test asked for it.
    Killed,
    /// The run is over.
    RunOver,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Life {
    /// Has not said that it is ready.
    Starting,
    Running,
    /// Stopped for a test, can go on.
    Suspended,
    Dying(Dying),
    /// A server shard that refuses everything, since it died too often.
    GivenUp,
    /// A server that faulted, or a client that could not be taken down: its memory stays its own.
    Broken,
    Gone,
}

/// What the description says about the run as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Allow test operations.
    pub testing: bool,
    /// Faults of a server shard that are put up with (without a minute in between); 0: servers are not restarted.
    pub restarts: u8,
    /// When the run ends.
    pub end: End,
}

/// A change that a test asked for and that `work` has yet to carry out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Switching {
    pd: u16,
    to: Switch,
}

/// The supervisor's state.
#[derive(Debug)]
pub struct Supervisor {
    wards: Vec<(Ward, Life), MAX_PDS>,
    /// What is known of each ward's deaths, in the same order.
    records: Vec<Record, MAX_PDS>,
    rules: Rules,
    /// The first thing that went wrong.
    failure: Option<String<120>>,
    before: Option<Figures>,
    switching: Option<Switching>,
    /// A server shard that a test wants dead.
    strike: Option<(u16, Strike)>,
    chaos: Option<Chaos>,
    /// Has a shard signalled that it owes nothing? Asked about in `work`.
    shards_signalled: bool,
    over: Over,
}

/// How far the end of the run has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    No,
    /// Clients that need not finish are being taken down.
    Closing,
    Ended,
}

impl Supervisor {
    /// The supervisor of these PDs, in order of their numbers from 1 on.
    ///
    /// # Errors
    /// There are more than [`MAX_PDS`].
    pub fn new(wards: impl Iterator<Item = Ward>, rules: Rules) -> Result<Self, &'static str> {
        let (mut list, mut records) = (Vec::new(), Vec::new());
        for ward in wards {
            list.push((ward, Life::Starting))
                .ok()
                .and_then(|()| records.push(Record::default()).ok())
                .ok_or("more PDs than the supervisor has room for")?;
        }
        Ok(Self {
            wards: list,
            records,
            rules,
            failure: None,
            before: None,
            switching: None,
            strike: None,
            chaos: None,
            shards_signalled: false,
            over: Over::No,
        })
    }

    /// Has the PD said that it is ready (or ended since)?
    #[must_use]
    pub fn is_started(&self, pd: u16) -> bool {
        self.life(pd).is_some_and(|life| *life != Life::Starting)
    }

    /// Has a server died, so that nothing can start any more?
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.wards
            .iter()
            .any(|(ward, life)| ward.kind.is_server() && *life == Life::Broken)
    }

    /// Keeps the resources in use before the first client starts, and prints them.
    pub fn remember_figures<H: Hands>(&mut self, hands: &mut H) {
        let figures = hands.figures();
        figures.tell("before", hands);
        self.before = Some(figures);
    }

    /// A PD faulted; `what` says how. It does not run any more. To be printed in full by the caller.
    pub fn fault(&mut self, pd: u16, what: fmt::Arguments<'_>) {
        let mut text = String::new();
        // A long text is cut.
        let _ = fmt::write(&mut Cut(&mut text), what);
        self.ends(pd, Ending::Fault(text));
    }

    /// Signals arrived on the supervisor's notification: event flags, ORed together.
    pub fn signalled(&mut self, flags: u64) {
        let any = (0..8).fold(0, |all, shard| all | event::SHARD_DONE << shard);
        self.shards_signalled |= flags & any != 0;
    }

    fn index(&self, pd: u16) -> Option<usize> {
        usize::from(pd)
            .checked_sub(1)
            .filter(|index| *index < self.wards.len())
    }

    fn life(&self, pd: u16) -> Option<&Life> {
        self.wards.get(self.index(pd)?).map(|(_, life)| life)
    }

    /// A PD's work is over. A second ending of the same PD changes nothing.
    fn ends(&mut self, pd: u16, ending: Ending) {
        let Some((ward, life)) = self.index(pd).and_then(|index| self.wards.get_mut(index)) else {
            return;
        };
        if matches!(life, Life::Dying(_) | Life::Broken | Life::Gone) {
            return;
        }
        let name = &ward.name;
        let mut failure: String<120> = String::new();
        let mut fail = |what: fmt::Arguments<'_>| {
            let _ = fmt::write(&mut Cut(&mut failure), what);
        };
        match (&ending, ward.kind.is_server()) {
            (Ending::Fault(what), true) => fail(format_args!("server {name} died: {what}")),
            (Ending::Exit(code), true) => {
                fail(format_args!("server {name} ended with code {code}"))
            }
            (Ending::Fault(what), false) if !ward.may_fault => {
                fail(format_args!("{name} died: {what}"))
            }
            (Ending::Exit(code), false) if *code != 0 => {
                fail(format_args!("{name} ended with code {code}"))
            }
            _ => {}
        }
        *life = if ward.kind.is_server() {
            Life::Broken
        } else {
            Life::Dying(Dying::new(ending))
        };
        if !failure.is_empty() && self.failure.is_none() {
            self.failure = Some(failure);
        }
    }

    fn fail<H: Hands>(&mut self, hands: &mut H, what: fmt::Arguments<'_>) {
        hands.say(what);
        if self.failure.is_none() {
            let mut text = String::new();
            let _ = fmt::write(&mut Cut(&mut text), what);
            self.failure = Some(text);
        }
    }

    /// Does everything that has become possible. Call after each message has been answered.
    pub fn work<H: Hands>(&mut self, hands: &mut H) {
        if self.over == Over::Ended {
            return;
        }
        if let Some(Switching { pd, to }) = self.switching.take() {
            match to {
                Switch::Off => hands.stop(pd),
                Switch::On => hands.resume(pd),
            }
        }
        if let Some((pd, how)) = self.strike.take() {
            hands.strike(pd, how);
        }
        if self.is_broken() {
            self.finish(hands);
            return;
        }
        self.arm_chaos(hands);
        for index in 0..self.wards.len() {
            self.take_down(index, hands);
        }
        self.shards_signalled = false;
        self.look_for_the_end(hands);
    }

    fn look_for_the_end<H: Hands>(&mut self, hands: &mut H) {
        // Before the first client there is no run that could end.
        if self.before.is_none() {
            return;
        }
        let ended = |life: &Life| matches!(life, Life::Gone | Life::Broken);
        let clients = || self.wards.iter().filter(|(ward, _)| !ward.kind.is_server());
        let finished = clients()
            .filter(|(ward, _)| ward.must_finish)
            .all(|(_, life)| ended(life));
        if self.rules.end == End::Finished && self.over == Over::No && finished {
            self.over = Over::Closing;
            for index in 0..self.wards.len() {
                let client = self
                    .wards
                    .get(index)
                    .is_some_and(|(ward, _)| !ward.kind.is_server());
                if client {
                    self.ends(index as u16 + 1, Ending::RunOver);
                    self.take_down(index, hands);
                }
            }
        }
        let clients = || self.wards.iter().filter(|(ward, _)| !ward.kind.is_server());
        if clients().count() > 0 && clients().all(|(_, life)| ended(life)) {
            self.finish(hands);
        }
    }

    /// Compares resources and ends the run.
    fn finish<H: Hands>(&mut self, hands: &mut H) {
        self.over = Over::Ended;
        let whole = |(_, life): &(Ward, Life)| *life != Life::GivenUp;
        let complete = !self.is_broken() && self.wards.iter().all(whole);
        if let Some(before) = self.before.take().filter(|_| complete) {
            let after = hands.figures();
            after.tell("after", hands);
            if let Err(first) = compare(&before, &after, hands) {
                let failed = format_args!("resources were not returned: {first}");
                if self.failure.is_none() {
                    let mut text = String::new();
                    let _ = fmt::write(&mut Cut(&mut text), failed);
                    self.failure = Some(text);
                }
            }
        }
        let verdict = self
            .failure
            .as_ref()
            .map_or(Verdict::Pass, |failure| Verdict::Fail(failure));
        let power = match self.rules.end {
            End::Never => Power::On,
            End::Finished => Power::Off,
        };
        hands.end(verdict, power);
    }

    /// The service of the supervisor's endpoint.
    pub fn desk(&mut self) -> Desk<'_> {
        Desk(self)
    }
}

/// A text that takes what fits and drops the rest, at a character's border.
struct Cut<'a, const N: usize>(&'a mut String<N>);

impl<const N: usize> fmt::Write for Cut<'_, N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.push(character).is_err() {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}
