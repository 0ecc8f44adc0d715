//! What the shard refuses, and what it counts.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use hw::Sbdf;
use ipc_proto::msi::{self, Request};
use ipc_proto::{BadgeKind, Messages, Refusal, Rule, VERSION};
use msi_core::{ConfigError, Shard};
use system::info::MsiInfo;

mod common;
use common::*;

/// One message.
const ONE: Messages = Messages { first: 0, count: 1 };

fn device(number: u8) -> Sbdf {
    Sbdf::from_parts(0, 3, number, 0).unwrap()
}

#[test]
fn a_pci_shard_speaks_for_its_own_buses_only() {
    let mut bench = Bench::new(0, 64, &[64]);
    let far = Sbdf::from_parts(0, 0x80, 1, 0).unwrap();
    let other_segment = Sbdf::from_parts(1, 3, 1, 0).unwrap();
    let outside = |device: Sbdf| Err(Refusal::new(Rule::OutsideShard, device.to_bits().into()));
    assert_eq!(bench.alloc_by(0, far, 0, ONE, 0), outside(far));
    assert_eq!(
        bench.alloc_by(0, other_segment, 0, ONE, 0),
        outside(other_segment)
    );
    assert_eq!(bench.alloc_by(3, device(1), 0, ONE, 0), outside(device(1)));
    assert_eq!(
        bench.free(far),
        Err(Refusal::new(Rule::OutsideShard, far.to_bits().into()))
    );
    assert!(bench.alloc_by(1, far, 0, ONE, 0).is_ok());
    assert!(bench.alloc_by(2, other_segment, 0, ONE, 1).is_ok());
}

#[test]
fn a_device_is_never_shared_and_a_stranger_has_no_quota() {
    let mut bench = Bench::new(0, 64, &[8, 8]);
    bench.alloc(device(1), 0, 2, 0).unwrap();
    assert_eq!(
        bench.alloc(device(1), 1, 2, 0),
        Err(Refusal::new(Rule::HeldByAnother, 0))
    );
    // More messages of the same device for the same client are fine (MSI-X), up to the quota.
    bench.alloc(device(1), 0, 2, 2).unwrap();
    assert_eq!(
        bench.alloc(device(1), 0, 8, 4),
        Err(Refusal::new(Rule::VectorQuota, 8))
    );
    assert_eq!(
        bench.alloc(device(2), 2, 1, 4),
        Err(Refusal::new(Rule::BadArgument, 1))
    );
    assert_eq!(bench.free(device(1)), Ok(4));
    assert_eq!(bench.free(device(1)), Ok(0));
}

#[test]
fn hello_compares_versions_and_tells_the_quota() {
    let mut bench = Bench::new(0, 64, &[8, 3]);
    bench.alloc(device(1), 1, 2, 0).unwrap();
    let mut hello = |client, version| {
        msi::HelloReply::decode(&bench.ask(BadgeKind::Client, client, Request::Hello { version }))
    };
    assert_eq!(
        hello(1, VERSION),
        Ok(msi::HelloReply {
            version: VERSION,
            quota: 3,
            used: 2
        })
    );
    assert_eq!(
        hello(1, VERSION + 1),
        Err(Refusal::new(Rule::VersionMismatch, VERSION))
    );
    assert_eq!(
        hello(2, VERSION).map_err(|refusal| refusal.rule),
        Err(Rule::UnknownBadge)
    );
}

#[test]
fn figures_count_operations_and_refusals() {
    let mut bench = Bench::new(0, 64, &[8]);
    bench.alloc(device(1), 0, 2, 0).unwrap();
    bench.alloc(device(1), 0, 3, 0).unwrap_err();
    let figures = bench.figures();
    assert_eq!(
        (figures.operations, figures.refused, figures.slots_used),
        (2, 1, 0)
    );
}

#[test]
fn a_range_outside_the_processors_vectors_is_refused() {
    let make = |first, count, base| {
        Shard::new(
            &MsiInfo {
                cpu_vector_base: base,
                ..info(first, count)
            },
            &[client((1, 0, 0))],
            Shared::default(),
        )
        .map(|_| ())
    };
    assert_eq!(make(0, 208, 0x30), Ok(()));
    assert_eq!(
        make(0, 209, 0x30),
        Err(ConfigError::Vectors {
            first: 0x30,
            count: 209
        })
    );
    assert_eq!(
        make(0, 8, 0x1f),
        Err(ConfigError::Vectors {
            first: 0x1f,
            count: 8
        })
    );
    assert_eq!(
        make(u16::MAX, u16::MAX, 0xff),
        Err(ConfigError::Vectors {
            first: 65790,
            count: 65535
        })
    );
}

/// Each operation about a device, asked by the shard of other buses.
#[test]
fn no_shard_speaks_for_the_devices_of_another() {
    let mut bench = Bench::new(0, 64, &[64]);
    let here = device(1);
    bench.alloc(here, 0, 1, 0).unwrap();
    let requests = [
        Request::Retarget {
            device: here,
            messages: ONE,
            core: 0,
        },
        Request::Resume {
            device: here,
            messages: ONE,
        },
        Request::Bind {
            device: here,
            message: 0,
            flags: 1,
        },
        Request::LineJoin {
            device: here,
            client: ipc_proto::ClientId(0),
            line: 20,
        },
        Request::LineLeave { device: here },
        Request::Free { device: here },
    ];
    for request in requests {
        let reply = bench.ask(BadgeKind::Shard, 1, request);
        assert_eq!(reply.label, Rule::OutsideShard as u64, "{request:?}");
    }
    assert_eq!(bench.free(here), Ok(1));
}
