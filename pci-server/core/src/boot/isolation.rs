//! What keeps functions apart: [`look`] decodes what the groups need to know of a function and
//! switches access control on where it has some.

use hw::capability::{
    AccessControl, AcsServices, AddressTranslation, CapabilityError, CapabilityList, DeviceControl,
    Express,
};
use hw::header::{BusNumbers, ClassCode, Header, Layout, register};
use hw::{ConfigSpace, Sbdf};
use ipc_proto::Switch;
use system::info::PciInfo;

use super::examine::hidden;
use crate::device::AccessRegister;
use crate::groups::{self, Kind, Node};
use crate::translation::TranslationCache;
use crate::{Device, Withheld};

/// Whether a function may be written to when it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// It is nobody's.
    Free,
    /// It is held, or what is on it is: it is only read.
    Held,
}

/// Fills in the function's [`Node`], as far as it is the function's own. Access control of ports, and of
/// functions that may be given out, is switched on if there is an IOMMU to send
/// requests to; phantom functions of the latter are switched off. Gives the PCI Express capability.
///
/// # Errors
/// That of the capability: everything is done as if there were none.
pub(crate) fn look<C: ConfigSpace>(
    cfg: &mut C,
    device: &mut Device,
    header: &Header,
    list: &CapabilityList,
    info: &PciInfo,
    touch: Touch,
) -> Result<Option<Express>, CapabilityError> {
    let redirect = info.iommu_present;
    let at = device.at;
    let express = list.find::<Express, C>(cfg, at);
    let ours = match device.withheld {
        None => true,
        Some(why) => why == Withheld::Bridge,
    };
    let mut node = Node::new(at);
    node.is_virtual = device.physical.is_some();
    node.kind = match express {
        Ok(express) => Kind::new(express.map(|express| express.port)),
        Err(_) => Kind::Never,
    };
    if header.layout != Layout::Endpoint {
        node.behind = BusNumbers::read(cfg, at).behind();
    }
    if let Ok(Some(express)) = express {
        node.phantom_bits = phantom_bits(cfg, device, &express, touch);
    }
    device.hidden = hidden(cfg, device, list);
    if let Ok(Some(cache)) = list.find_extended::<AddressTranslation, C>(cfg, at)
        && device.withheld.is_none()
    {
        let cache = TranslationCache::new(&cache);
        if touch == Touch::Free {
            cache.switch(cfg, at, Switch::Off);
        }
        device.translation = (info.ats.iter())
            .any(|rule| rule.matches(at, device.ids, device.class))
            .then_some(cache);
    }
    if device.withheld.is_none() && is_console(cfg, at, header) {
        device.withhold(Withheld::Console);
    }
    if let Ok(Some(access)) = list.find_extended::<AccessControl, C>(cfg, at) {
        let wanted = groups::isolating(&access);
        if ours && redirect {
            let register = AccessRegister {
                offset: access.control_register(),
                value: wanted.bits(),
            };
            if touch == Touch::Free {
                register.restore(cfg, at);
            }
            device.access_control = Some(register);
        }
        let control = AcsServices::from_bits_retain(cfg.read16(at, access.control_register()));
        node.isolates = groups::isolates(&AccessControl { control, ..access });
    }
    device.node = node;
    express
}

/// Uppermost bits of its number with which the function sends too; off for what may be given out.
fn phantom_bits<C: ConfigSpace>(
    cfg: &mut C,
    device: &Device,
    express: &Express,
    touch: Touch,
) -> u8 {
    let registers = express.device(cfg, device.at);
    if !registers.control.contains(DeviceControl::PHANTOM_FUNCTIONS) {
        return 0;
    }
    let register = express.device_control_register();
    if device.withheld.is_none() && touch == Touch::Free {
        let control = registers
            .control
            .difference(DeviceControl::PHANTOM_FUNCTIONS | DeviceControl::INITIATE_FLR);
        cfg.write16(device.at, register, control.bits());
    }
    let now = DeviceControl::from_bits_retain(cfg.read16(device.at, register));
    if now.contains(DeviceControl::PHANTOM_FUNCTIONS) {
        registers.capabilities.phantom_bits()
    } else {
        0
    }
}

/// First I/O port of the serial line that the console service writes to.
const CONSOLE_PORT: u32 = 0x3f8;

/// Is it a serial controller at the ports of the console?
fn is_console<C: ConfigSpace>(cfg: &C, at: Sbdf, header: &Header) -> bool {
    let ClassCode { base, sub, .. } = header.class;
    let bars = (register::BAR0..).step_by(4).take(6);
    (base, sub, header.layout) == (0x07, 0x00, Layout::Endpoint)
        && bars
            .map(|offset| cfg.read32(at, offset))
            .any(|bar| bar & 1 != 0 && bar & !7 == CONSOLE_PORT)
}
