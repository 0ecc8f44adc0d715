//! What is refused costs no window slot.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt;
use std::sync::atomic::AtomicU64;

use ipc_proto::{Message, Transport, pci};
use portcullis_client::{
    Client, Error, KernelError, Memory, Mmio, PagePreference, Platform, Refusal, Rule, Sbdf,
};
use system::info::{ChannelEnd, ClientInfo};
use system::layout::event;

/// A kernel on which every server refuses all but `Hello`.
#[derive(Default)]
struct Refusing([AtomicU64; 16]);

#[derive(Clone, Copy)]
struct Server;

impl Transport for Server {
    fn call(&self, request: &Message) -> Message {
        if request.label == pci::INTERFACE << 8 | 1 {
            let reply = pci::HelloReply {
                version: 1,
                shard: 0,
                segment: 0,
                first_bus: 0,
                last_bus: 255,
            };
            return reply.encode();
        }
        Refusal::from(Rule::NotGranted).to_message()
    }
}

struct Nothing;

impl Mmio for Nothing {
    fn len(&self) -> usize {
        0
    }
    fn read32(&self, _: usize) -> u32 {
        u32::MAX
    }
    fn read64(&self, _: usize) -> u64 {
        u64::MAX
    }
    fn write32(&mut self, _: usize, _: u32) {}
    fn write64(&mut self, _: usize, _: u64) {}
}

impl Memory for Nothing {
    fn len(&self) -> usize {
        0
    }
    fn read(&self, _: usize, _: &mut [u8]) -> bool {
        false
    }
    fn write(&self, _: usize, _: &[u8]) -> bool {
        false
    }
    fn address(&self) -> usize {
        0
    }
}

impl Platform for Refusing {
    type Port = Server;
    type Registers = Nothing;
    type Memory = Nothing;

    fn slots_in_use(&self) -> &[AtomicU64] {
        &self.0
    }
    fn port(&self, _: u64) -> Server {
        Server
    }
    fn window_port(&self, _: u16) -> Server {
        Server
    }
    fn window_address(&self, slot: u16) -> u64 {
        slot.into()
    }
    fn map_registers(&self, _: u16, _: u16, _: u8) -> Result<Nothing, KernelError> {
        Ok(Nothing)
    }
    fn unmap_registers(&self, _: &mut Nothing, _: u16, _: u16, _: u8) {}
    fn map_memory(&self, _: u16, _: u16, _: u8) -> Result<Nothing, KernelError> {
        Ok(Nothing)
    }
    fn unmap_memory(&self, _: &mut Nothing, _: u16, _: u16, _: u8) {}
    fn forget_memory(&self, _: &mut Nothing, _: u16, _: u8) {}
    fn clear(&self, _: u16) {}
    fn post(&self, _: u64, _: u16, _: u16) -> Result<(), KernelError> {
        // The place is taken, as far as it is asked.
        Err(KernelError {
            action: "post",
            rule: Rule::KernelRefused,
            code: 8,
        })
    }
    fn fetch(&self, _: u64, _: u16, _: u16) -> Result<(), KernelError> {
        Ok(())
    }
    fn signal(&self, _: u64) {}
    fn bind_interrupt(&self, _: u16, _: u64) -> Result<(), KernelError> {
        Ok(())
    }
    fn wait(&self) -> u64 {
        0
    }
    fn poll(&self) -> u64 {
        0
    }
    fn log(&self, _: fmt::Arguments<'_>) {}
}

fn info() -> ClientInfo {
    ClientInfo {
        inspect: false,
        admin: false,
        clients: Default::default(),
        client: 0,
        window_bits: 4,
        untyped_bits: 0,
        pci: [(0, 0, 0, 255)].into_iter().collect(),
        iommu: None,
        channels: Default::default(),
        args: Default::default(),
        pds: Default::default(),
    }
}

#[test]
fn a_buffer_without_an_iommu_server_costs_no_slot() {
    let info = info();
    let refusing = Refusing::default();
    let client = Client::connect(&refusing, &info).unwrap();
    let refused = client.buffer(4096, PagePreference::Small).map(drop);
    assert_eq!(refused, Err(Error::NoIommuShard));
    assert_eq!(
        portcullis_client::Buffer::import(&client, 7).map(drop),
        Err(Error::NoIommuShard)
    );
    assert_eq!(client.window().in_use(), 0);
}

#[test]
fn a_refused_assignment_costs_no_slot() {
    let info = info();
    let refusing = Refusing::default();
    let client = Client::connect(&refusing, &info).unwrap();
    let refused = client.assign(Sbdf::from_bits(0x18)).map(drop);
    assert_eq!(
        refused.map_err(|error| error.rule()),
        Err(Some(Rule::NotGranted))
    );
    assert_eq!(client.window().in_use(), 0);
}

#[test]
fn a_full_channel_and_a_gift_that_is_refused_cost_no_slot() {
    let mut info = info();
    let end = ChannelEnd {
        name: "pipe".try_into().unwrap(),
        side: 1,
        mailbox: 128,
        signal: 129,
    };
    info.channels.push(end).unwrap();
    let refusing = Refusing::default();
    let client = Client::connect(&refusing, &info).unwrap();
    assert!(client.channel("other").is_none());
    let pipe = client.channel("pipe").unwrap();
    assert_eq!(pipe.flag(), event::CHANNEL);
    assert_eq!(pipe.give_slot(3), Err(Error::ChannelFull));
    // Something is there, and no server makes a share of it.
    assert_eq!(
        pipe.take().map(|taken| taken.is_some()),
        Err(Error::NoIommuShard)
    );
    assert_eq!(client.window().in_use(), 0);
    // Of a device it is just a capability, ours until it is dropped.
    let narrowed = pipe.take_narrowed().unwrap().unwrap();
    assert_eq!(client.window().in_use(), 1);
    drop(narrowed);
    assert_eq!(client.window().in_use(), 0);
}
