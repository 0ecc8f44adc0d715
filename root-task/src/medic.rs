//! The medic: the root task's second thread, which restarts server shards that die. `root-core` decides
//! ([`root_core::medic`]); the kernel's part is here.
//!
//! It is above the supervisor's own thread and on the same core: the supervisor may be waiting for the server that has
//! died. Faults and requests of server shards arrive here, what tests want dead, and the alarm by which it sees a start that
//! hangs. It must not call a server that it restarts, allocate, or print: what there is to tell goes to the supervisor as
//! [`Report`]s. The one whom it calls is the timer service, which waits for nobody.

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use heapless::Vec;
use heapless::spsc::{Consumer, Producer, Queue};
use ipc_proto::{supervisor, timer};
use root_core::image::Image;
use root_core::medic::{Deed, Medic, Told, Treatment};
use root_core::plan::Plan;
use sel4::tcb::Then;
use sel4::{BootInfo, Fault, Notification, Tcb, UserContext};
use sel4_glue::clock::tsc;
use sel4_glue::hw::Clock;
use sel4_glue::root::{Arrival, Desk, Second, Stack};
use sel4_glue::start::GIVEN_UP;
use sel4_glue::{Port, TscClock};
use static_cell::StaticCell;
use system::layout::{MAX_PDS, va};

use crate::maker::Maker;

/// Reports that wait for the supervisor.
const REPORTS: usize = 32;
/// Where a server goes on that is to fault: nothing is mapped there.
const NOWHERE: u64 = 0x10;

/// What the medic tells the supervisor.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// What has happened.
    pub told: Told,
    /// When: time-stamp counter.
    pub ticks: u64,
    /// The fault, if it was one that the kernel told.
    pub fault: Option<Fault>,
    /// The registers at the death.
    pub registers: Option<UserContext>,
}

/// Registers with which a PD begins: at its first start (`restarts` 0), or again.
pub fn first_registers(image: &Image, restarts: u64) -> UserContext {
    UserContext {
        rip: image.entry,
        rsp: va::STACK_TOP,
        rdi: restarts,
        rsi: va::IPC_BUFFER,
        rdx: if restarts == 0 { 0 } else { image.kept() },
        ..UserContext::default()
    }
}

/// A server shard.
struct Bed {
    pd: u16,
    tcb: Tcb,
    /// Its registers when it starts again; the number of the restart is put in.
    registers: UserContext,
}

/// The medic at work.
struct Ward {
    desk: Desk,
    medic: Medic,
    beds: Vec<Bed, MAX_PDS>,
    reports: Producer<'static, Report>,
    /// Tells the supervisor that there are reports.
    bell: Notification,
    clock: TscClock,
    /// Whom a test wants dead, and when, in microseconds of the clock.
    victim: Option<(u16, u64)>,
    /// When the alarm comes that is set.
    armed: Option<u64>,
}

static STACK: Stack<{ 16 << 10 }> = Stack::new();
static WARD: StaticCell<Ward> = StaticCell::new();
static QUEUE: StaticCell<Queue<Report, REPORTS>> = StaticCell::new();
/// Whom a test wants dead by chance, and in how many microseconds from the next time that the medic looks; 0: nobody.
static VICTIM: AtomicU16 = AtomicU16::new(0);
static DELAY: AtomicU64 = AtomicU64::new(0);
/// The timer service's endpoint; 0: it does not run yet.
static TIMER: AtomicU64 = AtomicU64::new(0);
/// Reports that found no room.
static LOST: AtomicU32 = AtomicU32::new(0);

/// What the medic is made of.
pub struct Parts<'a> {
    /// Its thread.
    pub second: Second,
    /// The endpoint of its desk.
    pub endpoint: sel4::Endpoint,
    /// Tells the supervisor that there are reports.
    pub bell: Notification,
    /// Faults that are put up with.
    pub restarts: u8,
    /// For the time.
    pub tsc_mhz: u32,
    /// What the kernel told the root task.
    pub boot: &'a BootInfo<'a>,
}

/// The supervisor's end.
pub struct Reports {
    queue: Consumer<'static, Report>,
}

impl Reports {
    /// The next report.
    pub fn next(&mut self) -> Option<Report> {
        self.queue.dequeue()
    }

    /// Reports that were lost since the last time: the supervisor has not looked for long.
    pub fn lost(&self) -> u32 {
        LOST.swap(0, Ordering::Relaxed)
    }
}

/// Has the medic kill a server after so many microseconds, from when `wake` has reached it.
pub fn choose(victim: u16, micros: u64, wake: Notification) {
    DELAY.store(micros, Ordering::Relaxed);
    VICTIM.store(victim, Ordering::Relaxed);
    wake.signal();
}

/// Says how the timer service is called.
pub fn use_timer(port: Port) {
    TIMER.store(port.cptr(), Ordering::Relaxed);
}

/// Starts the medic, for all server shards of the plan, whose threads exist and do not run yet.
///
/// # Errors
/// What is missing, or the kernel's error.
pub fn start(
    parts: &Parts<'_>,
    plan: &Plan,
    maker: &Maker<'_>,
) -> Result<Reports, alloc::string::String> {
    let shards = || plan.of(|kind| kind.is_shard());
    let mut beds = Vec::new();
    for pd in shards() {
        let image = plan.image(pd).ok_or("no image")?;
        let bed = Bed {
            pd: pd.number,
            tcb: maker.tcb(pd)?,
            registers: first_registers(image, 1),
        };
        beds.push(bed)
            .map_err(|_| "more servers than the medic has beds for")?;
    }
    let (producer, queue) = QUEUE.init(Queue::new()).split();
    let ward = WARD.init(Ward {
        desk: parts.second.desk(parts.boot, parts.endpoint),
        medic: Medic::new(shards().map(|pd| pd.number), parts.restarts)?,
        beds,
        reports: producer,
        bell: parts.bell,
        clock: TscClock::new(parts.tsc_mhz),
        victim: None,
        armed: None,
    });
    parts
        .second
        .start(&STACK, ward, work)
        .map_err(|error| alloc::format!("the second thread: {error}"))?;
    Ok(Reports { queue })
}

/// Asks the medic, who answers at once, to have a server die.
pub fn strike(medic: Port, pd: u16, how: root_core::supervisor::Strike) {
    use root_core::supervisor::Strike;
    let stub = supervisor::Stub(medic);
    // A refusal: it has died by itself meanwhile, and is told of.
    let _ = match how {
        Strike::Kill => stub.kill(pd).map(|_| ()),
        Strike::Crash => stub.crash(pd).map(|_| ()),
        Strike::Fail => stub.fail(pd).map(|_| ()),
        Strike::Hang => stub.hang(pd).map(|_| ()),
    };
}

fn work(ward: &'static mut Ward) -> ! {
    loop {
        match ward.desk.receive() {
            Arrival::Request { badge, message } => {
                if let Some(answer) = supervisor::dispatch(&mut ward.medic.desk(), badge, &message)
                {
                    ward.desk.answer(&answer);
                }
                match ward.medic.deed() {
                    Some(Deed::Kill(pd)) => ward.kill(pd),
                    Some(Deed::Crash(pd)) => {
                        ward.medic.crashing(pd);
                        ward.lose(pd);
                    }
                    Some(Deed::Fail(pd)) => ward.lose(pd),
                    Some(Deed::Hang(pd)) => ward.hang(pd),
                    Some(Deed::Tell(told)) => ward.tell(told, None, None),
                    None => {}
                }
            }
            // The alarm, or somebody was chosen.
            Arrival::Events(_) => ward.armed = None,
            Arrival::Fault { pd, fault } => {
                let registers = ward.registers(pd);
                let told = ward.medic.faulted(pd, ward.clock.now_us());
                ward.tell(told, fault, registers);
            }
        }
        ward.look();
    }
}

impl Ward {
    fn bed(&self, pd: u16) -> Option<&Bed> {
        self.beds.iter().find(|bed| bed.pd == pd)
    }

    fn kill(&mut self, pd: u16) {
        if let Some(bed) = self.bed(pd) {
            // It does not matter where it is: that is what is tested.
            let _ = bed.tcb.suspend();
        }
        let told = self.medic.killed(pd);
        self.tell(told, None, None);
    }

    /// Lets the server go on where it faults: whatever it waits for is broken off.
    fn lose(&self, pd: u16) {
        if let Some(bed) = self.bed(pd) {
            let registers = UserContext {
                rip: NOWHERE,
                ..bed.registers
            };
            let _ = bed.tcb.write_registers(&registers, Then::Switch);
        }
    }

    /// Stops the server and tells that it was restarted, which it was not.
    fn hang(&mut self, pd: u16) {
        if let Some(bed) = self.bed(pd) {
            let _ = bed.tcb.suspend();
        }
        let told = self.medic.killed(pd);
        self.report(told, None, None);
    }

    fn registers(&self, pd: u16) -> Option<UserContext> {
        self.bed(pd)?.tcb.read_registers(Then::Leave).ok()
    }

    /// Does what is due, and sets the alarm for what comes next.
    fn look(&mut self) {
        let now = self.clock.now_us();
        let chosen = VICTIM.swap(0, Ordering::Relaxed);
        if chosen != 0 {
            let delay = DELAY.load(Ordering::Relaxed);
            self.victim = Some((chosen, now.saturating_add(delay)));
        }
        if let Some((victim, _)) = self.victim.take_if(|(_, due)| *due <= now)
            && self.medic.can_be_killed(victim)
        {
            self.kill(victim);
        }
        if let Some(told) = self.medic.overdue(now)
            && let Told::Died { pd, .. } = told
        {
            let registers = self.registers(pd);
            self.tell(told, None, registers);
        }
        let next = [self.medic.watch(now), self.victim.map(|(_, due)| due)];
        let next = next.into_iter().flatten().min();
        if let Some(next) = next.filter(|_| next != self.armed) {
            self.arm(next.saturating_sub(now).max(1));
            self.armed = Some(next);
        }
    }

    /// Sets the alarm. The supervisor may run meanwhile, and a server that faults waits as long.
    fn arm(&self, micros: u64) {
        let port = TIMER.load(Ordering::Relaxed);
        if port != 0 {
            let timer = timer::Stub(Port::at(port));
            // Its one word is none for the IPC buffer. Refused it is to nobody who is known to the service.
            let _ = self.desk.aside(|| timer.arm(micros));
        }
    }

    /// Does what was decided, and tells the supervisor of it.
    fn tell(&mut self, told: Told, fault: Option<Fault>, registers: Option<UserContext>) {
        if let Told::Died { pd, treatment, .. } = told {
            self.treat(pd, treatment);
        }
        self.report(told, fault, registers);
    }

    fn report(&mut self, told: Told, fault: Option<Fault>, registers: Option<UserContext>) {
        let report = Report {
            told,
            ticks: tsc(),
            fault,
            registers,
        };
        if self.reports.enqueue(report).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        self.bell.signal();
    }

    fn treat(&self, pd: u16, treatment: Treatment) {
        let Some(bed) = self.bed(pd) else {
            return;
        };
        let number = match treatment {
            Treatment::Restart(count) => count.into(),
            Treatment::GiveUp => GIVEN_UP,
            Treatment::Leave => {
                let _ = bed.tcb.suspend();
                return;
            }
        };
        let registers = UserContext {
            rdi: number,
            ..bed.registers
        };
        // Breaks off whatever the thread waits for, then lets it run. It is a thread of the plan's.
        let _ = bed.tcb.write_registers(&registers, Then::Switch);
    }
}
