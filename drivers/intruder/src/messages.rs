//! Tricks with messages: of the wrong shape, on the wrong capability, with
//! capabilities that nobody asked for, and very many.

use client::{ContextChoice, Error, Platform, Refusal, Rule};
use ipc_proto::{ClientId, Message, Messages, Transport, iommu, msi, pci};
use system::layout::slot;

use crate::Intruder;

/// Requests of the flood.
const FLOOD: u32 = 5_000;

fn raw(intruder: &Intruder<'_>, server: u64, label: u64, words: &[u64]) -> Result<(), Error> {
    let message = Message::with_words(label, words).map_err(|_| Error::NotFound)?;
    answer(&intruder.platform.port(server).call(&message))
}

fn answer(reply: &Message) -> Result<(), Error> {
    pci::ReleaseReply::decode(reply)?;
    Ok(())
}

pub fn run(intruder: &Intruder<'_>) -> Result<(), Error> {
    let client = intruder.client;
    let pci_server = slot::PCI + u64::from(client.shard_of(intruder.own)?);
    let iommu_server = slot::IOMMU + u64::from(client.info().iommu.unwrap_or(0));
    let msi_server = slot::MSI;
    let assign = pci::INTERFACE << 8 | 4;
    for (name, server, label, words, rule) in [
        (
            "pci_truncated",
            pci_server,
            assign,
            &[1][..],
            Rule::BadLength,
        ),
        (
            "pci_oversized",
            pci_server,
            assign,
            &[1; 16][..],
            Rule::BadLength,
        ),
        (
            "pci_unknown_operation",
            pci_server,
            pci::INTERFACE << 8 | 0xfe,
            &[][..],
            Rule::UnknownOperation,
        ),
        (
            "pci_out_of_range",
            pci_server,
            assign,
            &[u64::MAX, 0, 0][..],
            Rule::BadArgument,
        ),
        (
            "iommu_truncated",
            iommu_server,
            iommu::INTERFACE << 8 | 2,
            &[4096][..],
            Rule::BadLength,
        ),
        (
            "iommu_other_interface",
            iommu_server,
            assign,
            &[1, 2][..],
            Rule::UnknownOperation,
        ),
        (
            "iommu_out_of_range",
            iommu_server,
            iommu::INTERFACE << 8 | 2,
            &[4096, 7, 0][..],
            Rule::BadArgument,
        ),
        (
            "msi_unknown_operation",
            msi_server,
            0,
            &[][..],
            Rule::UnknownOperation,
        ),
        (
            "msi_truncated",
            msi_server,
            msi::INTERFACE << 8 | 1,
            &[][..],
            Rule::BadLength,
        ),
    ] {
        intruder.refused(name, raw(intruder, server, label, words), rule);
    }
    // More words than any message of the contract has.
    let reply = intruder.platform.raw_call(pci_server, assign, 100);
    intruder.refused("pci_monster", answer(&reply), Rule::BadLength);

    let ours = ClientId(client.info().client);
    let pci = pci::Stub(intruder.platform.port(pci_server));
    let iommu = iommu::Stub(intruder.platform.port(iommu_server));
    let msi = msi::Stub(intruder.platform.port(msi_server));
    let error = |refusal: Refusal| Error::from(refusal);
    intruder.refused(
        "play_supervisor",
        pci.client_gone(ClientId(0)).map_err(error),
        Rule::WrongCapability,
    );
    intruder.refused(
        "attach_others_device",
        iommu
            .attach(intruder.victim, ours, ContextChoice::Shared, 0)
            .map_err(error),
        Rule::WrongCapability,
    );
    intruder.refused(
        "vector_not_ours",
        msi.free(intruder.victim).map_err(error),
        Rule::WrongCapability,
    );
    intruder.refused(
        "vector_out_of_thin_air",
        msi.alloc(intruder.own, ours, Messages { first: 0, count: 1 }, 0)
            .map_err(error),
        Rule::WrongCapability,
    );
    intruder.refused(
        "buffer_of_no_buffer",
        iommu.map(0, ipc_proto::Access::Read, 0).map_err(error),
        Rule::WrongCapability,
    );
    // Imports nothing but the endpoint that it holds anyway.
    intruder.refused(
        "import_of_no_buffer",
        iommu.import(0, iommu_server).map_err(error),
        Rule::WrongCapability,
    );
    let mut gift = pci::Request::Hello {
        version: ipc_proto::VERSION,
    }
    .encode();
    gift.cap = Some(slot::EVENTS);
    let reply = intruder.platform.port(pci_server).call(&gift);
    intruder.refused(
        "uninvited_capability",
        answer(&reply),
        Rule::UnexpectedCapability,
    );

    let mut answered = 0;
    for round in 0..FLOOD {
        let refused = pci
            .assign(intruder.victim, (round % 64) as u16, ContextChoice::Shared)
            .map_err(|refusal| refusal.rule);
        answered += u32::from(refused == Err(Rule::NotGranted));
    }
    intruder.holds(
        "flood",
        answered == FLOOD,
        format_args!("{answered} of {FLOOD} requests refused one by one"),
    );
    Ok(())
}
