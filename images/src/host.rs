//! [`Host`]: the host's part in a run, the `[[step]]`s of the description, and
//! what came of each.

use crate::description::step::{Action, Step};
use crate::dump;
use crate::qmp::{Qmp, QmpError, Socket};
use crate::topology::{self, Functions, Listed};
use crate::transcript::{Event, Transcript};
use serde_json::json;
use std::io;

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Number of the step in the description.
    pub step: usize,
    /// Was it done, and was it right?
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// The host's part in a run.
#[derive(Debug, Default)]
pub struct Host<'d> {
    steps: &'d [Step],
    qmp: Option<Qmp>,
    /// Events of the transcript that have been looked at.
    seen: usize,
    /// Where each client's list of functions that was not compared yet begins, as a number of an event.
    compared: usize,
    done: Vec<Done>,
}

/// QEMU's own list.
fn functions(qmp: &mut Qmp) -> Result<Functions, String> {
    let answer = qmp
        .execute(&json!({ "execute": "query-pci" }))
        .map_err(|error| error.to_string())?;
    topology::of_qemu(&answer)
        .ok_or_else(|| format!("QEMU's list of functions is unknown: {answer}"))
}

/// A socket for QEMU, if there is anything to do by it.
///
/// # Errors
/// It cannot be made.
pub fn socket(steps: &[Step]) -> io::Result<Option<Socket>> {
    if steps.is_empty() {
        Ok(None)
    } else {
        Socket::new().map(Some)
    }
}

impl<'d> Host<'d> {
    /// Waits for QEMU to connect, if there are steps, unless it has `gone`.
    ///
    /// # Errors
    /// QEMU does not connect.
    pub fn new(
        steps: &'d [Step],
        socket: Option<Socket>,
        gone: impl FnMut() -> bool,
    ) -> Result<Self, QmpError> {
        let qmp = match socket {
            Some(socket) => socket.accept(gone)?,
            None => None,
        };
        Ok(Self {
            steps,
            qmp,
            ..Self::default()
        })
    }

    /// Does the steps whose marks have come since the last call.
    pub fn follow(&mut self, transcript: &Transcript) {
        while let Some((_, pd, event)) = transcript.events.get(self.seen) {
            self.seen += 1;
            let Event::Mark { name } = event else {
                continue;
            };
            for (number, step) in self.steps.iter().enumerate() {
                if step.pd.value == *pd && step.mark.value == *name {
                    std::thread::sleep(step.delay);
                    let done = self.act(step, transcript);
                    self.done.push(match done {
                        Ok(detail) => Done {
                            step: number,
                            ok: true,
                            detail,
                        },
                        Err(detail) => Done {
                            step: number,
                            ok: false,
                            detail,
                        },
                    });
                }
            }
        }
    }

    fn act(&mut self, step: &Step, transcript: &Transcript) -> Result<String, String> {
        let qmp = self.qmp.as_mut().ok_or("QEMU's monitor is not connected")?;
        let words = |error: QmpError| error.to_string();
        match &step.action {
            Action::Command(command) => qmp
                .execute(command)
                .map(|answer| match answer.as_str().map(str::trim) {
                    // What QEMU's other monitor would have printed.
                    Some(said) if !said.is_empty() => said.to_owned(),
                    _ => "done".to_owned(),
                })
                .map_err(words),
            Action::CompareDump => {
                let qemu = functions(qmp)?;
                let guest = dump::read(&dump::of(&transcript.lines, &step.pd.value))?;
                match topology::names_differ(&guest, &qemu).as_slice() {
                    [] => Ok(format!(
                        "lspci reads {} functions, all equal QEMU's",
                        guest.len()
                    )),
                    found => Err(found.join("; ")),
                }
            }
            Action::ComparePci => {
                let qemu = functions(qmp)?;
                let listed: Vec<Listed> = transcript
                    .events
                    .get(self.compared..self.seen)
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|(_, pd, event)| match event {
                        Event::Function(listed) if *pd == step.pd.value => Some(listed.clone()),
                        _ => None,
                    })
                    .collect();
                self.compared = self.seen;
                let guest = topology::of_client(&listed)
                    .map_err(|address| format!("`{address}` is no address"))?;
                match topology::differences(&guest, &qemu).as_slice() {
                    [] => Ok(format!("{} functions equal QEMU's", guest.len())),
                    found => Err(found.join("; ")),
                }
            }
        }
    }

    /// What came of every step; one that never came to its turn is not right.
    #[must_use]
    pub fn into_done(self) -> Vec<Done> {
        let mut done = self.done;
        for number in 0..self.steps.len() {
            if !done.iter().any(|done| done.step == number) {
                done.push(Done {
                    step: number,
                    ok: false,
                    detail: "its mark never came".into(),
                });
            }
        }
        done
    }
}
