//! [`Unit`]: one VT-d unit, from whatever firmware left to "every device
//! blocked", and the commands it takes afterwards.
//!
//! [`Unit::start`] goes in this order (VT-d 3.0, 10.4.4 and 11):
//! 1. fault events masked, old faults cleared;
//! 2. firmware's interrupt remapping and invalidation queue off. Firmware's
//!    *translation* stays on if it was: switching it off would open a window
//!    in which everything passes;
//! 3. our root table, which is empty: every requester is blocked by an entry
//!    that is not present. With translation already on, this moves the unit
//!    from firmware's tables to ours in one step;
//! 4. our invalidation queue; everything cached is forgotten;
//! 5. translation on; firmware's protected regions off, which it makes moot;
//! 6. if asked for and there: our interrupt remapping table, which is empty; every
//!    cached entry forgotten; messages in the compatibility format blocked; remapping
//!    on (5.1.4);
//! 7. fault events on. Their own message is not subject to remapping (5.1.6).
//!
//! A unit that fails an answer once is not trusted again: [`State::Failed`]
//! refuses everything at once, without polling.

mod adopt;

use hw::Mmio;
use thiserror::Error;

use super::capability::{Capabilities, Unusable};
use super::interrupt::SIZE_CODE;
use super::queue::{Drain, Invalidate, Queue, QueueError};
use super::registers::{
    Register, Registers, fault_control, fault_status, global, protected_memory,
};
use crate::TableMemory;
use crate::tables::{Exhausted, Page, Tables};

/// The interrupt message of a unit's fault event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultMessage {
    /// Where.
    pub address: u64,
    /// What.
    pub data: u32,
}

/// Why a unit does not work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UnitError {
    /// It cannot be driven.
    #[error("it cannot be driven: {0}")]
    Unusable(Unusable),
    /// The units of the shard have no common number of table levels.
    #[error("the units have no common number of page-table levels")]
    NoCommonLevels,
    /// No table is left for its root or queue.
    #[error("no memory is left for its tables")]
    Tables,
    /// It did not carry out a command: the status bits that did not follow.
    #[error("it did not carry out a command (status bits {0:#x})")]
    Command(u32),
    /// It does not translate through the tables that an earlier life of the shard has left.
    #[error("it does not use our tables")]
    NotOurs,
    /// Firmware's invalidation queue did not drain.
    #[error("the invalidation queue that firmware left does not drain")]
    OldQueue,
    /// It did not confirm an invalidation.
    #[error("an invalidation failed: {0}")]
    Queue(QueueError),
}

impl From<Exhausted> for UnitError {
    fn from(_: Exhausted) -> Self {
        Self::Tables
    }
}

impl From<QueueError> for UnitError {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

/// Why a device's own cache was not invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceError {
    /// The device did not answer in time.
    Silent,
    /// The unit failed.
    Unit(UnitError),
}

/// Whether a unit can be relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It translates through our tables and confirms what it is asked.
    Running,
    /// It failed.
    Failed(UnitError),
}

/// One unit.
pub struct Unit<M> {
    registers: Registers<M>,
    capabilities: Capabilities,
    root: Page,
    queue: Queue,
    state: State,
    remapping: Remapping,
}

/// What becomes of interrupt messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remapping {
    /// They pass as they are.
    Off,
    /// Those in the remappable format are looked up.
    On {
        /// What becomes of the others.
        compatibility: Compatibility,
    },
}

/// What becomes of messages in the compatibility format while remapping is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compatibility {
    /// The unit says that it blocks them (CFIS clear).
    Blocked,
    /// They pass.
    Passes,
}

/// Tables and message that a unit starts with.
pub struct Start {
    /// Page and word in which the queue's status is written.
    pub status: (Page, u16),
    /// The interrupt remapping table, if interrupts are to be remapped.
    pub interrupts: Option<Page>,
    /// The fault event's message.
    pub message: FaultMessage,
}

impl<M: Mmio> Unit<M> {
    /// What the unit in this register window can do.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn probe(window: M) -> Result<(Registers<M>, Capabilities), Unusable> {
        let registers = Registers(window);
        let capabilities = Capabilities::decode(
            registers.read32(Register::Version),
            registers.read64(Register::Capability),
            registers.read64(Register::ExtendedCapability),
            registers.0.len(),
        )?;
        Ok((registers, capabilities))
    }

    /// Takes the unit over with every device blocked. On failure it is left as far as it came, and
    /// in [`State::Failed`]; nothing was opened that was closed before.
    ///
    /// # Errors
    /// No table is left for it; without tables there is no unit to keep.
    pub fn start<T: TableMemory>(
        registers: Registers<M>,
        capabilities: Capabilities,
        tables: &mut Tables<'_, T>,
        start: &Start,
    ) -> Result<Self, Exhausted> {
        let mut unit = Self::with_pages(registers, capabilities, tables, start)?;
        if let Err(error) = unit.take_over(tables, start) {
            unit.state = State::Failed(error);
        }
        Ok(unit)
    }

    /// A unit with its pages, before it is told anything.
    fn with_pages<T: TableMemory>(
        registers: Registers<M>,
        capabilities: Capabilities,
        tables: &mut Tables<'_, T>,
        start: &Start,
    ) -> Result<Self, Exhausted> {
        let root = tables.take()?;
        let queue_page = tables.take().inspect_err(|_| tables.give(root))?;
        let drain = Drain {
            reads: capabilities.drains_reads,
            writes: capabilities.drains_writes,
        };
        let mut queue = Queue::new(tables, queue_page, start.status, drain);
        if capabilities.throttles {
            queue.name_function();
        }
        Ok(Self {
            registers,
            capabilities,
            root,
            queue,
            state: State::Running,
            remapping: Remapping::Off,
        })
    }

    fn take_over<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        start: &Start,
    ) -> Result<(), UnitError> {
        self.registers
            .write32(Register::FaultControl, fault_control::MASKED);
        self.clear_faults();
        let left = self.registers.read32(Register::GlobalStatus);
        if left & global::INTERRUPT_REMAPPING != 0 {
            self.switch(global::INTERRUPT_REMAPPING, Switch::Off)?;
        }
        if left & global::QUEUE != 0 {
            self.stop_old_queue()?;
        }
        self.flush_write_buffer()?;
        self.registers
            .write64(Register::RootTable, tables.physical(self.root));
        self.switch(global::ROOT_POINTER, Switch::On)?;
        self.registers.write64(Register::QueueTail, 0);
        // Size 0: one page. Bit 11 clear: descriptors of 128 bits.
        self.registers
            .write64(Register::QueueAddress, tables.physical(self.queue.page()));
        self.switch(global::QUEUE, Switch::On)?;
        self.run(
            tables,
            &[
                Invalidate::AllContexts,
                Invalidate::Fence,
                Invalidate::AllTranslations,
            ],
        )?;
        self.switch(global::TRANSLATION, Switch::On)?;
        self.stop_protected_regions()?;
        if let Some(table) = start.interrupts {
            self.start_remapping(tables, table)?;
        }
        let message = start.message;
        self.registers.write32(Register::FaultData, message.data);
        self.registers
            .write32(Register::FaultAddress, message.address as u32);
        self.registers
            .write32(Register::FaultUpperAddress, (message.address >> 32) as u32);
        self.registers.write32(Register::FaultControl, 0);
        Ok(())
    }

    /// Step 6.
    fn start_remapping<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        table: Page,
    ) -> Result<(), UnitError> {
        let pointer = tables.physical(table) | SIZE_CODE;
        self.registers.write64(Register::InterruptTable, pointer);
        self.switch(global::INTERRUPT_TABLE, Switch::On)?;
        self.run(tables, &[Invalidate::AllInterrupts])?;
        self.switch(global::COMPATIBILITY, Switch::Off)?;
        self.switch(global::INTERRUPT_REMAPPING, Switch::On)?;
        self.remapping = Remapping::On {
            compatibility: Compatibility::Blocked,
        };
        Ok(())
    }

    /// Lets messages in the compatibility format pass from now on, where remapping is on.
    ///
    /// # Errors
    /// The unit does not carry it out; it is not trusted again.
    pub fn pass_compatibility(&mut self) -> Result<(), UnitError> {
        if self.remapping == Remapping::Off {
            return Ok(());
        }
        self.switch(global::COMPATIBILITY, Switch::On)
            .map_err(|error| self.fail(error))?;
        self.remapping = Remapping::On {
            compatibility: Compatibility::Passes,
        };
        Ok(())
    }

    /// What becomes of interrupt messages.
    pub fn remapping(&self) -> Remapping {
        self.remapping
    }

    /// What the unit can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether it can be relied on.
    pub fn state(&self) -> State {
        self.state
    }

    /// Stops relying on it.
    pub fn distrust(&mut self, error: UnitError) {
        self.fail(error);
    }

    /// Its root table.
    pub fn root(&self) -> Page {
        self.root
    }

    /// Its registers, for fault records.
    pub fn registers(&mut self) -> &mut Registers<M> {
        &mut self.registers
    }

    /// Carries out invalidations and waits for the confirmation. An error about a device's answer
    /// is tried once more; any other, and a second one, fails the unit for good.
    ///
    /// # Errors
    /// The unit has failed, now or before.
    pub fn run<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        batch: &[Invalidate],
    ) -> Result<(), UnitError> {
        self.run_here(tables, batch)
    }

    /// [`Self::run`], where the caller's batch is known to the compiler: the path of each unmapping.
    ///
    /// # Errors
    /// See there.
    #[inline(always)]
    pub fn run_here<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        batch: &[Invalidate],
    ) -> Result<(), UnitError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        match self.queue.run(&mut self.registers, tables, batch) {
            Ok(()) => Ok(()),
            Err(error) => self.run_again(tables, batch, error),
        }
    }

    #[cold]
    fn run_again<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        batch: &[Invalidate],
        error: QueueError,
    ) -> Result<(), UnitError> {
        let outcome = match error {
            QueueError::Device => self.queue.run(&mut self.registers, tables, batch),
            error => Err(error),
        };
        outcome.map_err(|error| self.fail(UnitError::Queue(error)))
    }

    /// As [`Self::run`], for invalidations of a device's own cache: a second error about a device's
    /// answer is the device's, and the unit is relied on still.
    ///
    /// # Errors
    /// The device did not answer, or the unit has failed, now or before.
    pub fn run_for_device<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        request: Invalidate,
    ) -> Result<(), DeviceError> {
        if let State::Failed(error) = self.state {
            return Err(DeviceError::Unit(error));
        }
        for _ in 0..2 {
            match self.queue.run(&mut self.registers, tables, &[request]) {
                Err(QueueError::Device) => {}
                outcome => {
                    return outcome.map_err(|error| DeviceError::Unit(self.fail(error.into())));
                }
            }
        }
        Err(DeviceError::Silent)
    }

    /// Where the chipset buffers writes to tables, has it write them (10.4.4, WBF).
    ///
    /// # Errors
    /// The unit has failed, now or before.
    #[inline(always)]
    pub fn flush_write_buffer(&mut self) -> Result<(), UnitError> {
        if !self.capabilities.write_buffer {
            return Ok(());
        }
        self.do_flush_write_buffer()
    }

    #[cold]
    fn do_flush_write_buffer(&mut self) -> Result<(), UnitError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        self.command(global::WRITE_BUFFER, 0);
        let flushed = |status: u32| status & global::WRITE_BUFFER == 0;
        if self.registers.poll32(Register::GlobalStatus, flushed) {
            return Ok(());
        }
        Err(self.fail(UnitError::Command(global::WRITE_BUFFER)))
    }

    fn fail(&mut self, error: UnitError) -> UnitError {
        self.state = State::Failed(error);
        error
    }

    /// Writes the command register: what is on stays on but for `clear`, and `set` is done.
    fn command(&mut self, set: u32, clear: u32) {
        let now = self.registers.read32(Register::GlobalStatus) & !global::ONE_SHOT;
        self.registers
            .write32(Register::GlobalCommand, now & !clear | set);
    }

    /// Commands one bit and waits until the status shows it.
    fn switch(&mut self, bit: u32, to: Switch) -> Result<(), UnitError> {
        let (set, clear, wanted) = match to {
            Switch::On => (bit, 0, bit),
            Switch::Off => (0, bit, 0),
        };
        self.command(set, clear);
        let followed = |status: u32| status & bit == wanted;
        if self.registers.poll32(Register::GlobalStatus, followed) {
            return Ok(());
        }
        Err(UnitError::Command(bit))
    }

    /// Firmware's queue may be switched off only when it is empty (10.4.4, QIE).
    fn stop_old_queue(&mut self) -> Result<(), UnitError> {
        for _ in 0..super::registers::POLL_LIMIT {
            let head = self.registers.read64(Register::QueueHead);
            if head == self.registers.read64(Register::QueueTail) {
                return self.switch(global::QUEUE, Switch::Off);
            }
            core::hint::spin_loop();
        }
        Err(UnitError::OldQueue)
    }

    fn stop_protected_regions(&mut self) -> Result<(), UnitError> {
        let regions = self.registers.read32(Register::ProtectedMemory);
        if regions == 0 {
            return Ok(());
        }
        self.registers.write32(
            Register::ProtectedMemory,
            regions & !protected_memory::ENABLE,
        );
        let off = |regions: u32| regions & protected_memory::STATUS == 0;
        if self.registers.poll32(Register::ProtectedMemory, off) {
            return Ok(());
        }
        Err(UnitError::Command(protected_memory::STATUS))
    }

    /// Clears what firmware or an earlier life left in the fault records and the status.
    fn clear_faults(&mut self) {
        for record in 0..usize::from(self.capabilities.fault_records) {
            let at = self.capabilities.fault_records_at as usize + record * 16 + 12;
            let value = self.registers.0.read32(at);
            if value >> 31 == 1 {
                self.registers.0.write32(at, 1 << 31);
            }
        }
        self.registers
            .write32(Register::FaultStatus, fault_status::CLEARABLE);
    }
}

#[derive(Clone, Copy)]
enum Switch {
    On,
    Off,
}
