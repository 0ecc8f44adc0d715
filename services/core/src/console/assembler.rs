//! [`Assembler`]: makes lines of one PD's bytes.

use heapless::Vec;
use ipc_proto::log::LINE_BYTES;

use super::Output;

/// Bytes of one PD that are not a whole line yet.
///
/// A line is at most [`LINE_BYTES`] long, its end included; what is longer goes on in the next line. Only
/// printable ASCII is passed on: a tab becomes a space and any other byte a question mark, so that no byte
/// ends the line early or reaches the terminal as a command.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    line: Vec<u8, { LINE_BYTES - 1 }>,
}

impl Assembler {
    /// Nothing so far.
    #[must_use]
    pub const fn new() -> Self {
        Self { line: Vec::new() }
    }

    /// Takes bytes of the PD `name` and writes the lines that they complete.
    pub fn push(&mut self, name: &str, bytes: &[u8], output: &mut impl Output) {
        for &byte in bytes {
            let shown = match byte {
                b'\n' => {
                    self.write(name, output);
                    continue;
                }
                b'\t' => b' ',
                b' '..=b'~' => byte,
                _ => b'?',
            };
            if self.line.is_full() {
                self.write(name, output);
            }
            // There is room now.
            let _ = self.line.push(shown);
        }
    }

    /// Writes what there is as a line, if there is anything.
    pub fn finish(&mut self, name: &str, output: &mut impl Output) {
        if !self.line.is_empty() {
            self.write(name, output);
        }
    }

    fn write(&mut self, name: &str, output: &mut impl Output) {
        write_line(name, &self.line, output);
        self.line.clear();
    }
}

/// Writes one line behind the name of its PD.
pub(super) fn write_line(name: &str, line: &[u8], output: &mut impl Output) {
    output.put_all(name.as_bytes());
    output.put_all(b"| ");
    output.put_all(line);
    output.put_all(b"\r\n");
}
