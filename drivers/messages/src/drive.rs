//! An NVMe controller (QEMU's `nvme`): a pair of I/O queues for each message but the first, which is the admin queue's. A command
//! that is done sends its queue's message, by MSI-X. There need not be a disk: a command that is refused is done, too.
//! Sections are those of the NVM Express Base Specification 1.4.

use client::{ANY_IOVA, Access, Error, Mechanism, Memory, Mmio, PagePreference, Switch};
use nvme_driver::{Command, Controller, Doorbell, PAGES};
use system::layout::event;

use crate::sources::Source;
use crate::{Probe, suite};

const VENDOR: u16 = 0x1b36;
const DEVICE: u16 = 0x0010;
/// Messages that are used.
const MESSAGES: u16 = 8;
const PAGE: usize = 4096;
/// Entries of an I/O queue, and their sizes.
const ENTRIES: u16 = 16;
const SUBMISSION_BYTES: usize = 64;
const COMPLETION_BYTES: usize = 16;
/// Looks at the controller before it is given up, and the time between two.
const LOOKS: u32 = 500;
const PAUSE_MICROS: u64 = 1_000;

/// How far both ends of a pair of queues are.
#[derive(Clone, Copy, Debug)]
struct Pair {
    tail: u16,
    head: u16,
    phase: bool,
}

struct Drive<R, M> {
    controller: Controller<R, M>,
    /// Memory of the pairs of I/O queues: a page each.
    queues: M,
    /// I/O virtual address of a page that it may write to.
    scratch: u64,
    pairs: [Pair; MESSAGES as usize],
}

/// Where the submission queue of a pair is; the completion queue is on the next page. The admin queues come first.
const fn place(queue: u16) -> usize {
    2 * PAGE * queue as usize
}

impl<R: Mmio, M: Memory> Source for Drive<R, M> {
    fn raise(&mut self, message: u16) {
        if message == 0 {
            return self.controller.begin(Command::identify(self.scratch));
        }
        let Some(pair) = self.pairs.get_mut(usize::from(message)) else {
            return;
        };
        // Flush (NVM command set 1.4, 6.8) is opcode 0; of name space 1.
        let mut entry = [0u8; SUBMISSION_BYTES];
        entry[4] = 1;
        let at = place(message) + usize::from(pair.tail) * SUBMISSION_BYTES;
        self.queues.write(at, &entry);
        pair.tail = (pair.tail + 1) % ENTRIES;
        let tail = pair.tail;
        self.controller.ring(message, Doorbell::Submissions, tail);
    }

    fn settle(&mut self, message: u16) {
        if message == 0 {
            // What became of it does not matter.
            let _ = self.controller.completion();
            return;
        }
        let Some(pair) = self.pairs.get_mut(usize::from(message)) else {
            return;
        };
        let before = pair.head;
        for _ in 0..ENTRIES {
            let at = place(message) + PAGE + usize::from(pair.head) * COMPLETION_BYTES;
            let mut entry = [0u8; COMPLETION_BYTES];
            self.queues.read(at, &mut entry);
            // 4.6: the phase tag.
            if (entry[14] & 1 != 0) != pair.phase {
                break;
            }
            pair.head = (pair.head + 1) % ENTRIES;
            pair.phase ^= pair.head == 0;
        }
        let head = pair.head;
        if head != before {
            self.controller.ring(message, Doorbell::Completions, head);
        }
    }
}

/// Eight messages.
pub fn run(probe: &Probe) -> Result<(), Error> {
    let client = &probe.client;
    let device = client.assign_ids(VENDOR, DEVICE)?;
    let bytes = place(MESSAGES) + PAGE;
    let buffer = client.buffer(bytes as u64, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    device.bus_master(Switch::On)?;
    let mut looks = 0;
    let mut wait = || {
        looks += 1;
        looks < LOOKS && client.wait_for(0, PAUSE_MICROS).is_ok()
    };
    let failed = |error| {
        probe.check("nvme", false, format_args!("{error:?}"));
        Error::NotFound
    };
    // QEMU gives a queue a message only when it is made while messages are enabled.
    let interrupts = device.enable_interrupts(Mechanism::MsiX, 0, MESSAGES, event::OWN)?;
    let registers = device.map_bar_pages(0, 0, PAGES)?;
    let mut controller = Controller::enable(registers, *memory, iova, &mut wait).map_err(failed)?;
    for queue in 1..MESSAGES {
        let at = iova + place(queue) as u64;
        let completions = Command::create_completions(queue, ENTRIES, at + PAGE as u64, queue);
        controller.execute(completions, &mut wait).map_err(failed)?;
        let submissions = Command::create_submissions(queue, ENTRIES, at);
        controller.execute(submissions, &mut wait).map_err(failed)?;
    }
    interrupts.disable()?;
    // What these commands signalled is no message of the suite's.
    client.poll(u64::MAX);
    let pair = Pair {
        tail: 0,
        head: 0,
        phase: true,
    };
    let mut drive = Drive {
        controller,
        queues: *memory,
        scratch: iova + place(MESSAGES) as u64,
        pairs: [pair; MESSAGES as usize],
    };
    suite::run(probe, &device, Mechanism::MsiX, MESSAGES, &mut drive)
}
