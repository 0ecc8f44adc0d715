//! The reclaimer: the root task's third thread, which takes the memory of dead clients back. For a client with a few hundred
//! pages that is one kernel call of some hundred thousand instructions, and nobody waits for it: so it is done at the
//! priority that the client had, where it delays nobody whom the client itself could not have delayed. (The kernel
//! interrupts such a call for whoever is above, and takes it up again.)
//!
//! The supervisor is told when it is over ([`Reclaimer::next`]).

use heapless::Vec;
use heapless::spsc::{Consumer, Producer, Queue};
use ipc_proto::Badge;
use root_core::plan::Pd;
use sel4::{Error, Notification, ObjectType, Rights, Tcb};
use sel4_glue::root::{Below, Space, Stack};
use static_cell::StaticCell;
use system::layout::{MAX_PDS, event, priority};

use crate::maker::{Own, mint};
use crate::stock::{Stock, own};

/// Memory to be taken back: what is made of the untyped in this slot.
#[derive(Clone, Copy, Debug)]
struct Job {
    pd: u16,
    slot: u32,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    pd: u16,
    result: sel4::Result,
}

/// The thread at work.
struct Worker {
    jobs: Consumer<'static, Job>,
    outcomes: Producer<'static, Outcome>,
    wake: Notification,
    /// Tells the supervisor that there are outcomes.
    bell: Notification,
}

static STACK: Stack<{ 8 << 10 }> = Stack::new();
static WORKER: StaticCell<Worker> = StaticCell::new();
static JOBS: StaticCell<Queue<Job, MAX_PDS>> = StaticCell::new();
static OUTCOMES: StaticCell<Queue<Outcome, MAX_PDS>> = StaticCell::new();

/// The supervisor's end.
pub struct Reclaimer {
    thread: Below,
    jobs: Producer<'static, Job>,
    outcomes: Consumer<'static, Outcome>,
    /// PDs that are being taken back, with their priorities.
    pending: Vec<(u16, u8), MAX_PDS>,
}

impl Reclaimer {
    /// Makes and starts the thread, which waits for work.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(objects: &Own, space: &mut Space<Stock>) -> sel4::Result<Self> {
        let stock = space.tables();
        let thread = Below {
            tcb: Tcb::at(stock.object(ObjectType::Tcb)?),
            events: Notification::at(stock.object(ObjectType::Notification)?),
        };
        let flag = Badge::from_word(Badge::event(event::RECLAIMED)).ok_or(Error::RangeError)?;
        let bell = stock.fill(|slot| mint(slot, objects.events.cptr(), Rights::WRITE, flag))?;
        let (jobs, to_do) = JOBS.init(Queue::new()).split();
        let (done, outcomes) = OUTCOMES.init(Queue::new()).split();
        let worker = WORKER.init(Worker {
            jobs: to_do,
            outcomes: done,
            wake: thread.events,
            bell: Notification::at(bell),
        });
        // Above every client, until it waits: a thread that is ready makes each switch of others dearer.
        thread.start(priority::CLIENT_MAX, &STACK, worker, work)?;
        Ok(Self {
            thread,
            jobs,
            outcomes,
            pending: Vec::new(),
        })
    }

    /// Begins to take the memory of a PD back, whose thread is stopped.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn begin(&mut self, pd: &Pd) -> Result<(), &'static str> {
        let full = "more PDs than can be taken back at a time";
        let job = Job {
            pd: pd.number,
            slot: pd.block.slot,
        };
        self.pending
            .push((pd.number, pd.priority))
            .map_err(|_| full)?;
        self.jobs.enqueue(job).map_err(|_| full)?;
        self.set_priority()?;
        self.thread.events.signal();
        Ok(())
    }

    /// The next PD whose memory was taken back, or not, and why.
    pub fn next(&mut self) -> Option<(u16, Result<(), &'static str>)> {
        let Outcome { pd, result } = self.outcomes.dequeue()?;
        self.pending.retain(|(pending, _)| *pending != pd);
        let result = result.map_err(|_| "the kernel does not take its memory back");
        Some((pd, result.and(self.set_priority())))
    }

    /// The thread is as urgent as the most urgent of those whose memory it takes back.
    fn set_priority(&self) -> Result<(), &'static str> {
        let priorities = self.pending.iter().map(|(_, priority)| *priority);
        let Some(highest) = priorities.max() else {
            return Ok(());
        };
        self.thread
            .set_priority(highest)
            .map_err(|_| "the kernel does not set the reclaimer's priority")
    }
}

fn work(worker: &'static mut Worker) -> ! {
    loop {
        // One signal may stand for several jobs, and a job may have been done before its signal is seen.
        let _ = worker.wake.wait();
        while let Some(Job { pd, slot }) = worker.jobs.dequeue() {
            let result = own(slot).revoke();
            // There is room: there are never more jobs than PDs.
            let _ = worker.outcomes.enqueue(Outcome { pd, result });
            worker.bell.signal();
        }
    }
}
