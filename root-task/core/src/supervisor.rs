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
//! 5. take the PD's memory back.
//!
//! A server that is suspended for a test is not called; the step waits for it. A
//! server that died is never called again: what it served stays out of circulation.

mod desk;
pub mod figures;
mod hands;
#[cfg(test)]
mod tests;

pub use desk::Desk;
pub use hands::{Hands, Power, Verdict};

use core::fmt;

use figures::{Figures, compare};
use heapless::{String, Vec};
use ipc_proto::{ClientId, Refusal, Switch};
use system::layout::{MAX_PDS, MAX_SHARDS, event};
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

/// How far taking a client down has come. Sets of shards are bits.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Dying {
    ending: Ending,
    stopped: bool,
    pci_asked: u16,
    pci_done: u16,
    iommu_done: u16,
    msi_done: u16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Life {
    /// Has not said that it is ready.
    Starting,
    Running,
    /// Stopped for a test, can go on.
    Suspended,
    Dying(Dying),
    /// A server that faulted, or a client that could not be taken down: its memory stays its own.
    Broken,
    Gone,
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
    testing: bool,
    end: End,
    /// The first thing that went wrong.
    failure: Option<String<120>>,
    before: Option<Figures>,
    switching: Option<Switching>,
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

/// How a shard answered.
enum Step {
    Done,
    /// It still owes something, or was not asked again.
    Waits,
}

/// One round of steps with the servers, layer by layer: a layer is begun when the one before is done.
#[derive(Default)]
struct Round {
    open: bool,
    refused: Option<(&'static str, u8, Refusal)>,
}

impl Round {
    /// Takes the step with every shard of a layer that is not in `done`; one that cannot be called now keeps the
    /// round open.
    fn go(
        &mut self,
        shards: &[(u8, bool)],
        server: &'static str,
        done: &mut u16,
        mut step: impl FnMut(u8) -> Result<Step, Refusal>,
    ) {
        if self.open || self.refused.is_some() {
            return;
        }
        for (shard, can_be_called) in shards {
            let bit = 1 << shard;
            if *done & bit != 0 {
                continue;
            }
            match can_be_called.then(|| step(*shard)) {
                Some(Ok(Step::Done)) => *done |= bit,
                Some(Ok(Step::Waits)) | None => self.open = true,
                Some(Err(refusal)) => self.refused = Some((server, *shard, refusal)),
            }
        }
    }
}

impl Supervisor {
    /// The supervisor of these PDs, in order of their numbers from 1 on.
    ///
    /// # Errors
    /// There are more than [`MAX_PDS`].
    pub fn new(
        wards: impl Iterator<Item = Ward>,
        testing: bool,
        end: End,
    ) -> Result<Self, &'static str> {
        let mut list = Vec::new();
        for ward in wards {
            list.push((ward, Life::Starting))
                .map_err(|_| "more PDs than the supervisor has room for")?;
        }
        Ok(Self {
            wards: list,
            testing,
            end,
            failure: None,
            before: None,
            switching: None,
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
            Life::Dying(Dying {
                ending,
                stopped: false,
                pci_asked: 0,
                pci_done: 0,
                iommu_done: 0,
                msi_done: 0,
            })
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
        if self.is_broken() {
            self.finish(hands);
            return;
        }
        for index in 0..self.wards.len() {
            self.take_down(index, hands);
        }
        self.shards_signalled = false;
        self.look_for_the_end(hands);
    }

    /// Numbers of the shards of a kind, and whether each can be called now.
    fn shards(&self, number: impl Fn(Kind) -> Option<u8>) -> Vec<(u8, bool), MAX_SHARDS> {
        let mut shards = Vec::new();
        for (ward, life) in &self.wards {
            if let Some(shard) = number(ward.kind) {
                // A plan has at most this many shards of a kind.
                let _ = shards.push((shard, *life == Life::Running));
            }
        }
        shards
    }

    /// The next steps of taking one client down, as far as they go without waiting.
    fn take_down<H: Hands>(&mut self, index: usize, hands: &mut H) {
        let (client, mut dying) = match self.wards.get(index) {
            Some((
                Ward {
                    kind: Kind::Client(id),
                    ..
                },
                Life::Dying(dying),
            )) => (ClientId(*id), dying.clone()),
            _ => return,
        };
        if !dying.stopped {
            hands.stop(index as u16 + 1);
            hands.disown(index as u16 + 1);
            dying.stopped = true;
        }
        let mut round = Round::default();
        let pci = self.shards(|kind| {
            if let Kind::Pci(shard) = kind {
                Some(shard)
            } else {
                None
            }
        });
        let signalled = self.shards_signalled;
        let asked = &mut dying.pci_asked;
        round.go(&pci, "pci-server", &mut dying.pci_done, |shard| {
            if *asked & 1 << shard == 0 {
                hands.tell_held(shard, client);
                hands.pci_gone(shard, client)?;
                *asked |= 1 << shard;
            } else if !signalled {
                return Ok(Step::Waits);
            }
            Ok(if hands.pci_pending(shard)? == 0 {
                Step::Done
            } else {
                Step::Waits
            })
        });
        let iommu = self.shards(|kind| {
            if let Kind::Iommu(shard) = kind {
                Some(shard)
            } else {
                None
            }
        });
        round.go(&iommu, "iommu-server", &mut dying.iommu_done, |shard| {
            hands.iommu_gone(shard, client).map(|()| Step::Done)
        });
        let msi = self.shards(|kind| {
            if let Kind::Msi(shard) = kind {
                Some(shard)
            } else {
                None
            }
        });
        let mut left = 0;
        round.go(&msi, "msi-server", &mut dying.msi_done, |shard| {
            left += hands.msi_gone(shard, client)?;
            Ok(Step::Done)
        });
        if left > 0 {
            self.fail(
                hands,
                format_args!("{left} vectors were left with client {}", client.0),
            );
        }
        let next = if let Some((server, shard, refusal)) = round.refused {
            let client = client.0;
            self.fail(
                hands,
                format_args!("{server}-{shard} does not let go of client {client}: {refusal}"),
            );
            Life::Broken
        } else if round.open {
            Life::Dying(dying)
        } else {
            self.gone(index, &dying.ending, hands)
        };
        if let Some((_, life)) = self.wards.get_mut(index) {
            *life = next;
        }
    }

    /// The last step: nothing refers to the client any more.
    fn gone<H: Hands>(&mut self, index: usize, ending: &Ending, hands: &mut H) -> Life {
        let result = hands.reclaim(index as u16 + 1);
        let Some(name) = self.wards.get(index).map(|(ward, _)| ward.name.clone()) else {
            return Life::Broken;
        };
        match ending {
            Ending::Exit(code) => hands.say(format_args!("@gone {name} exit {code}")),
            Ending::Fault(what) => hands.say(format_args!("@gone {name} fault {what}")),
            Ending::Killed => hands.say(format_args!("@gone {name} killed")),
            Ending::RunOver => hands.say(format_args!("@gone {name} stopped")),
        }
        match result {
            Ok(()) => Life::Gone,
            Err(reason) => {
                self.fail(hands, format_args!("{name}: {reason}"));
                Life::Broken
            }
        }
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
        if self.end == End::Finished && self.over == Over::No && finished {
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
        if let Some(before) = self.before.take().filter(|_| !self.is_broken()) {
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
        let power = match self.end {
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
