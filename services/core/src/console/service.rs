//! [`Console`]: the service. Rings are drained in turns, a bounded part of each, so that no PD keeps another's
//! text back.

use core::fmt::Write;

use heapless::{String, Vec};
use ipc_proto::console::{FlushReply, Service};
use ipc_proto::log::{LogRing, RING_TEXT};
use ipc_proto::{Call, Refusal, Reply, Rule};

use super::assembler::write_line;
use super::{Assembler, Output};
use crate::MAX_PDS;

/// Most bytes that are taken out of one ring in one turn.
pub const TURN_BYTES: usize = 512;

/// One PD's text.
struct Source<'r> {
    name: &'r str,
    ring: &'r LogRing,
    assembler: Assembler,
}

impl Source<'_> {
    /// Moves at most `most` bytes on; how many there were.
    fn drain(&mut self, most: usize, output: &mut impl Output) -> usize {
        let mut bytes = [0; TURN_BYTES];
        let mut moved = 0;
        while moved < most {
            let room = bytes.len().min(most - moved);
            let count = bytes
                .get_mut(..room)
                .map_or(0, |bytes| self.ring.read(bytes));
            self.assembler
                .push(self.name, bytes.get(..count).unwrap_or(&[]), output);
            moved += count;
            if count < room {
                break;
            }
        }
        let dropped = self.ring.take_dropped();
        if dropped != 0 {
            self.assembler.finish(self.name, output);
            let mut notice: String<48> = String::new();
            // Long enough for any number.
            let _ = write!(notice, "[{dropped} bytes of text were lost]");
            write_line(self.name, notice.as_bytes(), output);
        }
        moved
    }
}

/// The console service.
pub struct Console<'r, O: Output> {
    sources: Vec<Source<'r>, MAX_PDS>,
    output: O,
}

impl<'r, O: Output> Console<'r, O> {
    /// The service for these PDs, in the order of their numbers; those past [`MAX_PDS`] are left out.
    pub fn new(pds: impl Iterator<Item = (&'r str, &'r LogRing)>, output: O) -> Self {
        let sources = pds.take(MAX_PDS).map(|(name, ring)| Source {
            name,
            ring,
            assembler: Assembler::new(),
        });
        Self {
            sources: sources.collect(),
            output,
        }
    }

    /// Drains a part of every ring; whether there is more.
    pub fn turn(&mut self) -> bool {
        let mut more = false;
        for source in &mut self.sources {
            more |= source.drain(TURN_BYTES, &mut self.output) == TURN_BYTES;
        }
        more
    }
}

impl<O: Output> Service for Console<'_, O> {
    /// All that was in the caller's ring when it called is written; a line without end is ended.
    fn flush(&mut self, call: Call) -> Result<Reply<FlushReply>, Refusal> {
        let unknown = Refusal::new(Rule::UnknownBadge, call.badge.to_word());
        let source = self
            .sources
            .get_mut(usize::from(call.badge.index))
            .ok_or(unknown)?;
        // No ring holds more, however fast its PD writes.
        source.drain(RING_TEXT, &mut self.output);
        source.assembler.finish(source.name, &mut self.output);
        Ok(Reply::Now(FlushReply {}))
    }
}
