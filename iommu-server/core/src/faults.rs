//! Faults on their way to clients ([`FaultQueue`]), how fast they are read from
//! a unit ([`Gate`]), and when a device has had too many ([`Storm`]).
//!
//! A device can fault as fast as it can issue requests. Each record costs the
//! server time at a high priority, so a unit is read [`FAULT_BURST`] records
//! every [`FAULT_PERIOD_US`]; what comes faster stays unread, which keeps the
//! unit silent, until the time is over. The unit counts nothing meanwhile: it
//! only says that some were dropped.

use heapless::Deque;

use crate::backend::Fault;

/// Records kept a client.
pub const MAX_RECORDS: usize = 16;
/// Records read from a unit in a period.
pub const FAULT_BURST: u32 = 64;
/// The period, in microseconds.
pub const FAULT_PERIOD_US: u64 = 10_000;

/// Faults of a device that are too many, when nothing else is said.
pub const FAULT_BOUND: u32 = 10;
/// A device that has been quiet for so long has half of its faults forgiven, in microseconds.
pub const FORGIVEN_US: u64 = 1_000_000;

/// A device's faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Storm {
    count: u32,
    latest_us: u64,
}

impl Storm {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            count: 0,
            latest_us: 0,
        }
    }

    /// Counts one at `now_us`; returns how many there are.
    pub fn count(&mut self, now_us: u64) -> u32 {
        if now_us.saturating_sub(self.latest_us) >= FORGIVEN_US {
            self.count /= 2;
        }
        self.latest_us = now_us;
        self.count = self.count.saturating_add(1);
        self.count
    }

    /// When the latest was.
    pub fn latest_us(&self) -> u64 {
        self.latest_us
    }
}

/// A client's unread records, oldest first.
pub struct FaultQueue {
    records: Deque<(Fault, u32), MAX_RECORDS>,
    lost: u32,
}

impl FaultQueue {
    /// No records.
    pub const fn new() -> Self {
        Self {
            records: Deque::new(),
            lost: 0,
        }
    }

    /// Adds a record, or counts it as lost when there is no room.
    pub fn push(&mut self, fault: Fault) {
        if self.records.push_back((fault, self.lost)).is_ok() {
            self.lost = 0;
        } else {
            self.count_lost();
        }
    }

    /// Counts a record that nobody saw.
    pub fn count_lost(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    /// The oldest record, and how many were lost between it and the one before.
    ///
    /// # Errors
    /// There is none; how many were lost since the last.
    pub fn pop(&mut self) -> Result<(Fault, u32), u32> {
        self.records
            .pop_front()
            .ok_or_else(|| core::mem::take(&mut self.lost))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.records.clear();
        self.lost = 0;
    }
}

/// What may be read from a unit now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gate {
    period_began_us: u64,
    read: u32,
    /// The unit waits for [`Self::resumes_in`].
    waiting: Waiting,
}

/// Whether a unit's records wait to be read later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// No.
    No,
    /// Yes: a storm.
    Yes,
}

impl Gate {
    /// Nothing was read yet.
    pub const fn new() -> Self {
        Self {
            period_began_us: 0,
            read: 0,
            waiting: Waiting::No,
        }
    }

    /// Records that may be read at time `now_us`.
    pub fn allowance(&mut self, now_us: u64) -> u32 {
        if now_us.saturating_sub(self.period_began_us) >= FAULT_PERIOD_US {
            self.period_began_us = now_us;
            self.read = 0;
        }
        FAULT_BURST.saturating_sub(self.read)
    }

    /// Notes what was read, and whether more was left. Returns whether a storm begins with it.
    pub fn count(&mut self, records: u32, waiting: Waiting) -> bool {
        self.read = self.read.saturating_add(records);
        let begins = (self.waiting, waiting) == (Waiting::No, Waiting::Yes);
        self.waiting = waiting;
        begins
    }

    /// Does the unit wait?
    pub fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// Microseconds until more may be read.
    pub fn resumes_in(&self, now_us: u64) -> u64 {
        let passed = now_us.saturating_sub(self.period_began_us);
        FAULT_PERIOD_US.saturating_sub(passed).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::Sbdf;
    use ipc_proto::Access;

    fn fault(address: u64) -> Fault {
        Fault {
            device: Sbdf::from_bits(0x18),
            address,
            access: Access::Write,
            reason: 5,
        }
    }

    #[test]
    fn a_full_queue_counts_what_it_cannot_keep() {
        let mut queue = FaultQueue::new();
        for address in 0..MAX_RECORDS as u64 + 5 {
            queue.push(fault(address));
        }
        for address in 0..MAX_RECORDS as u64 {
            assert_eq!(queue.pop(), Ok((fault(address), 0)));
        }
        queue.push(fault(99));
        assert_eq!(queue.pop(), Ok((fault(99), 5)));
        queue.count_lost();
        assert_eq!(queue.pop(), Err(1));
        assert_eq!(queue.pop(), Err(0));
        queue.push(fault(100));
        assert_eq!(queue.pop(), Ok((fault(100), 0)));
    }

    #[test]
    fn faults_far_apart_are_no_storm() {
        let mut storm = Storm::new();
        let counts: std::vec::Vec<u32> = (0..20).map(|n| storm.count(n * FORGIVEN_US)).collect();
        assert!(counts.iter().all(|count| *count <= 2), "{counts:?}");
        let now = 20 * FORGIVEN_US;
        let counts: std::vec::Vec<u32> = (0..12).map(|n| storm.count(now + n)).collect();
        assert!(counts.last().is_some_and(|count| *count > FAULT_BOUND));
    }

    #[test]
    fn a_unit_is_read_in_bursts() {
        let mut gate = Gate::new();
        assert_eq!(gate.allowance(5), FAULT_BURST);
        assert!(!gate.count(60, Waiting::No));
        assert_eq!(gate.allowance(100), 4);
        assert!(gate.count(4, Waiting::Yes));
        assert_eq!(gate.allowance(200), 0);
        assert!(!gate.count(0, Waiting::Yes));
        assert_eq!(gate.resumes_in(200), FAULT_PERIOD_US - 200);
        assert_eq!(gate.allowance(FAULT_PERIOD_US), FAULT_BURST);
        assert!(!gate.count(1, Waiting::No));
    }
}
