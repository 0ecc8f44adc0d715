//! SR-IOV: virtual functions that are there while their physical function says
//! so (PCIe 5.0, 9.3.3). They have no ids and no memory decoding of their own.

use hw::Sbdf;

use super::Machine;
use super::endpoint::Endpoint;
use super::space::Space;

/// Registers from the start of the capability.
const CONTROL: usize = 0x08;
const COUNT: usize = 0x10;
const ENABLE: u8 = 1 << 0;

/// SR-IOV of an [`Endpoint`].
#[derive(Clone, Debug)]
pub struct VirtualShape {
    /// How many there may be.
    pub total: u16,
    /// From the physical function's requester id to the first one's.
    pub first_offset: u16,
    /// From one to the next.
    pub stride: u16,
    /// Their device id.
    pub device: u16,
    /// Bytes of BAR 0 of each (64-bit memory), a power of two; 0: none.
    pub bar_bytes: u64,
}

/// SR-IOV of a function in the machine.
#[derive(Clone, Debug)]
pub(super) struct Virtualization {
    offset: u16,
    shape: VirtualShape,
    template: Box<Space>,
}

impl Endpoint {
    /// Appends SR-IOV; `template` is what each virtual function has besides. Its ids and Command's
    /// decoding bits are taken away here.
    #[must_use]
    pub fn virtualization(mut self, shape: VirtualShape, template: Endpoint) -> Self {
        let mut body = [0; 0x3c];
        let mut put = |register: usize, bytes: &[u8]| {
            if let Some(place) = body.get_mut(register - 4..register - 4 + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0x0c, &shape.total.to_le_bytes());
        put(0x0e, &shape.total.to_le_bytes());
        put(0x14, &shape.first_offset.to_le_bytes());
        put(0x16, &shape.stride.to_le_bytes());
        put(0x1a, &shape.device.to_le_bytes());
        put(0x1c, &0x553u32.to_le_bytes());
        put(0x20, &1u32.to_le_bytes());
        // BAR 0: 64-bit memory.
        if shape.bar_bytes > 0 {
            put(0x24, &4u32.to_le_bytes());
        }
        self = self.extended(0x10, 1, &body);
        let at = self.last_extended.unwrap_or(0);
        self.space.allow(at + 0x08, &[0x19, 0]);
        self.space.allow(at + 0x10, &[0xff, 0xff]);
        self.space.allow(at + 0x20, &[0xff; 4]);
        let writable = if shape.bar_bytes > 0 {
            !(shape.bar_bytes - 1)
        } else {
            0
        };
        self.space
            .allow(at + 0x24, &(writable as u32 & !0xf).to_le_bytes());
        self.space
            .allow(at + 0x28, &((writable >> 32) as u32).to_le_bytes());
        let mut space = template.space;
        space.set(0x00, &[0xff; 4]);
        space.allow(0x04, &[0x44, 0x01]);
        self.space.virtualization = Some(Virtualization {
            offset: at,
            shape,
            template: Box::new(space),
        });
        self
    }
}

impl Machine {
    /// Virtual functions come and go with the registers of the physical one.
    pub(super) fn update_virtual(&mut self, at: Sbdf) {
        let Some(function) = self.functions.get(&at) else {
            return;
        };
        let space = function.borrow();
        let Some(virtualization) = space.virtualization.clone() else {
            return;
        };
        let Virtualization {
            offset,
            shape,
            template,
        } = virtualization;
        let byte = |register: usize| {
            let at = usize::from(offset) + register;
            space.bytes().get(at).copied().unwrap_or(0)
        };
        let wanted = match byte(CONTROL) & ENABLE {
            0 => 0,
            _ => u16::from_le_bytes([byte(COUNT), byte(COUNT + 1)]).min(shape.total),
        };
        drop(space);
        for number in 0..shape.total {
            let distance =
                u32::from(shape.first_offset) + u32::from(number) * u32::from(shape.stride);
            let Ok(id) = u16::try_from(u32::from(at.requester_id()) + distance) else {
                return;
            };
            let virtual_function = Sbdf::from_requester_id(at.segment(), id);
            let there = self.functions.contains_key(&virtual_function);
            if number < wanted && !there {
                self.insert(virtual_function, (*template).clone());
            } else if number >= wanted && there {
                self.remove(virtual_function);
            }
        }
    }
}
