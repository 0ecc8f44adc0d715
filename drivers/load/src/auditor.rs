//! Begins the work, waits for its end, and compares what clients and servers have counted meanwhile.

use client::report::{check, metric};
use client::{Buffer, Channel, Client, Error, Inspector};
use heapless::Vec;
use system::info::ClientInfo;
use system::layout::MAX_SHARDS;
use system::model::MAX_CHANNELS_A_CLIENT;

use crate::counted::Counted;
use crate::{Account, OurClient, PATIENCE_MICROS};

/// Between two looks at whether a worker has finished.
const LOOK_MICROS: u64 = 200_000;

/// What the servers say.
#[derive(Default, Debug)]
struct Counts {
    /// Operations of each pci-server shard.
    pci: Vec<(u8, u64), MAX_SHARDS>,
    /// Operations of all iommu- and msi-server shards.
    below: u64,
    /// Requests of pci-server shards to them.
    requests: u64,
    refused: u64,
    parked: u64,
}

impl Counts {
    fn read(
        inspector: &Inspector<'_, Counted>,
        info: &ClientInfo,
        msi_shards: u8,
    ) -> Result<Self, Error> {
        let mut counts = Self::default();
        for &(shard, ..) in &info.pci {
            let port = inspector.pci(shard);
            counts.requests += port.turns()?.requests;
            let figures = port.figures()?;
            counts.refused += figures.refused;
            counts.parked += figures.parked;
            // As many as the info lists.
            let _ = counts.pci.push((shard, figures.operations));
        }
        let iommu = inspector.iommu(info.iommu.ok_or(Error::NoIommuShard)?);
        counts.below += iommu.figures()?.operations;
        for shard in 0..msi_shards {
            counts.below += inspector.msi(shard).figures()?.operations;
        }
        Ok(counts)
    }
}

/// The accounts of all workers, in the order in which they come.
fn accounts<'c>(
    client: &'c OurClient<'c>,
    channels: &[Channel<'c, 'c, Counted>],
    seconds: u64,
) -> Result<Vec<(Account, Buffer<'c, 'c, Counted>), MAX_CHANNELS_A_CLIENT>, Error> {
    let mut accounts = Vec::new();
    let end = client.timer().now()?.micros + 1_000_000 * seconds + PATIENCE_MICROS;
    while accounts.len() < channels.len() {
        if client.timer().now()?.micros > end {
            break;
        }
        client.wait_for(0, LOOK_MICROS)?;
        for channel in channels {
            if let Some(page) = channel.take()? {
                let account = page.memory().and_then(Account::read);
                // One of each channel.
                let _ = accounts.push((account.ok_or(Error::NotFound)?, page));
            }
        }
    }
    Ok(accounts)
}

/// Lets all work for `seconds`.
pub fn run(
    platform: &Counted,
    info: &'static ClientInfo,
    seconds: u64,
    msi_shards: u64,
) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let inspector = Inspector::new(platform, info).ok_or(Error::NotFound)?;
    let msi_shards = msi_shards as u8;
    let mut channels = Vec::<_, MAX_CHANNELS_A_CLIENT>::new();
    for end in &info.channels {
        let channel = client.channel(&end.name).ok_or(Error::NotFound)?;
        // As many as the info lists.
        let _ = channels.push(channel);
    }
    let mut ready = 0;
    while ready != info.channels.len() {
        // Flags of several may come at once: each is counted when it has come.
        let flags = channels.iter().fold(0, |all, channel| all | channel.flag());
        match client.wait_for(flags, PATIENCE_MICROS)? {
            0 => return Err(Error::NotFound),
            came => ready += came.count_ones() as usize,
        }
    }
    let before = Counts::read(&inspector, info, msi_shards)?;
    platform.reset();
    for channel in &channels {
        channel.signal();
    }
    let accounts = accounts(&client, &channels, seconds)?;
    let after = Counts::read(&inspector, info, msi_shards)?;
    let own = platform.requests();

    let workers = accounts.len();
    let sum = |of: fn(&Account) -> u64| accounts.iter().map(|(one, _)| of(one)).sum::<u64>();
    let [lost, lives, bytes, wrong, messages, missing] = [
        sum(|one| one.lost),
        sum(|one| one.lives),
        sum(|one| one.bytes),
        sum(|one| one.wrong),
        sum(|one| one.messages),
        sum(|one| one.missing),
    ];
    check(
        platform,
        "no_reply_lost",
        workers == channels.len() && lost == 0 && platform.lost() == 0 && after.parked == 0,
        format_args!(
            "{workers} of {} workers have finished, {lost} replies lost",
            channels.len()
        ),
    );
    check(
        platform,
        "no_byte_wrong",
        bytes > 0 && wrong == 0,
        format_args!("{bytes} bytes compared, {wrong} wrong"),
    );
    check(
        platform,
        "no_message_missing",
        messages > 0 && missing == 0,
        format_args!("{messages} messages raised, {missing} missing"),
    );

    // Each shard of the pci-server, with the two questions about it.
    let mut all_equal = before.pci.len() == after.pci.len();
    for ((shard, before), (_, after)) in before.pci.iter().zip(&after.pci) {
        let of_shard = accounts
            .iter()
            .filter(|(one, _)| one.shard == u64::from(*shard));
        let clients = of_shard.map(|(one, _)| one.requests[0]).sum::<u64>() + 2;
        let servers = after - before;
        all_equal &= clients == servers;
        tell(platform, *shard, clients, servers);
    }
    let asked = accounts
        .iter()
        .map(|(one, _)| one.requests[1] + one.requests[2])
        .sum::<u64>();
    let requests = after.requests - before.requests;
    let clients = asked + own[1] + own[2] + requests;
    let servers = after.below - before.below;
    all_equal &= clients == servers;
    check(
        platform,
        "counters_add_up",
        all_equal,
        format_args!(
            "iommu- and msi-servers: {asked} by workers, {requests} by pci-servers, {} by this PD, {servers} counted",
            own[1] + own[2]
        ),
    );
    check(
        platform,
        "work_was_done",
        lives > 0 && after.refused == before.refused,
        format_args!(
            "{lives} times a device was taken and given back, {} requests refused",
            after.refused - before.refused
        ),
    );
    metric(platform, "lives", lives);
    metric(platform, "bytes", bytes);
    metric(platform, "messages", messages);
    let pci = |counts: &Counts| counts.pci.iter().map(|(_, count)| count).sum::<u64>();
    metric(platform, "operations", pci(&after) - pci(&before) + servers);
    for channel in &channels {
        channel.signal();
    }
    Ok(())
}

fn tell(platform: &Counted, shard: u8, clients: u64, servers: u64) {
    use client::Platform;
    platform.log(format_args!(
        "pci-server-{shard}: {clients} operations by clients' count, {servers} by its own"
    ));
}
