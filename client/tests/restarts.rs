//! A server that is restarted in the middle of a request: the driver hears nothing of it, and nothing is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod fake;

use fake::{Done, Kernel, info};
use ipc_proto::{ANY_IOVA, Access, ContextChoice, Mechanism, PagePreference, Switch, Width};
use portcullis_client::{Client, Error, Rule, Sbdf};
use system::layout::event;

const DEVICE: Sbdf = Sbdf::from_bits(0x18);

/// What a driver does from the beginning to the end.
fn life(kernel: &Kernel) -> Result<(), Error> {
    let info = info();
    let client = Client::connect(kernel, &info)?;
    {
        let device = client.assign(DEVICE)?;
        let registers = device.map_bar(0)?;
        let buffer = client.buffer(4096, PagePreference::Small)?;
        assert_eq!(buffer.map(ANY_IOVA, Access::ReadWrite)?, fake::IOVA);
        device.bus_master(Switch::On)?;
        let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
        assert_eq!(device.config_read(0, Width::Dword)?, fake::IDS);
        interrupts.disable()?;
        buffer.unmap()?;
        buffer.free()?;
        client.shared_buffer(4096, PagePreference::Small)?.free()?;
        drop(registers);
        device.release()?;
    }
    assert_eq!(client.window().in_use(), 0);
    Ok(())
}

#[test]
fn a_death_at_any_request_is_not_noticed() {
    let quiet = Kernel::new();
    life(&quiet).unwrap();
    let requests = quiet.requests();
    assert!(requests >= 15, "{requests}");
    for done in [Done::Nothing, Done::All] {
        for death in 0..requests {
            let kernel = Kernel::dying(death, 1, done);
            life(&kernel).unwrap_or_else(|error| panic!("{done:?} at request {death}: {error}"));
            assert!(kernel.is_as_at_the_start(), "{done:?} at request {death}");
        }
    }
}

#[test]
fn several_deaths_in_a_row_are_not_noticed_either() {
    for done in [Done::Nothing, Done::All] {
        let kernel = Kernel::dying(3, 5, done);
        life(&kernel).unwrap();
        assert!(kernel.is_as_at_the_start());
    }
}

#[test]
fn a_server_that_does_nothing_but_die_is_given_up() {
    let kernel = Kernel::dying(2, u32::MAX, Done::Nothing);
    assert_eq!(
        life(&kernel).map_err(|error| error.rule()),
        Err(Some(Rule::Restarted))
    );
    assert!(kernel.requests() < 2000, "within a bound");
}

#[test]
fn what_is_refused_for_another_reason_is_refused_at_once() {
    let kernel = Kernel::new();
    let info = info();
    let client = Client::connect(&kernel, &info).unwrap();
    let device = client.assign(DEVICE).unwrap();
    let before = kernel.requests();
    let again = client.pci(0).assign(DEVICE, 9, ContextChoice::Shared);
    assert_eq!(
        again.map_err(|refusal| refusal.rule),
        Err(Rule::AlreadyHeld)
    );
    assert_eq!(kernel.requests(), before + 1);
    device.release().unwrap();
}
