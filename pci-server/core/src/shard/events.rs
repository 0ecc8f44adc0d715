//! What a client is told about devices: a bounded queue a client. A signal says that
//! there is something, `EventNext` what. Nobody waits: when a queue is full its oldest event
//! makes room, and the next one to be read says how many are missing before it.

use heapless::Deque;
use hw::Sbdf;
use ipc_proto::pci::EventNextReply;
use ipc_proto::{Call, ClientId, EventKind, Refusal, Rule};
use system::model::MAX_CLIENTS;

use super::Shard;
use crate::env::{Env, Signals};

/// Events of a client that wait to be read.
pub const MAX_EVENTS: usize = 32;

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// To which device.
    pub device: Sbdf,
    /// What it means stands with the kind.
    pub detail: u64,
}

/// Events of one client, oldest first.
#[derive(Debug)]
struct Queue {
    events: Deque<Event, MAX_EVENTS>,
    /// Events that made room since the last one was read.
    lost: u32,
}

/// A queue for each client of the shard.
#[derive(Debug)]
pub struct Events {
    queues: [Queue; MAX_CLIENTS],
}

impl Events {
    /// Nothing has happened.
    #[must_use]
    pub const fn new() -> Self {
        const EMPTY: Queue = Queue {
            events: Deque::new(),
            lost: 0,
        };
        Self {
            queues: [EMPTY; MAX_CLIENTS],
        }
    }

    /// Appends an event to the client's queue and signals the client.
    pub fn tell<S: Signals>(&mut self, signals: &mut S, client: ClientId, event: Event) {
        let Some(queue) = self.queues.get_mut(usize::from(client.0)) else {
            return;
        };
        if queue.events.is_full() {
            queue.events.pop_front();
            queue.lost = queue.lost.saturating_add(1);
        }
        // There is room now.
        let _ = queue.events.push_back(event);
        signals.tell_client(client);
    }

    /// Events of the client were lost with the shard that was restarted: it is told to look, and its next event says so.
    pub(super) fn lose<S: Signals>(&mut self, signals: &mut S, client: ClientId) {
        if let Some(queue) = self.queues.get_mut(usize::from(client.0)) {
            queue.lost = queue.lost.saturating_add(1);
            signals.tell_client(client);
        }
    }

    /// The oldest event, and how many before it are missing.
    fn next(&mut self, client: ClientId) -> Option<(Event, u32)> {
        let queue = self.queues.get_mut(usize::from(client.0))?;
        let event = queue.events.pop_front()?;
        Some((event, core::mem::take(&mut queue.lost)))
    }

    /// Forgets what a client that is gone did not read.
    pub(super) fn forget(&mut self, client: ClientId) {
        if let Some(queue) = self.queues.get_mut(usize::from(client.0)) {
            queue.events.clear();
            queue.lost = 0;
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Env> Shard<'_, E> {
    /// Tells every client of a set.
    pub(super) fn tell_all(&mut self, clients: u32, kind: EventKind, at: Sbdf, detail: u64) {
        for client in (0..32u16).filter(|client| clients >> client & 1 != 0) {
            self.tell(ClientId(client), kind, at, detail);
        }
    }

    /// Tells a client that something happened to a device. A client that is being taken down is told nothing.
    pub(super) fn tell(&mut self, client: ClientId, kind: EventKind, device: Sbdf, detail: u64) {
        if client.0 < 32 && self.gone >> client.0 & 1 != 0 {
            return;
        }
        let event = Event {
            kind,
            device,
            detail,
        };
        self.events.tell(&mut self.env, client, event);
    }

    pub(super) fn next_event(&mut self, call: Call) -> Result<EventNextReply, Refusal> {
        let client = self.client(call)?;
        let (event, lost) = self.events.next(client).ok_or(Rule::EndOfList)?;
        Ok(EventNextReply {
            event: event.kind,
            device: event.device,
            detail: event.detail,
            lost,
        })
    }
}
