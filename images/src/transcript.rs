//! [`Transcript`]: what the guest printed, line by line with the time of each,
//! and the [`Event`]s among it.
//!
//! A line reads `name| text`; the console service puts the name there, so it
//! says truly which PD speaks. Text that begins with `@` is for the judge
//! (docs/architecture.md, "Text"). `judge` makes a verdict of it.

mod protocol;

use crate::topology::Listed;
use protocol::event;
use std::time::Duration;

/// Longest line that is kept; a guest can print without end.
const MAX_LINE: usize = 4096;

/// A line as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Time since QEMU was started.
    pub at: Duration,
    /// The PD that spoke, if one did: the kernel and the firmware print without a name.
    pub pd: Option<String>,
    /// The text after the name.
    pub text: String,
}

/// What the guest tells the judge.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `@check <name> pass|fail <detail>`
    Check {
        /// Name within the PD.
        name: String,
        /// Did it pass?
        passed: bool,
        /// What was seen.
        detail: String,
    },
    /// `@metric <key> <number>`
    Metric {
        /// Name.
        key: String,
        /// Value.
        value: f64,
    },
    /// `@assigned <bdf>`: the client has its first device.
    Assigned {
        /// The device's address.
        address: String,
    },
    /// `@booted tsc_mhz=<n>`: every server is ready.
    Booted {
        /// Ticks of the time-stamp counter a microsecond.
        tsc_mhz: u32,
    },
    /// `@held ...`: what a client held when it ended.
    Held(Held),
    /// `@gone <client> <how>`: a client has been taken down.
    Gone {
        /// The client.
        client: String,
        /// How it ended.
        how: Departure,
    },
    /// `@restarted <server> kill|fault <n>`: a server shard died and was started again, the n-th time.
    Restarted {
        /// The server.
        server: String,
        /// Why it died.
        cause: Death,
        /// How often it was started again so far.
        count: u32,
    },
    /// `@mark <name>`: the PD has come to a point where the host may have something to do.
    Mark {
        /// Its name.
        name: String,
    },
    /// `@function <bdf> <vvvv:dddd> class=<cccccc> buses=<ss-ss|-> bars=<...|->`: a function, as a client lists it
    /// that may look.
    Function(Listed),
    /// `@figure before|after.<server>.<name> <number>`: a resource in use.
    Figure {
        /// When it was read.
        when: When,
        /// `<server>.<name>`.
        name: String,
        /// How much.
        value: u64,
    },
    /// `@end pass|fail <detail>`: the run is over.
    End {
        /// Did the root task see nothing wrong?
        passed: bool,
        /// Its words.
        detail: String,
    },
}

/// How a client ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// By itself, with a code; 0 is success.
    Exit(u64),
    /// By a fault; the words say which.
    Fault(String),
    /// By the supervisor, because somebody who may had asked for it.
    Killed,
    /// By the supervisor, when the run was over: it did not have to end itself.
    Stopped,
}

/// Why a server died that was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// A test killed it.
    Kill,
    /// It faulted.
    Fault,
}

/// When a resource was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the first client started.
    Before,
    /// After the last one was gone.
    After,
}

/// A device in a client's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The holder.
    pub client: String,
    /// Address of the device.
    pub address: String,
    /// `vvvv:dddd`.
    pub ids: String,
    /// Class code, six hexadecimal digits.
    pub class: String,
    /// Its BARs.
    pub bars: Vec<Bar>,
    /// Its interrupt vectors.
    pub vectors: Vec<String>,
}

/// A BAR of a held device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Number, 0 to 5.
    pub index: String,
    /// Kind, in the guest's words (`mem32`, `mem64`, `io`).
    pub kind: String,
    /// Physical address or port.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A line for the judge that the judge does not understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}: `{line}`")]
pub struct ProtocolError {
    /// The line.
    pub line: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// All that a guest printed.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// Every line in order.
    pub lines: Vec<Line>,
    /// The events, each with its PD and time.
    pub events: Vec<(Duration, String, Event)>,
    /// Lines for the judge that mean nothing.
    pub errors: Vec<ProtocolError>,
}

impl Transcript {
    /// Takes one line in and returns it as it was understood.
    pub fn push(&mut self, at: Duration, raw: &str) -> Option<&Line> {
        let line = Line::parse(at, raw);
        if let Some(body) = line.text.strip_prefix('@') {
            match event(line.pd.as_deref(), body) {
                Ok((pd, event)) => self.events.push((at, pd, event)),
                Err(why) => self.errors.push(ProtocolError {
                    line: raw.trim().chars().take(MAX_LINE).collect(),
                    why,
                }),
            }
        }
        self.lines.push(line);
        self.lines.last()
    }

    /// A transcript from text that was printed before, one millisecond a line.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let mut transcript = Self::default();
        for (number, line) in text.lines().enumerate() {
            transcript.push(Duration::from_millis(number as u64 + 1), line);
        }
        transcript
    }

    /// Has the root task said that the run is over?
    #[must_use]
    pub fn ended(&self) -> bool {
        self.events
            .iter()
            .any(|(_, _, event)| matches!(event, Event::End { .. }))
    }
}

impl Line {
    /// Is it meant for the judge and not for people?
    #[must_use]
    pub fn is_for_judge(&self) -> bool {
        self.text.starts_with('@')
    }

    fn parse(at: Duration, raw: &str) -> Self {
        let raw: String = raw
            .trim_end()
            .chars()
            .filter(|c| !c.is_control() || *c == '\t')
            .take(MAX_LINE)
            .collect();
        match raw.split_once('|') {
            Some((pd, text)) if is_pd(pd) => Self {
                at,
                pd: Some(pd.to_owned()),
                text: text.strip_prefix(' ').unwrap_or(text).to_owned(),
            },
            _ => Self {
                at,
                pd: None,
                text: raw,
            },
        }
    }
}

fn is_pd(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<(String, Event)> {
        let transcript = Transcript::from_text(text);
        assert_eq!(transcript.errors, []);
        transcript
            .events
            .into_iter()
            .map(|(_, pd, event)| (pd, event))
            .collect()
    }

    #[test]
    fn every_line_of_the_protocol_is_understood() {
        let text = "root| @booted tsc_mhz=2400\r\n\
            edu-driver| @assigned 0000:00:03.0\r\n\
            edu-driver| @check dma pass moved=4095 and back\r\n\
            edu-driver| @metric irq_latency 928\r\n\
            root| @held edu-driver 0000:00:03.0 1234:11e8 class=00ff00 bars=0:mem32:0xfea00000:1048576 vectors=3,4\r\n\
            root| @held blk-driver 0000:00:04.0 1af4:1042 class=010000 bars=- vectors=-\r\n\
            root| @gone edu-driver exit 0\r\n\
            root| @gone intruder fault page at=0x0\r\n\
            root| @restarted msi-server-0 kill 12\r\n\
            root| @figure before.iommu.frames 12\r\n\
            root| @figure after.iommu.frames 12\r\n\
            root| @end pass\r\n\
            looker| @mark listed\r\n\
            looker| @function 0000:00:1c.0 1b36:000c class=060400 buses=01-0f bars=0:mem32:0xfebd4000:0x1000\r\n";
        let found = events(text);
        assert_eq!(found.len(), 14);
        assert_eq!(found[0].1, Event::Booted { tsc_mhz: 2400 });
        assert_eq!(
            found[2],
            (
                "edu-driver".into(),
                Event::Check {
                    name: "dma".into(),
                    passed: true,
                    detail: "moved=4095 and back".into()
                }
            )
        );
        let Event::Held(held) = &found[4].1 else {
            panic!("{:?}", found[4]);
        };
        assert_eq!(held.bars[0].base, 0xfea0_0000);
        assert_eq!(held.bars[0].bytes, 1 << 20);
        assert_eq!(held.vectors, ["3", "4"]);
        assert_eq!(
            found[7].1,
            Event::Gone {
                client: "intruder".into(),
                how: Departure::Fault("page at=0x0".into())
            }
        );
        assert_eq!(
            found[8].1,
            Event::Restarted {
                server: "msi-server-0".into(),
                cause: Death::Kill,
                count: 12
            }
        );
    }

    #[test]
    fn a_pd_cannot_speak_for_another() {
        let transcript = Transcript::from_text(
            "intruder| root| @end pass\nintruder| @end pass\n@end pass\nintruder| @gone edu exit 0\n",
        );
        assert!(!transcript.ended());
        // The first is the intruder's plain text, the others are errors.
        assert_eq!(transcript.lines[0].pd.as_deref(), Some("intruder"));
        assert_eq!(transcript.errors.len(), 3);
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error_not_a_result() {
        for line in [
            "a| @",
            "a| @chek x pass",
            "a| @check x",
            "a| @check x passed",
            "a| @metric x",
            "a| @metric x NaN",
            "root| @figure during.x.y 1",
            "root| @gone a",
            "root| @gone a vanished",
            "root| @gone a exit zero",
            "root| @restarted a kill",
            "root| @restarted a kill x",
            "root| @restarted a exit 1",
            "a| @restarted a kill 1",
            "root| @held a b c",
            "root| @held a b c class=1 bars=0:mem vectors=-",
            "root| @booted",
            "root| @end",
            "a| @mark",
            "a| @mark two words",
            "a| @function 0000:00:03.0 1234:11e8 class=00ff00 bars=-",
            "a| @function 0000:00:03.0 1234:11e8 class=00ff00 buses=1 bars=-",
        ] {
            let transcript = Transcript::from_text(line);
            assert_eq!(transcript.errors.len(), 1, "{line}");
            assert_eq!(transcript.events, [], "{line}");
        }
    }

    #[test]
    fn lines_of_firmware_and_kernel_have_no_pd() {
        let transcript =
            Transcript::from_text("SeaBIOS (version 1.16)\nBooting | all\n\x1b[2Jx| y\n");
        assert_eq!(transcript.lines[0].pd, None);
        assert_eq!(transcript.lines[1].pd, None);
        // Control characters never reach the terminal.
        assert_eq!(transcript.lines[2].text, "[2Jx| y");
    }
}
