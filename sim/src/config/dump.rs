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

/// A function of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// Its address in a [`Machine`]: of a domain beyond 16 bits, as some systems number those of
    /// their own making, the segment is one from the top.
    pub at: Sbdf,
    /// Its domain as the dump has it.
    pub domain: u32,
    /// Its registers as far as the dump has them.
    pub bytes: Vec<u8>,
    /// Number of the line with its address, from 1.
    pub line: usize,
}

impl Dumped {
    /// Its registers, of which none can be written but Command.
    #[must_use]
    pub fn space(&self) -> Space {
        let mut space = Space::known(&self.bytes);
        if self.bytes.len() >= 6 {
            space.allow(0x04, &0x0547u16.to_le_bytes());
        }
        space
    }

    /// Its address as the dump has it, always with a domain.
    #[must_use]
    pub fn name(&self) -> String {
        let (bus, device, function) = (self.at.bus(), self.at.device(), self.at.function());
        format!("{:04x}:{bus:02x}:{device:02x}.{function}", self.domain)
    }
}

/// Which segments stand for domains beyond 16 bits.
#[derive(Clone, Debug, Default)]
pub(super) struct Domains(Vec<u32>);

impl Domains {
    /// The address that `word` names, and its domain.
    fn address(&mut self, word: &str) -> Option<(Sbdf, u32)> {
        if let Ok(at) = word.parse::<Sbdf>() {
            return Some((at, u32::from(at.segment())));
        }
        let (domain, rest) = word.split_once(':')?;
        let domain = u32::from_str_radix(domain, 16).ok()?;
        let at: Sbdf = rest.parse().ok()?;
        let index = self.0.iter().position(|known| *known == domain);
        let index = index.unwrap_or_else(|| {
            self.0.push(domain);
            self.0.len() - 1
        });
        let segment = u16::MAX.checked_sub(u16::try_from(index).ok()?)?;
        let at = Sbdf::from_requester_id(segment, at.requester_id());
        Some((at, domain))
    }
}

/// The functions of a dump in its order: headings that begin with an address, then rows of hex
/// bytes until an empty line or the next heading. Other lines are skipped: `lspci -v` puts text
/// between them.
///
/// # Errors
/// The first line that makes no sense, or a dump without functions.
pub fn read(text: &str) -> Result<Vec<Dumped>, DumpError> {
    read_with(text, &mut Domains::default())
}

fn read_with(text: &str, domains: &mut Domains) -> Result<Vec<Dumped>, DumpError> {
    let mut functions: Vec<Dumped> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate() {
        let error = |what| DumpError {
            line: index + 1,
            what,
        };
        let line = line.trim_end();
        is_open &= !line.is_empty();
        // What is indented is text.
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        if first.is_empty() {
            continue;
        }
        if let Some((at, domain)) = domains.address(first) {
            functions.push(Dumped {
                at,
                domain,
                bytes: Vec::new(),
                line: index + 1,
            });
            is_open = true;
        } else if let Some(offset) = row_offset(first) {
            let function = functions.last_mut().filter(|_| is_open);
            let bytes = &mut function.ok_or(error("bytes before any heading"))?.bytes;
            if offset != bytes.len() {
                return Err(error("rows are not in order"));
            }
            for byte in rest.split_whitespace() {
                let byte = u8::from_str_radix(byte, 16);
                bytes.push(byte.map_err(|_| error("not a byte in hexadecimal"))?);
            }
            if bytes.len() > 4096 {
                return Err(error("more than 4096 bytes"));
            }
        }
    }
    if functions.is_empty() {
        return Err(DumpError {
            line: text.lines().count(),
            what: "no function in the whole dump",
        });
    }
    Ok(functions)
}

impl Machine {
    /// The machine of a dump, as [`read`] reads it.
    ///
    /// # Errors
    /// The first line that makes no sense, or a dump without functions.
    pub fn from_lspci(text: &str) -> Result<Self, DumpError> {
        let mut machine = Self::new();
        let functions = read_with(text, &mut machine.domains)?;
        for (index, function) in functions.iter().enumerate() {
            if functions
                .iter()
                .take(index)
                .any(|other| other.at == function.at)
            {
                return Err(DumpError {
                    line: function.line,
                    what: "the function is there twice",
                });
            }
            machine.insert(function.at, function.space());
        }
        Ok(machine)
    }

    /// The lines that make sense of a list of regions, as [`Machine::apply_regions`] reads it.
    pub fn regions(&mut self, text: &str) -> Vec<Region> {
        let lines = regions_with(text, &mut self.domains).into_iter();
        lines.filter_map(|(_, region)| region.ok()).collect()
    }

    /// Makes BARs and expansion ROMs writable down to their sizes: lines of `slot bar size`,
    /// separated by tabs; `bar` is a number or `ROM`.
    ///
    /// # Errors
    /// The first line that makes no sense, or is about a function that the dump does not have.
    pub fn apply_regions(&mut self, text: &str) -> Result<(), DumpError> {
        for (line, region) in regions_with(text, &mut self.domains) {
            let error = |what| DumpError { line, what };
            let region = region.map_err(error)?;
            let function = self.functions.get(&region.at);
            let space = &mut *function.ok_or(error("no such function"))?.borrow_mut();
            if !region.size.is_power_of_two() {
                continue;
            }
            match region.bar.parse::<u16>() {
                Ok(bar) if bar < 6 => size_bar(space, bar, region.size),
                Ok(_) => {}
                Err(_) => size_rom(space, region.size),
            }
        }
        Ok(())
    }
}

/// A line of a list of regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Address of the function, as [`Dumped::at`].
    pub at: Sbdf,
    /// Address of the function as the list has it.
    pub name: String,
    /// A BAR's number, or `ROM`.
    pub bar: String,
    /// Bytes.
    pub size: u64,
}

fn regions_with(text: &str, domains: &mut Domains) -> Vec<(usize, Result<Region, &'static str>)> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|(index, line)| (index + 1, region(line, domains)))
        .collect()
}

fn region(line: &str, domains: &mut Domains) -> Result<Region, &'static str> {
    let mut fields = line.split('\t');
    let mut field = || fields.next().ok_or("fewer than three fields");
    let name = field()?;
    let (at, _) = domains.address(name).ok_or("no address")?;
    let bar = field()?;
    if bar != "ROM" && bar.parse::<u16>().is_err() {
        return Err("neither a BAR's number nor ROM");
    }
    let size = field()?.trim_start_matches("0x");
    let size = u64::from_str_radix(size, 16).map_err(|_| "no size")?;
    Ok(Region {
        at,
        name: name.to_owned(),
        bar: bar.to_owned(),
        size,
    })
}

fn size_bar(space: &mut Space, bar: u16, size: u64) {
    let at = 0x10 + 4 * bar;
    let low = space.bytes().get(usize::from(at)).copied().unwrap_or(0);
    let mask = !(size - 1);
    if low & 1 != 0 {
        allow32(space, at, mask as u32 & !0x3);
    } else {
        allow32(space, at, mask as u32 & !0xf);
        if low & 0x6 == 0x4 && bar < 5 {
            allow32(space, at + 4, (mask >> 32) as u32);
        }
    }
}

fn size_rom(space: &mut Space, size: u64) {
    let at = match space.bytes().get(0x0e).map(|kind| kind & 0x7f) {
        Some(0) => 0x30,
        Some(1) => 0x38,
        _ => return,
    };
    let mask = !(size - 1) as u32 & 0xffff_f800;
    allow32(space, at, mask | 1);
}

/// Lets a register be written, if the dump has it.
fn allow32(space: &mut Space, at: u16, mask: u32) {
    if space.bytes().len() >= usize::from(at) + 4 {
        space.allow(at, &mask.to_le_bytes());
    }
}

/// Offset of a row such as `1a0:`.
fn row_offset(word: &str) -> Option<usize> {
    let digits = word.strip_suffix(':')?;
    usize::from_str_radix(digits, 16).ok()
}
