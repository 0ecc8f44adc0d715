//! A simulated machine for tests on the host: configuration space of honest
//! and hostile devices ([`config`]), plain register windows ([`mmio`]) and a
//! clock that a test moves ([`clock`]).
//!
//! The simulation writes every register layout for itself, from the
//! specifications, and uses of `hw` only the traits and [`hw::Sbdf`]: an error
//! there must not hide behind the same error here.
//!
//! A device that a test describes wrongly (a capability that does not fit, a
//! BAR size that is no power of two) panics at once, with what is wrong.
#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    reason = "test library: a badly described device is the test's own error"
)]

pub mod amdvi;
pub mod clock;
pub mod config;
pub mod mmio;
pub mod vtd;
