//! Machines from text: what `lspci -x`, `-xxx` or `-xxxx` printed, and the
//! sizes of BARs that the machine's own system knew.
//!
//! Registers of a dump cannot be written, but for Command and the BARs whose
//! sizes are given.

use hw::Sbdf;
use std::fmt;

use super::Machine;
use super::space::Space;

/// A line of a dump that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for DumpError {}

impl Machine {
    /// The machine of a dump: headings that begin with an address, then rows of hex bytes.
    ///
    /// # Errors
    /// The first line that makes no sense.
    pub fn from_lspci(text: &str) -> Result<Self, DumpError> {
        let mut machine = Self::new();
        let mut current: Option<(Sbdf, Vec<u8>)> = None;
        for (index, line) in text.lines().enumerate() {
            let error = |what| DumpError {
                line: index + 1,
                what,
            };
            let Some((first, rest)) = line.trim().split_once(' ') else {
                continue;
            };
            if let Ok(at) = first.parse::<Sbdf>() {
                machine.finish(current.replace((at, Vec::new())));
            } else if let Some(offset) = row_offset(first) {
                let (_, bytes) = current.as_mut().ok_or(error("bytes before any heading"))?;
                if offset != bytes.len() {
                    return Err(error("rows are not in order"));
                }
                for byte in rest.split_whitespace() {
                    let byte = u8::from_str_radix(byte, 16);
                    bytes.push(byte.map_err(|_| error("not a byte in hexadecimal"))?);
                }
            } else {
                return Err(error("neither a heading nor a row of bytes"));
            }
        }
        machine.finish(current);
        Ok(machine)
    }

    fn finish(&mut self, function: Option<(Sbdf, Vec<u8>)>) {
        let Some((at, bytes)) = function else {
            return;
        };
        let length = match bytes.len() {
            0..=64 => 64,
            65..=256 => 256,
            _ => 4096,
        };
        let mut space = Space::new(length);
        space.set(0, bytes.get(..length).unwrap_or(&bytes));
        space.allow(0x04, &0x0547u16.to_le_bytes());
        self.insert(at, space);
    }

    /// Makes BARs writable down to their sizes: lines of `slot bar size`, separated by tabs.
    ///
    /// # Errors
    /// The first line that makes no sense, or is about a function that the dump does not have.
    pub fn apply_regions(&mut self, text: &str) -> Result<(), DumpError> {
        for (index, line) in text.lines().enumerate() {
            let error = |what| DumpError {
                line: index + 1,
                what,
            };
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let mut fields = line.split('\t');
            let mut field = || fields.next().ok_or(error("fewer than three fields"));
            let at: Sbdf = field()?.parse().map_err(|_| error("no address"))?;
            let Ok(bar) = field()?.parse::<u16>() else {
                continue;
            };
            let size = field()?.trim_start_matches("0x");
            let size = u64::from_str_radix(size, 16).map_err(|_| error("no size"))?;
            let function = self.functions.get(&at).ok_or(error("no such function"))?;
            let space = &mut *function.borrow_mut();
            if bar > 5 || !size.is_power_of_two() {
                continue;
            }
            let at = 0x10 + 4 * bar;
            let low = space.bytes().get(usize::from(at)).copied().unwrap_or(0);
            let mask = !(size - 1);
            if low & 1 != 0 {
                space.allow(at, &(mask as u32 & !0x3).to_le_bytes());
            } else {
                space.allow(at, &(mask as u32 & !0xf).to_le_bytes());
                if low & 0x6 == 0x4 && bar < 5 {
                    space.allow(at + 4, &((mask >> 32) as u32).to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

/// Offset of a row such as `1a0:`.
fn row_offset(word: &str) -> Option<usize> {
    let digits = word.strip_suffix(':')?;
    usize::from_str_radix(digits, 16).ok()
}
