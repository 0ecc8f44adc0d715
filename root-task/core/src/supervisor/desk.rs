//! [`Desk`]: what PDs can ask of the supervisor. A request only changes states;
//! [`Supervisor::work`] acts after its caller was answered.

use ipc_proto::supervisor::{
    ChaosReply, CrashReply, DeathsReply, ExitReply, FailReply, HangReply, KillReply, ReadyReply,
    Service, SuspendReply,
};
use ipc_proto::{Call, Refusal, Reply, Rule, Switch};

use super::restart::{Chaos, Record};
use super::{Ending, Life, Strike, Supervisor, Switching};
use crate::plan::Kind;

/// What PDs can ask of the supervisor.
#[derive(Debug)]
pub struct Desk<'a>(pub(super) &'a mut Supervisor);

impl Desk<'_> {
    /// Is `pd` a PD that a test may stop? Clients always, servers only if they are not called by all.
    fn target(
        &self,
        call: Call,
        pd: u16,
        servers: impl Fn(Kind) -> bool,
    ) -> Result<usize, Refusal> {
        if !self.0.rules.testing {
            return Err(Rule::NotGranted.into());
        }
        let index = self.0.index(pd).ok_or(Refusal::new(Rule::BadArgument, 0))?;
        let (ward, life) = self
            .0
            .wards
            .get(index)
            .ok_or(Refusal::new(Rule::BadArgument, 0))?;
        if pd == call.badge.index || (ward.kind.is_server() && !servers(ward.kind)) {
            return Err(Refusal::new(Rule::BadArgument, 0));
        }
        match life {
            Life::Running | Life::Suspended | Life::Starting => Ok(index),
            Life::Dying(_) | Life::GivenUp | Life::Broken | Life::Gone => {
                Err(Rule::ClientGone.into())
            }
        }
    }

    /// Is `pd` a server shard that a test may have die? Not while it is suspended: it would run again.
    fn shard(&self, call: Call, pd: u16) -> Result<usize, Refusal> {
        let index = self.target(call, pd, Kind::is_shard)?;
        match self.0.wards.get(index) {
            Some((ward, Life::Running)) if ward.kind.is_shard() && self.0.rules.restarts > 0 => {
                Ok(index)
            }
            _ => Err(Refusal::new(Rule::BadArgument, 0)),
        }
    }

    fn strike(&mut self, call: Call, pd: u16, how: Strike) -> Result<(), Refusal> {
        self.shard(call, pd)?;
        self.0.strike = Some((pd, how));
        Ok(())
    }
}

impl Service for Desk<'_> {
    fn ready(&mut self, call: Call) -> Result<Reply<ReadyReply>, Refusal> {
        let index = self.0.index(call.badge.index).ok_or(Rule::UnknownBadge)?;
        if let Some((_, life @ Life::Starting)) = self.0.wards.get_mut(index) {
            *life = Life::Running;
        }
        Ok(Reply::Now(ReadyReply {}))
    }

    fn exit(&mut self, call: Call, code: u32) -> Result<Reply<ExitReply>, Refusal> {
        self.0.ends(call.badge.index, Ending::Exit(code));
        Ok(Reply::Later)
    }

    fn kill(&mut self, call: Call, pd: u16) -> Result<Reply<KillReply>, Refusal> {
        let index = self.target(call, pd, Kind::is_shard)?;
        let is_server = self
            .0
            .wards
            .get(index)
            .is_some_and(|(ward, _)| ward.kind.is_server());
        if is_server {
            self.strike(call, pd, Strike::Kill)?;
        } else {
            self.0.ends(pd, Ending::Killed);
        }
        Ok(Reply::Now(KillReply {}))
    }

    fn crash(&mut self, call: Call, pd: u16) -> Result<Reply<CrashReply>, Refusal> {
        self.strike(call, pd, Strike::Crash)?;
        Ok(Reply::Now(CrashReply {}))
    }

    fn fail(&mut self, call: Call, pd: u16) -> Result<Reply<FailReply>, Refusal> {
        self.strike(call, pd, Strike::Fail)?;
        Ok(Reply::Now(FailReply {}))
    }

    fn hang(&mut self, call: Call, pd: u16) -> Result<Reply<HangReply>, Refusal> {
        self.strike(call, pd, Strike::Hang)?;
        Ok(Reply::Now(HangReply {}))
    }

    fn chaos(
        &mut self,
        call: Call,
        pd: u16,
        seed: u64,
        kills: u32,
        span: u32,
    ) -> Result<Reply<ChaosReply>, Refusal> {
        let victim = if pd == 0 {
            if !self.0.rules.testing || self.0.rules.restarts == 0 {
                return Err(Rule::NotGranted.into());
            }
            None
        } else {
            self.shard(call, pd)?;
            Some(pd)
        };
        self.0.chaos = Some(Chaos::new(victim, seed, kills, span));
        Ok(Reply::Now(ChaosReply {}))
    }

    fn deaths(&mut self, call: Call, pd: u16) -> Result<Reply<DeathsReply>, Refusal> {
        let index = self.target(call, pd, Kind::is_shard)?;
        let left = self.0.chaos.as_ref().map_or(0, |chaos| chaos.left);
        let record = self.0.records.get(index).copied();
        let Record {
            restarts,
            died,
            ready,
        } = record.unwrap_or_default();
        Ok(Reply::Now(DeathsReply {
            restarts,
            died,
            ready,
            left,
        }))
    }

    fn suspend(
        &mut self,
        call: Call,
        pd: u16,
        switch: Switch,
    ) -> Result<Reply<SuspendReply>, Refusal> {
        let index = self.target(call, pd, |kind| matches!(kind, Kind::Pci(_)))?;
        let Some((_, life)) = self.0.wards.get_mut(index) else {
            return Err(Rule::BadArgument.into());
        };
        let next = match (&life, switch) {
            (Life::Running, Switch::Off) => Life::Suspended,
            (Life::Suspended, Switch::On) => Life::Running,
            _ => return Ok(Reply::Now(SuspendReply {})),
        };
        *life = next;
        self.0.switching = Some(Switching { pd, to: switch });
        // What waited for the server can go on.
        self.0.shards_signalled |= switch == Switch::On;
        Ok(Reply::Now(SuspendReply {}))
    }
}
