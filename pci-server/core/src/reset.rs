//! Resets as steps: [`advance`] does one and says how long to wait for the
//! next, so that nobody else waits. [`restore`] puts the registers back.
//!
//! FLR: PCIe 5.0, 6.6.2. Advanced Features FLR: PCI ECN 2006. D3hot to D0 (where
//! it resets): PCIe 5.0, 5.3.1.4 and 5.9.

use hw::capability::{AdvancedFeatures, Express, PowerState};
use hw::header::{BridgeControl, Command, register};
use hw::{ConfigSpace, Sbdf};
use ipc_proto::{BarKind, ResetKind};
use thiserror::Error;

use crate::Device;
use crate::device::{Baseline, Presence};

/// Between two looks at pending transactions.
const PENDING_POLL_US: u64 = 10_000;
/// Looks at pending transactions before going on: 100 ms.
const PENDING_POLLS: u8 = 10;
/// From a function-level reset to the first access.
const FLR_US: u64 = 100_000;
/// From one power state to the next.
const POWER_US: u64 = 10_000;
/// For how long a bus is held in reset: 1 ms and some.
pub const HOLD_US: u64 = 2_000;
/// From the end of a bus's reset to the first access.
pub const BUS_US: u64 = 100_000;
/// Between two looks at whether a device is back.
pub const RETURN_POLL_US: u64 = 20_000;
/// Looks at whether it is back: with the first wait 1 s, as long as a device may take (PCIe 5.0, 6.6.1).
pub const RETURN_POLLS: u8 = 45;

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Wait until no transaction is pending (this many more looks), then start the reset.
    Drain(u8),
    /// Back to the power state D0, before anything else.
    Wake,
    /// To the power state D3hot, and no further.
    Sleep,
    /// It is there.
    Asleep,
    /// Back to the power state D0.
    PowerUp,
    /// Let go of the bus that is held in reset.
    LetGo,
    /// See whether the device is back (this many more looks).
    Return(u8),
}

impl Step {
    /// The first one.
    pub const FIRST: Self = Self::Drain(PENDING_POLLS);

    /// The first one for a device as it is now: its holder may have put it to sleep.
    pub fn first<C: ConfigSpace>(cfg: &C, device: &Device) -> Self {
        match power_state(cfg, device) {
            PowerState::D0 => Self::FIRST,
            _ => Self::Wake,
        }
    }
}

/// The power state of a device; D0 for one without power management, or that is gone.
pub fn power_state<C: ConfigSpace>(cfg: &C, device: &Device) -> PowerState {
    let control = device
        .power
        .map(|power| cfg.read16(device.at, power.control_register()));
    match control {
        None | Some(u16::MAX) => PowerState::D0,
        Some(control) => PowerState::from_bits(control),
    }
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Do this step after so many microseconds.
    Wait(u64, Step),
    /// The device is quiet, and reset if it has a reset.
    Done,
    /// It cannot be brought to rest.
    Failed(Failure),
}

/// Why a device cannot be brought to rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Failure {
    /// It reads all ones.
    #[error("does not answer any more")]
    Vanished,
    /// It did not answer within a second after its reset.
    #[error("did not come back from its reset")]
    Timeout,
    /// Transactions stay pending, and it has no reset.
    #[error("transactions stay pending")]
    Pending,
    /// A register does not hold what was put back.
    #[error("registers cannot be restored")]
    NotRestored,
    /// Bus mastering cannot be switched off.
    #[error("bus mastering stays on")]
    ControlStuck,
    /// It was taken out, or its power was.
    #[error("was removed")]
    Removed,
    /// The port above it contained an error, and keeps the link off.
    #[error("was cut off after an error")]
    Contained,
    /// It did not answer the invalidation of its cache of translations.
    #[error("keeps cached translations")]
    Cached,
    /// Its capability could not be revoked.
    #[error("keeps its capability")]
    NotRevoked,
}

/// Does one step of bringing the device to rest: without pending transactions, and reset if it
/// has a reset. Bus mastering is off before the first one.
pub fn advance<C: ConfigSpace>(cfg: &mut C, device: &Device, step: Step) -> Progress {
    match step {
        Step::Drain(left) => {
            if device.presence(cfg) == Presence::Gone {
                return Progress::Failed(Failure::Vanished);
            }
            match (is_pending(cfg, device), left.checked_sub(1), device.reset) {
                (true, Some(left), _) => Progress::Wait(PENDING_POLL_US, Step::Drain(left)),
                // A reset ends them.
                (_, _, Some(kind)) => start(cfg, device, kind),
                (true, None, None) => Progress::Failed(Failure::Pending),
                (false, _, None) => Progress::Done,
            }
        }
        Step::Wake => {
            set_power(cfg, device, PowerState::D0);
            Progress::Wait(POWER_US, Step::FIRST)
        }
        Step::Sleep => {
            set_power(cfg, device, PowerState::D3Hot);
            Progress::Wait(POWER_US, Step::Asleep)
        }
        Step::Asleep => match device.presence(cfg) {
            Presence::Gone => Progress::Failed(Failure::Vanished),
            Presence::Same | Presence::Other => Progress::Done,
        },
        Step::PowerUp => {
            set_power(cfg, device, PowerState::D0);
            Progress::Wait(POWER_US, Step::Return(RETURN_POLLS))
        }
        Step::LetGo => {
            if let Some(bridge) = device.reset_bridge {
                let_go_of_bus(cfg, bridge);
            }
            Progress::Wait(BUS_US, Step::Return(RETURN_POLLS))
        }
        Step::Return(left) => {
            // Until then it reads all ones, or 0001h as vendor (PCIe 5.0, 2.3.2).
            let back = device.presence(cfg) == Presence::Same;
            match (back, left.checked_sub(1)) {
                (true, _) => Progress::Done,
                (false, Some(left)) => Progress::Wait(RETURN_POLL_US, Step::Return(left)),
                (false, None) => Progress::Failed(Failure::Timeout),
            }
        }
    }
}

fn is_pending<C: ConfigSpace>(cfg: &C, device: &Device) -> bool {
    let express = device.express.is_some_and(|express| {
        let status = cfg.read16(device.at, express.device_status_register());
        status & Express::TRANSACTIONS_PENDING != 0
    });
    let features = device.features.is_some_and(|features| {
        let status = cfg.read8(device.at, features.status_register());
        features.transactions_pending && status & AdvancedFeatures::TRANSACTIONS_PENDING != 0
    });
    express || features
}

fn start<C: ConfigSpace>(cfg: &mut C, device: &Device, kind: ResetKind) -> Progress {
    match kind {
        ResetKind::None => Progress::Done,
        // Alone on its bus: the bus is reset in its place.
        ResetKind::Bus => match device.reset_bridge {
            Some(bridge) => {
                hold_bus(cfg, bridge);
                Progress::Wait(HOLD_US, Step::LetGo)
            }
            None => Progress::Done,
        },
        ResetKind::Flr => {
            if let Some(express) = device.express {
                let control = express.device_control_register();
                let value = cfg.read16(device.at, control) | Express::INITIATE_FLR;
                cfg.write16(device.at, control, value);
            }
            Progress::Wait(FLR_US, Step::Return(RETURN_POLLS))
        }
        ResetKind::AfFlr => {
            if let Some(features) = device.features {
                let control = features.control_register();
                cfg.write8(device.at, control, AdvancedFeatures::INITIATE_FLR);
            }
            Progress::Wait(FLR_US, Step::Return(RETURN_POLLS))
        }
        ResetKind::PowerCycle => {
            set_power(cfg, device, PowerState::D3Hot);
            Progress::Wait(POWER_US, Step::PowerUp)
        }
    }
}

/// Holds everything behind a bridge in reset, for [`HOLD_US`] at least (PCIe 5.0, 7.5.1.3.13).
pub fn hold_bus<C: ConfigSpace>(cfg: &mut C, bridge: Sbdf) {
    let control = BridgeControl::from_bits_retain(cfg.read16(bridge, register::BRIDGE_CONTROL));
    let held = control | BridgeControl::SECONDARY_BUS_RESET;
    cfg.write16(bridge, register::BRIDGE_CONTROL, held.bits());
}

/// Ends it; nothing behind the bridge may be touched for [`BUS_US`] (PCIe 5.0, 6.6.1).
pub fn let_go_of_bus<C: ConfigSpace>(cfg: &mut C, bridge: Sbdf) {
    let control = BridgeControl::from_bits_retain(cfg.read16(bridge, register::BRIDGE_CONTROL));
    let free = control - BridgeControl::SECONDARY_BUS_RESET;
    cfg.write16(bridge, register::BRIDGE_CONTROL, free.bits());
}

fn set_power<C: ConfigSpace>(cfg: &mut C, device: &Device, state: PowerState) {
    if let Some(power) = device.power {
        let register = power.control_register();
        // PME status (bit 15) is cleared by writing one: it keeps its value. PME stays off.
        let value = cfg.read16(device.at, register) & !(1 << 15 | 1 << 8 | 0b11);
        cfg.write16(device.at, register, value | state.bits());
    }
}

/// What a reset of a held device must bring back besides the registers that never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Command.
    pub command: u16,
    /// PCI Express Device Control.
    pub device_control: u16,
}

impl Kept {
    /// What the holder has set up.
    pub fn read<C: ConfigSpace>(cfg: &C, device: &Device) -> Self {
        Self {
            command: cfg.read16(device.at, register::COMMAND),
            device_control: device.express.map_or(0, |express| {
                let control = cfg.read16(device.at, express.device_control_register());
                control & !Express::INITIATE_FLR
            }),
        }
    }

    /// What a device without a holder has.
    #[must_use]
    pub const fn baseline(device: &Device) -> Self {
        Self {
            command: device.baseline.command,
            device_control: device.baseline.device_control,
        }
    }
}

/// Offset of PCI Express Link Control and Device Control 2 (PCIe 5.0, 7.5.3.7 and 7.5.3.16).
pub(crate) const LINK_CONTROL: u16 = 0x10;
pub(crate) const DEVICE_CONTROL2: u16 = 0x28;

/// Puts every register back that a reset may have changed, Command last.
///
/// # Errors
/// `NotRestored` when a BAR or Command does not hold its value, `ControlStuck`.
pub fn restore<C: ConfigSpace>(cfg: &mut C, device: &Device, kept: Kept) -> Result<(), Failure> {
    let at = device.at;
    let Baseline {
        command: _,
        cache_line,
        interrupt_line,
        rom,
        device_control: _,
        link_control,
        device_control2,
    } = device.baseline;
    cfg.write16(at, register::CACHE_LINE, cache_line);
    cfg.write8(at, register::INTERRUPT_LINE, interrupt_line);
    cfg.write32(at, register::ROM_ENDPOINT, rom);
    let mut held = true;
    // A virtual function's BARs are its physical function's (PCIe 5.0, 9.3.4.1).
    let own = if device.physical.is_some() {
        [].as_slice()
    } else {
        &device.bars
    };
    for (offset, region) in (register::BAR0..).step_by(4).zip(own) {
        if region.kind == BarKind::None {
            continue;
        }
        held &= put(cfg, device, offset, region.base as u32);
        if region.kind == BarKind::Memory64 {
            held &= put(cfg, device, offset + 4, (region.base >> 32) as u32);
        }
    }
    if let Some(express) = device.express {
        let offset = u16::from(express.offset);
        cfg.write16(at, offset + LINK_CONTROL, link_control);
        if express.version >= 2 {
            cfg.write16(at, offset + DEVICE_CONTROL2, device_control2);
        }
    }
    if let Some(access) = device.access_control {
        access.restore(cfg, at);
    }
    set_control(cfg, device, kept)?;
    if held {
        Ok(())
    } else {
        Err(Failure::NotRestored)
    }
}

/// Sets Device Control and Command.
///
/// # Errors
/// `ControlStuck`, `NotRestored`, `Vanished`.
pub fn set_control<C: ConfigSpace>(
    cfg: &mut C,
    device: &Device,
    kept: Kept,
) -> Result<(), Failure> {
    if let Some(express) = device.express {
        cfg.write16(
            device.at,
            express.device_control_register(),
            kept.device_control,
        );
    }
    cfg.write16(device.at, register::COMMAND, kept.command);
    let command = cfg.read16(device.at, register::COMMAND);
    let wrong = Command::from_bits_retain(command ^ kept.command);
    if command == u16::MAX {
        Err(Failure::Vanished)
    } else if wrong.contains(Command::BUS_MASTER) {
        Err(Failure::ControlStuck)
    } else if wrong.contains(Command::MEMORY_SPACE) && device.physical.is_none() {
        Err(Failure::NotRestored)
    } else {
        Ok(())
    }
}

/// Writes a BAR; the low bits are not the register's to hold.
fn put<C: ConfigSpace>(cfg: &mut C, device: &Device, offset: u16, value: u32) -> bool {
    cfg.write32(device.at, offset, value);
    // The address of a memory BAR is a multiple of 16, of IO ports of 4.
    let now = cfg.read32(device.at, offset);
    (now ^ value) & !0xf == 0
}
