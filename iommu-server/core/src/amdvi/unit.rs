//! [`Unit`]: one AMD unit, from whatever firmware left to "every device blocked".
//!
//! [`Unit::start`] goes in this order (2.11):
//! 1. command buffer and event log off; translation stays on if it was;
//! 2. the device table, whose entries all block. With translation already on this
//!    moves the unit from firmware's table to ours in one step;
//! 3. translation on, command buffer and event log of ours on, in one write: commands
//!    are not carried out while translation is off;
//! 4. everything cached is forgotten.

use hw::Mmio;
use thiserror::Error;

use super::commands::{Command, Commands, STATUS_POLLS};
use super::device_table::SIZE_CODE;
use crate::TableMemory;
use crate::tables::{Exhausted, Page, Tables};

/// Offsets of registers in bytes (3.4); all are of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Register {
    /// Device table: address, and pages less one.
    DeviceTable = 0x00,
    /// Command buffer: address, and in bits 56..=59 its size.
    CommandBuffer = 0x08,
    /// Event log: the same.
    EventLog = 0x10,
    /// Control; bits in [`control`].
    Control = 0x18,
    /// Extended features.
    Features = 0x30,
    /// Command buffer head.
    CommandHead = 0x2000,
    /// Command buffer tail.
    CommandTail = 0x2008,
    /// Event log head.
    EventHead = 0x2010,
    /// Event log tail.
    EventTail = 0x2018,
    /// Status; bits in [`status`].
    Status = 0x2020,
}

/// Bits of the control register.
pub mod control {
    /// Translation is on.
    pub const ENABLED: u64 = 1 << 0;
    /// Events are logged.
    pub const EVENT_LOG: u64 = 1 << 2;
    /// Logged events raise the unit's interrupt.
    pub const EVENT_INTERRUPT: u64 = 1 << 3;
    /// Reads of tables snoop caches.
    pub const COHERENT: u64 = 1 << 10;
    /// Commands are fetched.
    pub const COMMANDS: u64 = 1 << 12;
}

/// Bits of the status register; cleared by writing one.
pub mod status {
    /// Events were dropped, and none are logged any more.
    pub const EVENT_OVERFLOW: u64 = 1 << 0;
    /// There is an event.
    pub const EVENT_INTERRUPT: u64 = 1 << 1;
}

/// Features: everything can be invalidated with one command.
const INVALIDATE_ALL: u64 = 1 << 6;
/// Size field of buffers of one page: 2^8 entries.
const ONE_PAGE: u64 = 8 << 56;
/// Registers that are used.
const WINDOW: usize = 0x4000;

/// Why a unit does not work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UnitError {
    /// Nothing answers at its registers, or too few are mapped.
    #[error("nothing answers at its registers")]
    Absent,
    /// No memory is left for the tables.
    #[error("no memory is left for its tables")]
    Tables,
    /// Firmware left it on, and it has no way to forget everything.
    #[error("firmware left it on, and it cannot forget everything")]
    CannotForget,
    /// It did not confirm a command.
    #[error("it did not confirm a command")]
    Unconfirmed,
}

impl From<Exhausted> for UnitError {
    fn from(_: Exhausted) -> Self {
        Self::Tables
    }
}

/// Whether a unit can be relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Yes.
    Running,
    /// No.
    Failed(UnitError),
}

/// One unit.
pub struct Unit<M> {
    registers: M,
    /// Command buffer and event log, once there is memory for them.
    buffers: Option<(Commands, Page)>,
    state: State,
}

impl<M: Mmio> Unit<M> {
    /// Takes a unit over; see the module.
    pub fn start<T: TableMemory>(registers: M, tables: &mut Tables<'_, T>, devices: Page) -> Self {
        let mut unit = Self {
            registers,
            buffers: None,
            state: State::Running,
        };
        if let Err(error) = unit.take_over(tables, devices) {
            unit.state = State::Failed(error);
        }
        unit
    }

    /// Takes up a unit that an earlier life of the shard has left running. One that does not use our tables is taken over;
    /// what these say has to be looked through first.
    pub fn adopt<T: TableMemory>(registers: M, tables: &mut Tables<'_, T>, devices: Page) -> Self {
        let mut unit = Self {
            registers,
            buffers: None,
            state: State::Running,
        };
        if let Err(error) = unit.take_up(tables, devices) {
            unit.state = State::Failed(error);
        }
        unit
    }

    fn take_up<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        devices: Page,
    ) -> Result<(), UnitError> {
        let (commands, status, log) = self.pages(tables)?;
        let on = control::ENABLED | control::COMMANDS;
        let ours = self.read(Register::Control) & on == on
            && self.read(Register::DeviceTable) == tables.physical(devices) | SIZE_CODE
            && self.read(Register::CommandBuffer) == tables.physical(commands) | ONE_PAGE
            && self.read(Register::EventLog) == tables.physical(log) | ONE_PAGE;
        if !ours {
            return self.use_pages(tables, devices, (commands, status, log));
        }
        if self.read(Register::Features) & INVALIDATE_ALL == 0 {
            return Err(UnitError::CannotForget);
        }
        let mut buffer = Commands::new(commands, status);
        for _ in 0..STATUS_POLLS {
            let tail = self.read(Register::CommandTail);
            if self.read(Register::CommandHead) == tail {
                buffer.go_on(tables, (tail / 16) as u16);
                self.buffers = Some((buffer, log));
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(UnitError::Unconfirmed)
    }

    /// Has the unit forget everything.
    ///
    /// # Errors
    /// The unit has failed, now or before.
    pub fn forget_everything<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
    ) -> Result<(), UnitError> {
        self.run(tables, &[Command::Everything])
    }

    /// Pages for command buffer, status and event log.
    fn pages<T: TableMemory>(
        &self,
        tables: &mut Tables<'_, T>,
    ) -> Result<(Page, Page, Page), UnitError> {
        if self.registers.len() < WINDOW || self.read(Register::Control) == u64::MAX {
            return Err(UnitError::Absent);
        }
        Ok((tables.take()?, tables.take()?, tables.take()?))
    }

    fn take_over<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        devices: Page,
    ) -> Result<(), UnitError> {
        let pages = self.pages(tables)?;
        self.use_pages(tables, devices, pages)
    }

    fn use_pages<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        devices: Page,
        (commands, status, log): (Page, Page, Page),
    ) -> Result<(), UnitError> {
        let left = self.read(Register::Control);
        let features = self.read(Register::Features);
        let was_on = left & control::ENABLED != 0;
        if was_on && features & INVALIDATE_ALL == 0 {
            return Err(UnitError::CannotForget);
        }
        let on = left & control::ENABLED;
        self.write(Register::Control, on | control::COHERENT);
        let table = tables.physical(devices) | SIZE_CODE;
        self.write(Register::DeviceTable, table);
        self.write(
            Register::CommandBuffer,
            tables.physical(commands) | ONE_PAGE,
        );
        self.write(Register::CommandHead, 0);
        self.write(Register::CommandTail, 0);
        self.write(Register::EventLog, tables.physical(log) | ONE_PAGE);
        self.write(Register::EventHead, 0);
        self.write(Register::EventTail, 0);
        self.buffers = Some((Commands::new(commands, status), log));
        let logging = control::EVENT_LOG | control::EVENT_INTERRUPT;
        let working = control::COHERENT | control::COMMANDS | logging;
        self.write(Register::Control, control::ENABLED | working);
        if features & INVALIDATE_ALL != 0 {
            self.run(tables, &[Command::Everything])?;
        }
        Ok(())
    }

    fn read(&self, register: Register) -> u64 {
        self.registers.read64(register as usize)
    }

    fn write(&mut self, register: Register, value: u64) {
        self.registers.write64(register as usize, value);
    }

    /// Whether it can be relied on.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its registers and event log, for events; `None` when it never worked.
    pub fn events(&mut self) -> Option<(&mut M, Page)> {
        let (_, log) = self.buffers.as_ref()?;
        Some((&mut self.registers, *log))
    }

    /// Carries out commands and waits.
    ///
    /// # Errors
    /// The unit has failed, now or before.
    pub fn run<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        batch: &[Command],
    ) -> Result<(), UnitError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        let (commands, _) = self.buffers.as_mut().ok_or(UnitError::Tables)?;
        if commands.run(&mut self.registers, tables, batch) {
            return Ok(());
        }
        self.state = State::Failed(UnitError::Unconfirmed);
        Err(UnitError::Unconfirmed)
    }
}
