//! The contract between protection domains, written once.
//!
//! Each interface ([`pci`], [`iommu`], [`msi`], [`supervisor`], [`timer`],
//! [`console`]) is one table of operations. From the table come the request
//! type with its encoder and decoder, the client stub, the service trait and
//! the dispatcher, so that the two ends cannot disagree.
//!
//! Neighbours: servers' cores implement the service traits, the client
//! library wraps the stubs, and `sel4-glue` carries a [`Message`] over a
//! kernel endpoint. Nothing here knows the kernel.

#![no_std]
#![forbid(unsafe_code)]

mod badge;
mod interface;
pub mod log;
mod message;
mod rule;
mod types;

mod tables;

pub use badge::{Badge, BadgeKind, MAX_GENERATION, MAX_INDEX};
pub use interface::{Call, Operation, Reply, Stubs, label};
pub use message::{Arrival, MAX_WORDS, Message, PLAIN_WORDS, TooLong, Transport};
pub use rule::{Refusal, Rule, TRIES, kernel_error_name, retry};
pub use tables::{console, iommu, msi, pci, supervisor, timer};
pub use types::{
    ANY_IOVA, Access, BarKind, CapabilityListKind, ClientId, ConfigRight, ContextChoice, Delivery,
    DeviceError, DeviceState, EventKind, Exhausted, GroupTie, Mechanism, Messages, NO_PROXIMITY,
    PagePreference, Properties, ResetKind, Switch, Trouble, Turns, VectorUse, Width, WithheldCode,
    Word,
};

/// Version of the whole contract. Client and server compare it in `Hello`;
/// any change to a table or an encoding raises it.
pub const VERSION: u64 = 9;
