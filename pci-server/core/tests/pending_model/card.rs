//! [`Card`]: a device with messages, by the specification alone (MSI: PCI 3.0, 6.8.1; MSI-X: 6.8.2; both: PCIe 5.0, 6.1.4).

/// What messages a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Two to the power of `log2` messages of MSI.
    Msi {
        wide: bool,
        maskable: bool,
        log2: u8,
    },
    /// MSI-X.
    MsiX { entries: u16 },
}

impl Shape {
    pub fn messages(self) -> u16 {
        match self {
            Self::Msi { log2, .. } => 1 << log2,
            Self::MsiX { entries } => entries,
        }
    }

    /// Can single messages be masked?
    pub fn maskable(self) -> bool {
        match self {
            Self::Msi { maskable, .. } => maskable,
            Self::MsiX { .. } => true,
        }
    }
}

/// The device.
pub struct Card {
    shape: Shape,
    /// Pending bits stay while messages are disabled: the specification does not say.
    keeps: bool,
    /// Offset of the capability of messages.
    pub capability: usize,
    registers: Vec<u8>,
    /// As after a reset.
    initial: Vec<u8>,
    /// Address, upper address, data, vector control of each entry of the table.
    table: Vec<[u32; 4]>,
    pub pending: u32,
    /// Address and data of each message sent.
    pub sent: Vec<(u64, u32)>,
}

impl Card {
    pub fn new(shape: Shape, keeps: bool, registers: &[u8]) -> Self {
        // Vector control's mask bit is set after a reset (6.8.2.9).
        let table = match shape {
            Shape::Msi { .. } => Vec::new(),
            Shape::MsiX { entries } => vec![[0, 0, 0, 1]; entries.into()],
        };
        Self {
            shape,
            keeps,
            capability: registers[0x34].into(),
            registers: registers.to_vec(),
            initial: registers.to_vec(),
            table,
            pending: 0,
            sent: Vec::new(),
        }
    }

    fn half(&self, offset: usize) -> u16 {
        let at = self.capability + offset;
        u16::from_le_bytes([self.registers[at], self.registers[at + 1]])
    }

    fn word(&self, offset: usize) -> u32 {
        u32::from(self.half(offset)) | u32::from(self.half(offset + 2)) << 16
    }

    /// Offsets in MSI's capability that depend on the width of the address: data, mask bits, pending bits.
    fn places(wide: bool) -> (usize, usize, usize) {
        if wide {
            (0x0c, 0x10, 0x14)
        } else {
            (0x08, 0x0c, 0x10)
        }
    }

    /// Message control with other bits of the holder's.
    pub fn control_with(&self, enable: bool, mask: bool) -> u16 {
        let now = self.half(2);
        match self.shape {
            Shape::Msi { .. } => now & !1 | u16::from(enable),
            Shape::MsiX { .. } => now & 0x3fff | u16::from(enable) << 15 | u16::from(mask) << 14,
        }
    }

    /// Where MSI's mask bits are, and what of `value` there is of them.
    pub fn masks_with(&self, value: u32) -> Option<(usize, u32)> {
        match self.shape {
            Shape::Msi {
                wide,
                maskable: true,
                ..
            } => Some((Self::places(wide).1, value & self.implemented())),
            _ => None,
        }
    }

    fn implemented(&self) -> u32 {
        u32::MAX >> (32 - u32::from(self.shape.messages()))
    }

    /// Where the pending bits are, if in configuration space.
    pub fn pending_register(&self) -> Option<u16> {
        match self.shape {
            Shape::Msi {
                wide,
                maskable: true,
                ..
            } => Some((self.capability + Self::places(wide).2) as u16),
            // Nowhere: they stay zero, and a byte beyond all capabilities takes them.
            Shape::Msi { .. } => Some(0xf0),
            Shape::MsiX { .. } => None,
        }
    }

    fn enabled(&self) -> bool {
        match self.shape {
            Shape::Msi { .. } => self.half(2) & 1 != 0,
            Shape::MsiX { .. } => self.half(2) >> 15 != 0,
        }
    }

    /// Messages that software has given the device.
    fn given(&self) -> u16 {
        match self.shape {
            Shape::Msi { .. } => 1 << (self.half(2) >> 4 & 7),
            Shape::MsiX { entries } => entries,
        }
    }

    fn masked(&self, message: u16) -> bool {
        match self.shape {
            Shape::Msi {
                maskable: false, ..
            } => false,
            Shape::Msi { wide, .. } => self.word(Self::places(wide).1) >> message & 1 != 0,
            Shape::MsiX { .. } => {
                self.half(2) >> 14 & 1 != 0 || self.table[usize::from(message)][3] & 1 != 0
            }
        }
    }

    fn send(&mut self, message: u16) {
        let sent = match self.shape {
            Shape::Msi { wide, .. } => {
                let upper = if wide { self.word(8) } else { 0 };
                let data = self.half(Self::places(wide).0);
                let data = data & !(self.given() - 1) | message;
                (
                    u64::from(self.word(4)) | u64::from(upper) << 32,
                    data.into(),
                )
            }
            Shape::MsiX { .. } => {
                let [low, high, data, _] = self.table[usize::from(message)];
                (u64::from(low) | u64::from(high) << 32, data)
            }
        };
        self.sent.push(sent);
    }

    /// The device has reason to send a message. One that it was not given it does not have.
    pub fn raise(&mut self, message: u16) {
        if !self.enabled() || message >= self.given() {
            return;
        }
        match self.masked(message) {
            true => self.pending |= 1 << message,
            false => self.send(message),
        }
    }

    /// A write to configuration space.
    pub fn write(&mut self, offset: u16, width: u8, value: u32) {
        let offset = usize::from(offset);
        let reset = match self.shape {
            // Advanced features follow MSI: control is at 4.
            Shape::Msi { .. } => {
                let next = usize::from(self.registers[self.capability + 1]);
                offset == next + 4 && value & 1 != 0
            }
            // Device control of PCI Express is at 8.
            Shape::MsiX { .. } => {
                let next = usize::from(self.registers[self.capability + 1]);
                offset == next + 8 && width > 1 && value >> 15 & 1 != 0
            }
        };
        if reset {
            self.registers.copy_from_slice(&self.initial);
            self.table.fill([0, 0, 0, 1]);
            self.pending = 0;
            return;
        }
        for (at, byte) in (offset..).zip(value.to_le_bytes()).take(width.into()) {
            let mask = self.writable(at);
            let now = &mut self.registers[at];
            *now = *now & !mask | byte & mask;
        }
        self.settle();
    }

    /// Bits of a byte that software can write, of the capability.
    fn writable(&self, at: usize) -> u8 {
        let Some(at) = at.checked_sub(self.capability) else {
            return 0;
        };
        match (self.shape, at) {
            (Shape::MsiX { .. }, 3) => 0xc0,
            (Shape::MsiX { .. }, _) => 0,
            (Shape::Msi { .. }, 2) => 0x71,
            (Shape::Msi { .. }, 4) => 0xfc,
            (Shape::Msi { .. }, 5..8) => 0xff,
            (Shape::Msi { wide, maskable, .. }, _) => {
                let (data, masks, pending) = Self::places(wide);
                if wide && (8..12).contains(&at) || (data..data + 2).contains(&at) {
                    0xff
                } else if maskable && (masks..pending).contains(&at) {
                    self.implemented().to_le_bytes()[at - masks]
                } else {
                    0
                }
            }
        }
    }

    /// A write to the table.
    pub fn write_table(&mut self, offset: u32, value: u32) {
        let (entry, field) = (offset as usize / 16, offset as usize % 16 / 4);
        self.table[entry][field] = value;
        self.settle();
    }

    /// What is pending is sent as soon as nothing masks it.
    fn settle(&mut self) {
        if !self.enabled() {
            if !self.keeps {
                self.pending = 0;
            }
            return;
        }
        for message in 0..self.given() {
            if self.pending >> message & 1 != 0 && !self.masked(message) {
                self.pending &= !(1 << message);
                self.send(message);
            }
        }
    }
}
