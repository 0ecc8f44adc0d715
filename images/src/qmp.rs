//! [`Qmp`]: QEMU's monitor protocol, as far as steps of a run need it: one
//! command at a time, each answered before the next.
//!
//! QEMU connects to a socket in a folder of our own; the messages are JSON, one
//! a line (QEMU's docs/interop/qmp-spec.txt).

use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for QEMU to connect, or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether QEMU has connected.
const PAUSE: Duration = Duration::from_millis(5);
/// Most events that may come before an answer.
const MAX_EVENTS: usize = 1000;

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection.
    #[error("the connection to QEMU's monitor failed: {0}")]
    Io(#[from] io::Error),
    /// QEMU says no.
    #[error("QEMU refuses `{command}`: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        description: String,
    },
    /// QEMU says something else than the protocol has.
    #[error("QEMU's monitor said what is not of its protocol: {0}")]
    Nonsense(String),
}

/// A socket that QEMU is to connect to.
#[derive(Debug)]
pub struct Socket {
    folder: TempDir,
    listener: UnixListener,
}

impl Socket {
    /// A socket in a new folder.
    ///
    /// # Errors
    /// The folder or socket cannot be made.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
        let listener = UnixListener::bind(folder.path().join("qmp"))?;
        listener.set_nonblocking(true)?;
        Ok(Self { folder, listener })
    }

    /// The arguments with which QEMU connects.
    #[must_use]
    pub fn arguments(&self) -> [String; 2] {
        let path = self.folder.path().join("qmp");
        let path = path.to_string_lossy().replace(',', ",,");
        ["-qmp".into(), format!("unix:{path}")]
    }

    /// Waits for QEMU and opens the conversation; `None` if QEMU has `gone` before.
    ///
    /// # Errors
    /// QEMU does not connect in time, or talks nonsense.
    pub fn accept(self, mut gone: impl FnMut() -> bool) -> Result<Option<Qmp>, QmpError> {
        let start = Instant::now();
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if gone() {
                        return Ok(None);
                    }
                    if start.elapsed() > PATIENCE {
                        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Qmp::over(stream)?;
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Nonsense(greeting.to_string()));
        }
        qmp.execute(&json!({ "execute": "qmp_capabilities" }))?;
        Ok(Some(qmp))
    }
}

/// A conversation with QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Qmp {
    fn over(stream: UnixStream) -> io::Result<Self> {
        Ok(Self {
            from: BufReader::new(stream.try_clone()?),
            to: stream,
        })
    }

    /// Carries a command out; gives what it returns. Events that come meanwhile are dropped.
    ///
    /// # Errors
    /// QEMU's refusal, or a failed connection.
    pub fn execute(&mut self, command: &Value) -> Result<Value, QmpError> {
        self.to.write_all(format!("{command}\n").as_bytes())?;
        for _ in 0..MAX_EVENTS {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let description = error.get("desc").and_then(Value::as_str);
                return Err(QmpError::Refused {
                    command: command
                        .get("execute")
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned(),
                    description: description.unwrap_or("without a reason").to_owned(),
                });
            }
            if answer.get("event").is_none() {
                return Err(QmpError::Nonsense(answer.to_string()));
            }
        }
        Err(QmpError::Nonsense("events without end".into()))
    }

    fn read(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        serde_json::from_str(&line).map_err(|_| QmpError::Nonsense(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A monitor that says these lines, whatever it hears.
    fn monitor(lines: &'static [&'static str]) -> (Qmp, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for line in lines {
            (&theirs).write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        (Qmp::over(ours).unwrap(), theirs)
    }

    #[test]
    fn an_answer_is_found_among_events() {
        let (mut qmp, _theirs) = monitor(&[
            "{\"event\": \"DEVICE_DELETED\"}",
            "{\"return\": [1, 2]}",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such bus\"}}",
            "\"hello\"",
        ]);
        let command = json!({ "execute": "query-pci" });
        assert_eq!(qmp.execute(&command).unwrap(), json!([1, 2]));
        let refused = qmp.execute(&command).unwrap_err().to_string();
        assert_eq!(refused, "QEMU refuses `query-pci`: no such bus");
        assert!(matches!(qmp.execute(&command), Err(QmpError::Nonsense(_))));
    }

    #[test]
    fn a_socket_waits_for_the_greeting() {
        let socket = Socket::new().unwrap();
        let [_, argument] = socket.arguments();
        let path = argument.strip_prefix("unix:").unwrap();
        let mut stream = UnixStream::connect(path).unwrap();
        stream
            .write_all(b"{\"QMP\": {\"version\": {}}}\n{\"return\": {}}\n")
            .unwrap();
        assert!(socket.accept(|| false).unwrap().is_some());
        let mut heard = String::new();
        BufReader::new(stream).read_line(&mut heard).unwrap();
        assert_eq!(heard, "{\"execute\":\"qmp_capabilities\"}\n");
    }

    #[test]
    fn nobody_waits_for_one_that_is_gone() {
        assert!(Socket::new().unwrap().accept(|| true).unwrap().is_none());
    }
}
