//! [`Meters`]: vectors that the shard keeps to itself and passes on, for clients whose description says `interrupt_rate`.
//!
//! Each has a flag of the shard's own notification. When it is raised the shard counts, and signals the client what it has
//! named for the message ([`Shard::bind`]). What comes more often than the rate allows is a storm: the kernel is
//! told to drop the vector at once, which does not depend on anybody else's turn; then the pci-server, which switches the message
//! off at the device and tells the holder; and nothing is passed on until the holder lets it come again ([`Shard::resume`]).
//! The rate goes on counting over that: who lets a storm come again and again gets no more of it.
//!
//! What it must not do: work for a vector more than once a receive; pass on what is silenced.

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::{Call, ClientId, Messages, Refusal, Rule};
use system::layout::event::MSI_FLAGS;

use crate::rate::{Bucket, Rate};
use crate::shard::{Block, Holder};
use crate::{Env, Shard};

/// How a metered vector stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is passed on.
    Passed,
    /// It came too often: so often since it was let come. Its shard is to be told.
    Trouble(u32),
    /// Its shard knows.
    Told,
}

/// Whether a client has said already what its vector signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Not yet; what another client said before it is forgotten.
    New,
    /// It may have, before the shard was killed.
    Kept,
}

/// A metered vector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    /// As the processor counts.
    vector: u16,
    device: Sbdf,
    message: u16,
    client: ClientId,
    /// pci-server shard that owns the device.
    shard: u16,
    rate: Rate,
    bucket: Bucket,
    /// How often it was raised.
    pub(crate) raised: u64,
    /// Of these, before it was let come the last time.
    earlier: u64,
    standing: Standing,
    /// Has the client said what to signal?
    named: bool,
    /// What it said, for who looks; 0: nothing.
    pub(crate) flags: u64,
}

impl Meter {
    /// Is it passed on?
    pub(crate) fn passes(&self) -> bool {
        self.standing == Standing::Passed
    }
}

/// The metered vectors of a shard, each at the number of its flag.
#[derive(Debug)]
pub(crate) struct Meters {
    list: Vec<Option<Meter>, MSI_FLAGS>,
}

impl Meters {
    /// As many as there are flags which `lines` lines do not need.
    pub(crate) fn new(lines: usize) -> Self {
        let room = MSI_FLAGS.saturating_sub(lines);
        Self {
            list: (0..room).map(|_| None).collect(),
        }
    }

    /// How many there is room for.
    pub(crate) fn room(&self) -> usize {
        self.list.len()
    }

    /// The meter of a vector, as the processor counts.
    pub(crate) fn of(&self, vector: u16) -> Option<&Meter> {
        let mut all = self.list.iter().flatten();
        all.find(|meter| meter.vector == vector)
    }

    fn position(&self, is: impl Fn(&Meter) -> bool) -> Option<usize> {
        let found = |meter: &Option<Meter>| meter.as_ref().is_some_and(&is);
        self.list.iter().position(found)
    }
}

impl<E: Env> Shard<E> {
    /// Meters a vector, which signals the shard from now on.
    pub(crate) fn meter(
        &mut self,
        shard: u16,
        block: &Block,
        vector: u16,
        rate: Rate,
        naming: Naming,
    ) -> Result<(), Refusal> {
        let full = Refusal::new(Rule::MeteredExhausted, self.meters.room() as u64);
        let free = self.meters.list.iter().position(Option::is_none);
        let at = free.ok_or(full)?;
        let number = self.kernel_vector(vector);
        if naming == Naming::New {
            self.env.unname(number);
            self.notes().flags(vector, 0);
        }
        self.env.meter(number, at)?;
        let flags = self.notes().flags_at(vector);
        if let Some(place) = self.meters.list.get_mut(at) {
            *place = Some(Meter {
                vector,
                device: block.device,
                message: block.message_of(vector),
                client: block.client,
                shard,
                rate,
                bucket: Bucket::default(),
                raised: 0,
                earlier: 0,
                standing: Standing::Passed,
                named: naming == Naming::Kept,
                flags,
            });
        }
        Ok(())
    }

    /// Meters again what clients held when the shard was killed. What they named is where it was, flags and counts are new. A
    /// signal may have died with the server, so each is passed on once.
    pub(crate) fn recover_meters(&mut self) {
        for block in self.blocks.clone() {
            let share = self.share(block.client).ok();
            let rate = share.and_then(|share| share.rate);
            let (Some(rate), Holder::Client) = (rate, block.holder) else {
                continue;
            };
            // It is on a bus of one: the block was found sound.
            let shard = self.shard_of(block.device).unwrap_or(0);
            for vector in block.vectors() {
                let number = self.kernel_vector(vector);
                match self.meter(shard, &block, vector, rate, Naming::Kept) {
                    Ok(()) => self.env.pass(number),
                    // Only where the ledger is damaged: it is counted, and reaches nobody.
                    Err(_) => drop(self.env.reclaim(number)),
                }
            }
        }
    }

    /// A vector is metered no more, if it was. It signals the shard no more by its flag.
    pub(crate) fn end_meter(&mut self, vector: u16) {
        let at = self.meters.position(|meter| meter.vector == vector);
        if let Some(at) = at
            && let Some(place) = self.meters.list.get_mut(at)
            && place.take().is_some_and(|meter| meter.named)
        {
            self.env.unname(self.kernel_vector(vector));
        }
    }

    /// The `at`-th metered vector was raised.
    #[inline]
    pub fn on_message(&mut self, at: usize) {
        let Some(Some(meter)) = self.meters.list.get_mut(at) else {
            // It was on its way when the vector was given back.
            return self.on_absorbed();
        };
        meter.raised = meter.raised.wrapping_add(1);
        if meter.standing != Standing::Passed {
            return;
        }
        if meter.bucket.pass(meter.rate, self.env.now_us()) {
            if meter.named {
                let number = meter.vector.wrapping_sub(self.kernel_offset.into());
                self.env.pass(number);
            } else {
                self.on_absorbed();
            }
            return;
        }
        let count = meter.raised.wrapping_sub(meter.earlier);
        meter.standing = Standing::Trouble(u32::try_from(count).unwrap_or(u32::MAX));
        let (vector, shard) = (meter.vector, meter.shard);
        let number = self.kernel_vector(vector);
        self.env.hush(number);
        self.env.tell_shard(shard);
    }

    /// What a metered message signals its client from now on.
    pub(crate) fn bind(
        &mut self,
        call: Call,
        device: Sbdf,
        message: u16,
        flags: u64,
    ) -> Result<(), Refusal> {
        self.check_buses(call, device)?;
        let none = Refusal::new(Rule::NotMetered, message.into());
        let at = self
            .meters
            .position(|meter| meter.device == device && meter.message == message)
            .ok_or(none)?;
        let meter = self.meters.list.get_mut(at).and_then(Option::as_mut);
        let meter = meter.ok_or(none)?;
        // What was named before is forgotten with the attempt.
        (meter.named, meter.flags) = (false, 0);
        let number = meter.vector.wrapping_sub(self.kernel_offset.into());
        self.env.name(number, meter.client, flags)?;
        (meter.named, meter.flags) = (true, flags);
        let vector = meter.vector;
        self.notes().flags(vector, flags);
        Ok(())
    }

    /// Passes metered messages on again; how many of the device's are still not.
    pub(crate) fn resume(
        &mut self,
        call: Call,
        device: Sbdf,
        messages: Messages,
    ) -> Result<u16, Refusal> {
        self.check_buses(call, device)?;
        let wanted = u32::from(messages.first)..messages.end();
        let mut left = 0;
        for at in 0..self.meters.list.len() {
            let Some(Some(meter)) = self.meters.list.get_mut(at) else {
                continue;
            };
            if meter.device != device || meter.standing == Standing::Passed {
                continue;
            }
            if !wanted.contains(&u32::from(meter.message)) {
                left += 1;
                continue;
            }
            let vector = meter.vector;
            let number = self.kernel_vector(vector);
            self.env.meter(number, at)?;
            if let Some(Some(meter)) = self.meters.list.get_mut(at) {
                meter.standing = Standing::Passed;
                meter.earlier = meter.raised;
                if meter.named {
                    self.env.pass(number);
                }
            }
        }
        Ok(left)
    }

    /// A message of the calling shard that is to be switched off.
    pub(crate) fn message_trouble(&mut self, call: Call) -> Result<(Sbdf, u16, u32), Refusal> {
        let own = |meter: &&mut Meter| meter.shard == call.badge.index;
        for meter in self.meters.list.iter_mut().flatten().filter(own) {
            if let Standing::Trouble(count) = meter.standing {
                meter.standing = Standing::Told;
                return Ok((meter.device, meter.message, count));
            }
        }
        Err(Rule::EndOfList.into())
    }
}
