//! `[[channel]]`: two clients that hand each other capabilities (DMA buffers
//! above all) and signal each other.

use super::client::Client;
use super::cross::known_client;
use super::diagnostic::Findings;
use super::rule::Rule;
use super::section::{Placed, Section};
use super::values;
use ::system::model::{self, MAX_CHANNELS, MAX_CHANNELS_A_CLIENT};
use std::ops::Range;

/// A channel, with the places that rules point at.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its name.
    pub name: Placed<String>,
    /// The clients it is between, as named.
    pub between: Vec<Placed<String>>,
    /// Where the list of them, or the table, is.
    pub span: Range<usize>,
}

/// Reads one `[[channel]]`. `None`: something is missing or wrong, and noted.
pub fn read(mut section: Section<'_, '_>) -> Option<Channel> {
    let name = section.parsed("name", values::name);
    if name.is_none() {
        section.missing_unless_wrong("name");
    }
    let given = section.has("between");
    if !given {
        section.missing_unless_wrong("between");
    }
    let between: Vec<Placed<String>> = section
        .texts("between")
        .into_iter()
        .map(|client| client.map(str::to_owned))
        .collect();
    let span = section.span();
    section.finish();
    given.then_some(Channel {
        name: name?.map(str::to_owned),
        between,
        span,
    })
}

/// Checks the channels against the clients, and gives them in compiled form.
pub fn check(
    channels: &[Channel],
    clients: &[Client],
    findings: &mut Findings,
) -> heapless::Vec<model::Channel, MAX_CHANNELS> {
    let known: Vec<&str> = clients
        .iter()
        .map(|client| client.model.name.as_str())
        .collect();
    let mut ends = vec![0; clients.len()];
    let mut compiled: heapless::Vec<model::Channel, MAX_CHANNELS> = heapless::Vec::new();
    for (index, channel) in channels.iter().enumerate() {
        let name = &channel.name;
        let same = |other: &&Channel| other.name.value == name.value;
        if channels.iter().take(index).any(|other| same(&other)) {
            findings.add(
                Rule::DuplicateName,
                name.span.clone(),
                format!("two channels are named `{}`", name.value),
            );
        }
        let mut found = Vec::new();
        for client in &channel.between {
            known_client(client, &known, findings);
            found.extend(known.iter().position(|name| *name == client.value));
        }
        let wrong = match channel.between.as_slice() {
            [first, second] if first.value == second.value => Some((
                second.span.clone(),
                "a channel is between two different clients",
            )),
            [_, _] => None,
            _ => Some((channel.span.clone(), "a channel is between two clients")),
        };
        if let Some((span, message)) = wrong {
            findings.add(Rule::BadChannel, span, message);
            continue;
        }
        let &[first, second] = found.as_slice() else {
            continue;
        };
        for (end, client) in [first, second].into_iter().zip(&channel.between) {
            ends[end] += 1;
            if ends[end] == MAX_CHANNELS_A_CLIENT + 1 {
                findings.add(
                    Rule::TooLong,
                    client.span.clone(),
                    format!("a client is an end of at most {MAX_CHANNELS_A_CLIENT} channels"),
                );
            }
        }
        let one = heapless::String::try_from(name.value.as_str()).map(|name| model::Channel {
            name,
            ends: [first as u16, second as u16],
        });
        if one.is_ok_and(|one| compiled.push(one).is_err()) {
            findings.add(
                Rule::TooLong,
                name.span.clone(),
                format!("a description has at most {MAX_CHANNELS} channels"),
            );
            break;
        }
    }
    compiled
}
