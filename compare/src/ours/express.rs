//! Fields of the PCI Express capability.

mod device;
mod link;
mod slot;

use hw::capability::{CapabilityError, Express, PortType};

use super::{Source, words};
use crate::field::{Fields, Presence, Value};

/// All fields that lspci has, in its order.
pub fn read(
    source: Source<'_>,
    express: Express,
    fields: &mut Fields,
) -> Result<(), CapabilityError> {
    let Source { cfg, at, .. } = source;
    let port = express.port;
    let kind = words::port(port, express.slot.is_some());
    let message = express.interrupt_message;
    fields
        .text("", format!("(v{}) {kind}", express.version))
        .either(&[
            ("MSI", Value::Hex(u64::from(message))),
            ("IntMsgNum", Value::Text(message.to_string())),
        ]);
    if express.flit_mode {
        fields
            .presence(Presence::Perhaps)
            .text("FLIT Mode Supported", "");
    }
    device::first(port, express.device(cfg, at), fields);
    if let Some(registers) = express.link(cfg, at)? {
        link::first(port, registers, fields);
    }
    if let Some(registers) = express.slot_registers(cfg, at) {
        slot::slot(registers, fields);
    }
    if let Some(registers) = express.root(cfg, at)? {
        slot::root(registers, fields);
    }
    if let Some(registers) = express.device2(cfg, at)? {
        device::second(port, registers, fields);
    }
    if let Some(registers) = express.link2(cfg, at)? {
        link::second(source, port, registers, fields);
    }
    Ok(())
}

/// What sits at the end of a link.
const ENDPOINTS: [PortType; 2] = [PortType::Endpoint, PortType::LegacyEndpoint];
