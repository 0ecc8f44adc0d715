//! Runs that come to no good end: when one cannot pass any more ([`lacking`]), and what is told of it.
//!
//! Neighbours: `judge` has the verdict, `qemu` stops the machine.

use super::stops_short;
use crate::description::Description;
use crate::description::demand::Expect;
use crate::qemu::HOPELESS;
use crate::transcript::{Departure, Event, Transcript};
use system::model::End;

/// The client, if there is one, that is gone and left the run without what it needs to pass.
#[must_use]
pub fn lacking<'t>(description: &Description, transcript: &'t Transcript) -> Option<&'t str> {
    if stops_short(description) {
        return None;
    }
    transcript.events.iter().find_map(|(_, _, event)| {
        let Event::Gone { client: gone, how } = event else {
            return None;
        };
        let clients = &description.system.clients;
        let client = clients.iter().find(|client| client.name == gone.as_str())?;
        let wrong = match how {
            Departure::Exit(code) => *code != 0,
            Departure::Fault(_) | Departure::Killed => !client.may_fault,
            Departure::Stopped => return None,
        };
        let unsaid = description.expects.iter().any(|expect| match expect {
            Expect::Check(expect) => {
                expect.pd.value == *gone && !is_said(transcript, gone, &expect.check.value)
            }
            Expect::Metric(_) => false,
        });
        (wrong || unsaid).then_some(gone.as_str())
    })
}

fn is_said(transcript: &Transcript, client: &str, check: &str) -> bool {
    transcript.events.iter().any(|(_, pd, event)| match event {
        Event::Check { name, .. } => pd == client && name == check,
        _ => false,
    })
}

/// Of a run that was given up.
pub(super) fn given_up(description: &Description, transcript: &Transcript) -> String {
    format!(
        "given up {} s after `{}` had ended as it should not, or without what is expected of it",
        HOPELESS.as_secs(),
        lacking(description, transcript).unwrap_or_default()
    )
}

/// Of a system that did not end: who was still there, and what each said last.
pub(super) fn last_words(description: &Description, transcript: &Transcript) -> String {
    let time = format!(
        "time is over (`timeout` in [machine]: {} s)",
        description.machine.timeout.as_secs_f64()
    );
    if transcript.lines.iter().all(|line| line.pd.is_none()) {
        return format!("{time} and no PD has said anything");
    }
    if description.system.end == End::Never && description.expects.is_empty() {
        return format!("{time}: the system never ends, and nothing is expected of it");
    }
    let gone = |name: &str| {
        let mut events = transcript.events.iter();
        events.any(|(_, _, event)| matches!(event, Event::Gone { client, .. } if client == name))
    };
    let there = description.system.clients.iter();
    let there: Vec<String> = there
        .filter(|client| client.must_finish && !gone(&client.name))
        .map(|client| {
            let mut lines = transcript.lines.iter().rev();
            let name = client.name.as_str();
            match lines.find(|line| line.pd.as_deref() == Some(name)) {
                Some(line) => {
                    let at = line.at.as_secs_f64();
                    format!(
                        "`{name}` has not ended, and said last, at {at:.1} s: {}",
                        line.text
                    )
                }
                None => format!("`{name}` has not ended, and said nothing"),
            }
        })
        .collect();
    match there.as_slice() {
        [] => format!("{time} and the system did not end"),
        _ => format!("{time}: {}", there.join("; ")),
    }
}
