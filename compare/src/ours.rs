//! [`read`]: what `hw` says about a function of a dump, as fields under the names
//! that lspci has for them.

mod capability;
mod express;
mod extended;
mod header;
mod known;
pub mod titles;
mod words;

use hw::bar::{self, MAX_BARS, Register};
use std::collections::BTreeMap;

use hw::capability::{
    CapabilityError, CapabilityList, ExtendedCapability as _, PortType, SrIov, WalkFault,
};
use hw::header::{Header, HeaderError, Layout, register};
use sim::config::{Dumped, Machine};

use crate::field::{Field, Place};
use known::Known;

/// How much of a capability `hw` decodes, and so how much is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Offset, name and version.
    Name,
    /// Also its first line.
    Title,
    /// Every line.
    Whole,
}

/// A capability that `hw` found.
#[derive(Clone, Debug)]
pub struct Capability {
    /// Where.
    pub place: Place,
    /// Its id.
    pub id: u16,
    /// `hw`'s name for it.
    pub name: &'static str,
    /// Version of an extended one.
    pub version: Option<u8>,
    /// How much of it is compared.
    pub scope: Scope,
    /// Why `hw` refuses it.
    pub error: Option<CapabilityError>,
    /// Some of its registers are not in the dump.
    pub is_cut: bool,
}

/// What `hw` says about a function.
#[derive(Debug)]
pub struct Function {
    /// Its address as the dump has it.
    pub name: String,
    /// Its registers, as far as they are known.
    pub bytes: Vec<u8>,
    /// The header, or why it is none.
    pub header: Result<Header, HeaderError>,
    /// What its BARs hold, and those of its virtual functions.
    pub bars: BTreeMap<Place, [Register; MAX_BARS]>,
    /// All fields.
    pub fields: Vec<Field>,
    /// All capabilities.
    pub capabilities: Vec<Capability>,
    /// What ended the conventional list early.
    pub fault: Option<WalkFault>,
    /// What ended the extended list early.
    pub extended_fault: Option<WalkFault>,
}

/// A function as `hw` is asked about it.
#[derive(Clone, Copy)]
struct Source<'m> {
    cfg: &'m Known<'m>,
    at: hw::Sbdf,
    layout: Layout,
    /// What its Express capability says it is.
    port: Option<PortType>,
}

/// Reads one function of `machine`.
#[must_use]
pub fn read(machine: &Machine, dumped: &Dumped) -> Function {
    let cfg = Known::new(machine, dumped.bytes.len());
    let header = Header::read(&cfg, dumped.at);
    let mut function = Function {
        name: dumped.name(),
        bytes: dumped.bytes.clone(),
        header,
        bars: BTreeMap::new(),
        fields: header::identity(&cfg, dumped.at),
        capabilities: Vec::new(),
        fault: None,
        extended_fault: None,
    };
    let Ok(header) = header else {
        return function;
    };
    let list = CapabilityList::read(&cfg, dumped.at, header.layout);
    let mut source = Source {
        cfg: &cfg,
        at: dumped.at,
        layout: header.layout,
        port: None,
    };
    if let Ok(Some(express)) = list.find::<hw::capability::Express, _>(&cfg, dumped.at) {
        source.port = Some(express.port);
    }
    let count = header.layout.bar_count();
    let bars = bar::read_registers(&cfg, dumped.at, register::BAR0, count);
    function.bars.insert(Place::Header, bars);
    function.fields.extend(header::fields(source, &list));
    for entry in &list.entries {
        cfg.forget();
        let (mut capability, fields) = capability::read(source, *entry);
        capability.is_cut = cfg.was_beyond();
        function.capabilities.push(capability);
        function.fields.extend(fields);
    }
    for entry in &list.extended {
        cfg.forget();
        let (mut capability, fields) = extended::read(source, *entry);
        if let Ok(physical) = SrIov::decode(&cfg, dumped.at, entry.offset)
            && entry.id == SrIov::ID
        {
            let bars = physical.bars(&cfg, dumped.at);
            function.bars.insert(capability.place, bars);
        }
        capability.is_cut = cfg.was_beyond();
        function.capabilities.push(capability);
        function.fields.extend(fields);
    }
    function.fault = list.fault;
    function.extended_fault = list.extended_fault;
    function
}
