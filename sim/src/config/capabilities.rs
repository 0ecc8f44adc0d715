//! Capabilities of an [`Endpoint`], each put at the next free place and linked
//! to the one before, and register layouts of the families that need one.

use super::endpoint::Endpoint;
use super::space::ResetTrigger;

/// Device/port type of a PCI Express capability, by its number in the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// 0: endpoint.
    Endpoint = 0,
    /// 1: legacy endpoint.
    Legacy = 1,
    /// 4: root port.
    RootPort = 4,
    /// 5: upstream port of a switch.
    Upstream = 5,
    /// 6: downstream port of a switch.
    Downstream = 6,
    /// 7: bridge to conventional PCI.
    ToPci = 7,
    /// 9: endpoint integrated in the root complex.
    Integrated = 9,
}

/// A PCI Express capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpressShape {
    /// What the function is.
    pub kind: PortKind,
    /// Can be reset alone.
    pub flr: bool,
    /// Slot number, if it has a slot, which is then hot-pluggable.
    pub slot: Option<u16>,
}

/// An MSI capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiShape {
    /// 64-bit addresses.
    pub wide: bool,
    /// Mask and pending bits.
    pub maskable: bool,
    /// The function asks for two to the power of this many vectors.
    pub vectors_log2: u8,
}

/// An MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixShape {
    /// Entries of the table, 1 to 2048.
    pub entries: u16,
    /// BAR and offset of the table.
    pub table: (u8, u32),
    /// BAR and offset of the pending bits.
    pub pending: (u8, u32),
}

impl Endpoint {
    /// Appends a capability: `body` is what follows id and next pointer; `writable` its masks.
    #[must_use]
    pub fn capability(mut self, id: u8, body: &[u8], writable: &[u8]) -> Self {
        let at = self.append(id, body);
        self.space.allow(at + 2, writable);
        self
    }

    /// Links the last capability to `offset`, which may be any byte: for broken lists.
    #[must_use]
    pub fn link_last_to(mut self, offset: u8) -> Self {
        let link = self.last_link.unwrap_or(0x34);
        self.space.set(link, &[offset]);
        if link == 0x34 {
            self.space.set(0x06, &0x0010u16.to_le_bytes());
        }
        self
    }

    /// Links the last extended capability to `offset`, which may be any 12 bits.
    #[must_use]
    pub fn link_last_extended_to(mut self, offset: u16) -> Self {
        match self.last_extended {
            Some(last) => self.link_extended(last, offset),
            None => panic!("no extended capability to link from"),
        }
        self
    }

    /// Appends an extended capability: `body` is what follows the four bytes of its header.
    #[must_use]
    pub fn extended(mut self, id: u16, version: u8, body: &[u8]) -> Self {
        let at = self.next_extended;
        let header = u32::from(id) | u32::from(version) << 16;
        self.space.set(at, &header.to_le_bytes());
        self.space.set(at + 4, body);
        if let Some(last) = self.last_extended {
            self.link_extended(last, at);
        }
        self.last_extended = Some(at);
        self.next_extended = (at + 4 + body.len() as u16).next_multiple_of(4);
        self
    }

    fn link_extended(&mut self, from: u16, to: u16) {
        let bytes = self.space.bytes();
        let upper = bytes.get(usize::from(from) + 2).copied().unwrap_or(0);
        let link = u16::from(upper & 0xf) | to << 4;
        self.space.set(from + 2, &link.to_le_bytes());
    }

    fn append(&mut self, id: u8, body: &[u8]) -> u16 {
        let at = self.next_capability;
        assert!(
            usize::from(at) + 2 + body.len() <= 256,
            "capability {id:#x} does not fit at {at:#x}"
        );
        self.space.set(at, &[id, 0]);
        self.space.set(at + 2, body);
        let link = self.last_link.unwrap_or(0x34);
        self.space.set(link, &[at as u8]);
        // Status: there is a list.
        self.space.set(0x06, &0x0010u16.to_le_bytes());
        self.last_link = Some(at + 1);
        self.next_capability = (at + 2 + body.len() as u16).next_multiple_of(4);
        at
    }

    /// Power management, in D0; `no_soft_reset` as the specification has it.
    #[must_use]
    pub fn power_management(mut self, no_soft_reset: bool) -> Self {
        // PMC: version 3, D1 and D2. PMCSR: bit 3.
        let control = if no_soft_reset { 0x8 } else { 0 };
        let at = self.append(0x01, &[0x03, 0x06, control, 0, 0, 0]);
        self.space.allow(at + 4, &[0x03, 0x01]);
        self.space.allow_clear(at + 5, &[0x80]);
        self
    }

    /// Advanced Features with function-level reset.
    #[must_use]
    pub fn advanced_features(mut self) -> Self {
        let at = self.append(0x13, &[0x06, 0x03, 0x00, 0x00]);
        self.space.reset_trigger = Some(ResetTrigger {
            offset: at + 4,
            bit: 0x01,
        });
        self
    }

    /// MSI.
    #[must_use]
    pub fn msi(mut self, shape: MsiShape) -> Self {
        let mut control = u16::from(shape.vectors_log2) << 1;
        let address = if shape.wide { 8 } else { 4 };
        // Message address, then 16 bits of data and 16 reserved ones.
        let mut writable = vec![0xfc, 0xff, 0xff, 0xff];
        if shape.wide {
            control |= 0x0080;
            writable.extend([0xff; 4]);
        }
        writable.extend([0xff, 0xff]);
        let mut length = 2 + address + 2;
        if shape.maskable {
            control |= 0x0100;
            let vectors = 1u32 << shape.vectors_log2;
            let mask = u32::MAX >> (32 - vectors);
            writable.extend([0, 0]);
            writable.extend(mask.to_le_bytes());
            length += 2 + 4 + 4;
        }
        let mut body = control.to_le_bytes().to_vec();
        body.resize(length, 0);
        let at = self.append(0x05, &body);
        // Control: enable, multiple message enable.
        self.space.allow(at + 2, &[0x71, 0x00]);
        self.space.allow(at + 4, &writable);
        self
    }

    /// MSI-X.
    #[must_use]
    pub fn msix(mut self, shape: MsixShape) -> Self {
        let control = shape.entries.wrapping_sub(1) & 0x7ff;
        let place = |(bar, offset): (u8, u32)| (offset | u32::from(bar)).to_le_bytes();
        let mut body = control.to_le_bytes().to_vec();
        body.extend(place(shape.table));
        body.extend(place(shape.pending));
        let at = self.append(0x11, &body);
        self.space.allow(at + 3, &[0xc0]);
        self
    }

    /// PCI Express, version 2.
    #[must_use]
    pub fn express(mut self, shape: ExpressShape) -> Self {
        let mut flags = 0x0002 | (shape.kind as u16) << 4;
        let mut slot = 0u32;
        if let Some(number) = shape.slot {
            flags |= 0x0100;
            // Attention button, power controller, surprise, hot-plug capable.
            slot = 0x0000_0063 | u32::from(number) << 19;
        }
        // Device capabilities: 256-byte payloads; bit 28 for function-level reset.
        let device: u32 = 0x0000_0001 | if shape.flr { 1 << 28 } else { 0 };
        let mut body = flags.to_le_bytes().to_vec();
        body.extend(device.to_le_bytes());
        body.resize(0x14 - 2, 0);
        body.extend(slot.to_le_bytes());
        body.resize(0x3c - 2, 0);
        let at = self.append(0x10, &body);
        // Device Control without the reset bit, Device Status.
        self.space.allow(at + 0x08, &[0xff, 0x7f]);
        self.space.allow_clear(at + 0x0a, &[0x0f]);
        if shape.slot.is_some() {
            self.space.allow(at + 0x18, &[0xff, 0x1f]);
            self.space.allow_clear(at + 0x1a, &[0x1f, 0x01]);
        }
        if shape.flr {
            self.space.reset_trigger = Some(ResetTrigger {
                offset: at + 0x09,
                bit: 0x80,
            });
        }
        self
    }
}
