//! What is to be done later, and when: jobs of devices, ports, resets of buses,
//! virtual functions that come up, a scan. One timer for all of them.
//!
//! One step is done for each signal of the timer, and the search goes on after the one that was
//! served last: no work starves another, and requests come in between.

use super::Shard;
use crate::MAX_ASSIGNMENTS;
use crate::assignment::Purpose;
use crate::env::Env;
use crate::ports::MAX_PORTS;

/// Something that goes on by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    /// The job of an assignment.
    Job(u16),
    /// A port.
    Port(u16),
    /// A bus that is being reset.
    BusReset(u16),
    /// Virtual functions that come up.
    Enabling(u16),
    /// The scan.
    Scan,
    /// Reports of the iommu-server.
    Trouble,
    /// Reports of the msi-server.
    LineTrouble,
}

impl Work {
    /// Its place in the round.
    const fn number(self) -> u16 {
        const PORTS: u16 = MAX_ASSIGNMENTS as u16;
        const OTHERS: u16 = PORTS + MAX_PORTS as u16;
        match self {
            Self::Job(at) => at,
            Self::Port(port) => PORTS + port,
            Self::BusReset(place) => OTHERS + 2 * place,
            Self::Enabling(place) => OTHERS + 2 * place + 1,
            Self::Scan => u16::MAX - 2,
            Self::LineTrouble => u16::MAX - 1,
            Self::Trouble => u16::MAX,
        }
    }
}

impl<E: Env> Shard<'_, E> {
    /// The timer has run out: does one step that is due, and arms the timer for the next.
    pub fn on_timer(&mut self) {
        self.armed = None;
        let now = self.env.now_us();
        let turn = self.turn;
        let ports = (0..).zip(self.ports.iter());
        let ports = ports.map(|(number, port)| (Work::Port(number), port.next_due()));
        let due = (self.others().chain(ports))
            .filter(|(_, due)| *due <= now)
            .map(|(work, _)| work)
            .min_by_key(|work| (work.number() <= turn, work.number()));
        if let Some(work) = due {
            self.turn = work.number();
            match work {
                Work::Job(at) => drop(self.step(at)),
                Work::Port(port) => self.port_due(usize::from(port), now),
                Work::BusReset(place) => self.bus_reset_step(usize::from(place), now),
                Work::Enabling(place) => self.enabling_step(usize::from(place), now),
                Work::Scan => self.scan_step(now),
                Work::Trouble => self.on_trouble(),
                Work::LineTrouble => self.on_line_trouble(),
            }
        }
        self.arm();
    }

    /// All that goes on besides ports, and when the next step of each is due (`u64::MAX`: not by itself).
    fn others(&self) -> impl Iterator<Item = (Work, u64)> {
        let mut jobs = self.jobs;
        let jobs = core::iter::from_fn(move || {
            let at = (jobs != 0).then_some(jobs.trailing_zeros() as u16)?;
            jobs &= jobs - 1;
            Some(at)
        });
        let jobs = jobs.map(|at| (Work::Job(at), self.job_due(at)));
        let resets = (0..)
            .zip(&self.later.bus_resets)
            .map(|(place, reset)| (Work::BusReset(place), reset.due));
        let enabling = (0..)
            .zip(&self.later.enabling)
            .map(|(place, enabling)| (Work::Enabling(place), enabling.due));
        let scan = self.later.scan.iter().map(|scan| (Work::Scan, scan.due));
        let trouble = self.trouble.then_some((Work::Trouble, 0));
        let lines = self.line_trouble.then_some((Work::LineTrouble, 0));
        jobs.chain(resets)
            .chain(enabling)
            .chain(scan)
            .chain(trouble)
            .chain(lines)
    }

    fn job_due(&self, at: u16) -> u64 {
        let job = || {
            let hold = self.assignments.get(usize::from(at))?.hold.as_ref()?;
            let job = hold.job.as_ref()?;
            let device = self.devices.get(hold.device)?;
            // A device whose bus is in reset is not touched; virtual functions go before their physical one.
            let waits = !job.removed && device.in_bus_reset
                || job.purpose == Purpose::Revoke && device.virtual_held > 0;
            Some(if waits { u64::MAX } else { job.due })
        };
        job().unwrap_or(u64::MAX)
    }

    /// Arms the timer for what is due first, unless it runs out by then.
    pub(super) fn arm(&mut self) {
        let others = self.others().map(|(_, due)| due).min().unwrap_or(u64::MAX);
        let first = others.min(self.ports.first_due());
        if first < u64::MAX && self.armed.is_none_or(|armed| armed > first) {
            self.armed = Some(first);
            let now = self.env.now_us();
            self.env.arm(first.saturating_sub(now).max(1));
        }
    }
}
