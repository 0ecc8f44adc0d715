//! The timer service: wakes each PD at the time that it asked for, by one comparator of the HPET.
//!
//! - [`Deadlines`]: who waits until when;
//! - [`Hpet`]: the hardware;
//! - [`Timer`]: the service over both.

mod deadlines;
mod hpet;
mod service;

pub use deadlines::Deadlines;
pub use hpet::{Hpet, HpetError};
pub use service::{Signals, Timer};
