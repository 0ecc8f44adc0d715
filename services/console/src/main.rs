//! console: writes what the PDs log on the serial line.
//!
//! A loop over `services-core`'s [`Console`]; the kernel's part is [`Com`]. It must not wait for a PD, and must
//! not let one PD's text look like another's.

#![no_std]
#![no_main]

use ipc_proto::console;
use sel4::IoPort;
use sel4_glue::{Answer, Incoming, Pd, Server};
use services_core::console::{Console, Ports, Uart};
use system::layout::slot;

sel4_rt::entry!(main);

fn main(_argument: u64) -> ! {
    let pd = Pd::start();
    let info = pd.console_info();
    let rings = info
        .names
        .iter()
        .enumerate()
        .filter_map(|(number, name)| Some((name.as_str(), pd.ring(number)?)));
    let com = Com {
        port: IoPort::at(slot::SERIAL),
        first: info.port,
    };
    let mut console = Console::new(rings, Uart::new(com));

    let mut server = Server::new(pd);
    pd.ready();
    loop {
        // While there is text, requests are only looked for.
        let incoming = if console.turn() {
            server.try_receive()
        } else {
            Some(server.receive())
        };
        if let Some(Incoming::Request { badge, message }) = incoming
            && let Some(reply) = console::serve(&mut console, badge, &message, Answer::new)
        {
            server.reply(reply);
        }
        // An event says that there is text: the next turn looks.
    }
}

/// The serial line's I/O ports.
struct Com {
    port: IoPort,
    first: u16,
}

impl Ports for Com {
    fn read(&mut self, port: u16) -> u8 {
        // What is not there reads as all ones, as on the bus.
        self.port
            .in8(self.first.wrapping_add(port))
            .unwrap_or(u8::MAX)
    }

    fn write(&mut self, port: u16, value: u8) {
        // There is nobody to tell: this is the console.
        let _ = self.port.out8(self.first.wrapping_add(port), value);
    }
}
