//! [`Hands`]: what the supervisor can do to the world. The root task has real
//! ones, the tests have some that write down what they are told.

use core::fmt;

use ipc_proto::{ClientId, Refusal};

use super::figures::Figures;

/// What the supervisor can do to the world.
pub trait Hands {
    /// Stops a PD's thread.
    fn stop(&mut self, pd: u16);
    /// Takes back every way to call or signal others that a client was given, and every copy of it, wherever the client
    /// passed one on: from now on nobody asks in its name. Its thread was stopped; others of its own may run.
    fn disown(&mut self, pd: u16);
    /// Lets a stopped thread go on.
    fn resume(&mut self, pd: u16);
    /// Prints what the client holds of a pci-server shard.
    fn tell_held(&mut self, shard: u8, client: ClientId);
    /// Calls `ClientGone` of a pci-server shard; returns the devices that it takes back.
    ///
    /// # Errors
    /// The shard's refusal.
    fn pci_gone(&mut self, shard: u8, client: ClientId) -> Result<u16, Refusal>;
    /// Asks a pci-server shard how many revocations it owes.
    ///
    /// # Errors
    /// The shard's refusal.
    fn pci_pending(&mut self, shard: u8) -> Result<u16, Refusal>;
    /// Calls `ClientGone` of an iommu-server shard.
    ///
    /// # Errors
    /// The shard's refusal.
    fn iommu_gone(&mut self, shard: u8, client: ClientId) -> Result<(), Refusal>;
    /// Calls `ClientGone` of an msi-server shard; returns vectors that were still the client's.
    ///
    /// # Errors
    /// The shard's refusal.
    fn msi_gone(&mut self, shard: u8, client: ClientId) -> Result<u16, Refusal>;
    /// Begins to take back the memory of a PD: all its objects are gone when it is over, which
    /// [`Supervisor::reclaimed`](super::Supervisor::reclaimed) is told.
    ///
    /// # Errors
    /// A reason, for the log.
    fn reclaim(&mut self, pd: u16) -> Result<(), &'static str>;
    /// Resources in use now.
    fn figures(&mut self) -> Figures;
    /// Has a server shard die now: the medic restarts it and tells.
    fn strike(&mut self, pd: u16, how: Strike);
    /// Has the medic kill a server shard after a time. One at a time; the newest counts.
    fn alarm(&mut self, pd: u16, micros: u64);
    /// Prints a line.
    fn say(&mut self, line: fmt::Arguments<'_>);
    /// The run is over: everything printed goes out; then the machine is switched off if `power` says so.
    fn end(&mut self, verdict: Verdict<'_>, power: Power);
}

/// How a test has a server die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strike {
    /// It is stopped wherever it is.
    Kill,
    /// It goes on where nothing is mapped.
    Crash,
    /// The same, and it counts.
    Fail,
    /// It is restarted, and hangs.
    Hang,
}

/// How a run went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict<'a> {
    /// As described.
    Pass,
    /// Not so, for this reason.
    Fail(&'a str),
}

/// What becomes of the machine at the end of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// It goes on.
    On,
    /// It is switched off.
    Off,
}
