//! Taking a client down, step by step: [`Dying`] says how far it has come, [`Supervisor::take_down`] takes the
//! steps that have become possible.

use heapless::Vec;
use ipc_proto::{ClientId, Refusal, Rule};
use system::layout::MAX_SHARDS;

use super::{Ending, Hands, Life, Supervisor, Ward};
use crate::plan::Kind;

/// How far taking a client down has come. Sets of shards are bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Dying {
    ending: Ending,
    stopped: bool,
    /// Shards for which it was printed what the client holds.
    pci_told: u16,
    pci_asked: u16,
    pci_done: u16,
    iommu_done: u16,
    msi_done: u16,
    /// Its memory is being taken back.
    reclaiming: bool,
}

impl Dying {
    /// Nothing has been done yet.
    pub(super) const fn new(ending: Ending) -> Self {
        Self {
            ending,
            stopped: false,
            pci_told: 0,
            pci_asked: 0,
            pci_done: 0,
            iommu_done: 0,
            msi_done: 0,
            reclaiming: false,
        }
    }

    /// A pci-server shard was restarted: it is asked again, whatever it had answered.
    pub(super) const fn ask_again(&mut self, shard: u8) {
        self.pci_asked &= !(1 << shard);
    }
}

/// Can a shard be called?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Callable {
    Now,
    /// It is stopped for a test.
    Later,
    /// It refuses everything.
    Never,
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
    /// round open, and one that never can ends it when the others of its layer have answered.
    fn go(
        &mut self,
        shards: &[(u8, Callable)],
        server: &'static str,
        done: &mut u16,
        mut step: impl FnMut(u8) -> Result<Step, Refusal>,
    ) {
        if self.open || self.refused.is_some() {
            return;
        }
        for (shard, callable) in shards {
            let bit = 1 << shard;
            if *done & bit != 0 {
                continue;
            }
            let answer = match callable {
                Callable::Now => step(*shard),
                Callable::Later => Ok(Step::Waits),
                Callable::Never => Err(Rule::ServerBroken.into()),
            };
            match answer {
                Ok(Step::Done) => *done |= bit,
                Ok(Step::Waits) => self.open = true,
                // It was restarted meanwhile, and tells when it is ready.
                Err(refusal) if refusal.rule == Rule::Restarted => self.open = true,
                // It was given up meanwhile, or before: what the others owe is waited for all the same.
                Err(refusal) => self.refused = Some((server, *shard, refusal)),
            }
        }
    }
}

impl Supervisor {
    /// Numbers of the shards of a kind, and whether each can be called now.
    fn shards(&self, number: impl Fn(Kind) -> Option<u8>) -> Vec<(u8, Callable), MAX_SHARDS> {
        let mut shards = Vec::new();
        for (ward, life) in &self.wards {
            if let Some(shard) = number(ward.kind) {
                // A plan has at most this many shards of a kind.
                let callable = match life {
                    Life::Running => Callable::Now,
                    Life::GivenUp => Callable::Never,
                    _ => Callable::Later,
                };
                let _ = shards.push((shard, callable));
            }
        }
        shards
    }

    /// The next steps of taking one client down, as far as they go without waiting.
    pub(super) fn take_down<H: Hands>(&mut self, index: usize, hands: &mut H) {
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
        if dying.reclaiming {
            return;
        }
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
        let (told, asked) = (&mut dying.pci_told, &mut dying.pci_asked);
        round.go(&pci, "pci-server", &mut dying.pci_done, |shard| {
            if *told & 1 << shard == 0 {
                hands.tell_held(shard, client);
                *told |= 1 << shard;
            }
            if *asked & 1 << shard == 0 {
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
        let next = if round.open {
            Life::Dying(dying)
        } else if let Some((server, shard, refusal)) = round.refused {
            let client = client.0;
            self.fail(
                hands,
                format_args!("{server}-{shard} does not let go of client {client}: {refusal}"),
            );
            Life::Broken
        } else {
            match hands.reclaim(index as u16 + 1) {
                Ok(()) => {
                    dying.reclaiming = true;
                    Life::Dying(dying)
                }
                Err(reason) => self.gone(index, &dying.ending, Err(reason), hands),
            }
        };
        if let Some((_, life)) = self.wards.get_mut(index) {
            *life = next;
        }
    }

    /// The memory of a PD was taken back, or not, for this reason. Call [`Supervisor::work`] afterwards.
    pub fn reclaimed<H: Hands>(
        &mut self,
        pd: u16,
        result: Result<(), &'static str>,
        hands: &mut H,
    ) {
        let Some(index) = self.index(pd) else {
            return;
        };
        let ending = match self.wards.get(index) {
            Some((_, Life::Dying(dying))) if dying.reclaiming => dying.ending.clone(),
            _ => return,
        };
        let next = self.gone(index, &ending, result, hands);
        if let Some((_, life)) = self.wards.get_mut(index) {
            *life = next;
        }
    }

    /// The end: nothing refers to the client any more.
    fn gone<H: Hands>(
        &mut self,
        index: usize,
        ending: &Ending,
        result: Result<(), &'static str>,
        hands: &mut H,
    ) -> Life {
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
}
