//! What keeps functions apart: [`look`] decodes what the groups need to know of a function and
//! switches access control on where it has some.

use hw::ConfigSpace;
use hw::capability::{AccessControl, AcsServices, CapabilityList, DeviceControl, Express};
use hw::header::{BusNumbers, Header, Layout};

use crate::device::AccessRegister;
use crate::groups::{self, Kind, Node};
use crate::{Device, Withheld};

/// Fills in the function's [`Node`], as far as it is the function's own. Access control of ports, and of
/// functions that may be given out, is switched on if `redirect` says that there is an IOMMU to send
/// requests to; phantom functions of the latter are switched off.
pub(crate) fn look<C: ConfigSpace>(
    cfg: &mut C,
    device: &mut Device,
    header: &Header,
    redirect: bool,
) {
    let at = device.at;
    let list = CapabilityList::read(cfg, at, header.layout);
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
        node.phantom_bits = phantom_bits(cfg, device, &express);
    }
    if let Ok(Some(access)) = list.find_extended::<AccessControl, C>(cfg, at) {
        let wanted = groups::isolating(&access);
        if ours && redirect {
            let register = AccessRegister {
                offset: access.control_register(),
                value: wanted.bits(),
            };
            register.restore(cfg, at);
            device.access_control = Some(register);
        }
        let control = AcsServices::from_bits_retain(cfg.read16(at, access.control_register()));
        node.isolates = groups::isolates(&AccessControl { control, ..access });
    }
    device.node = node;
}

/// Uppermost bits of its number with which the function sends too; off for what may be given out.
fn phantom_bits<C: ConfigSpace>(cfg: &mut C, device: &Device, express: &Express) -> u8 {
    let registers = express.device(cfg, device.at);
    if !registers.control.contains(DeviceControl::PHANTOM_FUNCTIONS) {
        return 0;
    }
    let register = express.device_control_register();
    if device.withheld.is_none() {
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
