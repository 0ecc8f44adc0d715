//! [`Field`]: something that a function's registers say, under the name that
//! lspci has for it.

use std::fmt;

/// Where in a function a field stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// The header.
    Header,
    /// A conventional capability, by its offset.
    Capability(u16),
    /// An extended capability, by its offset.
    Extended(u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Capability(offset) => write!(f, "[{offset:02x}]"),
            Self::Extended(offset) => write!(f, "[{offset:03x}]"),
        }
    }
}

/// What a field says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A bit.
    Flag(bool),
    /// A number that lspci prints in hexadecimal, with any number of digits.
    Hex(u64),
    /// Anything else, as lspci writes it.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(true) => f.write_str("+"),
            Self::Flag(false) => f.write_str("-"),
            Self::Hex(number) => write!(f, "{number:x}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Whether lspci has to print a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// It prints it always.
    Always,
    /// It prints it if it finds it worthwhile, or newer versions alone do.
    Perhaps,
}

/// Something that the registers say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Where it stands.
    pub place: Place,
    /// What begins its line, for instance `LnkCap`; empty in the first line of a capability.
    pub label: String,
    /// Its name on that line and its value; more than one where versions of lspci differ. A flag
    /// after a name with a colon is `name: flag`.
    pub readings: Vec<(String, Value)>,
    /// Whether lspci has to print it.
    pub presence: Presence,
}

impl Field {
    /// Label and name.
    #[must_use]
    pub fn title(&self) -> String {
        let name = self.readings.first().map_or("", |(name, _)| name);
        title(&self.label, name)
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> String {
        self.readings
            .first()
            .map_or(String::new(), |(_, value)| value.to_string())
    }
}

/// `label name`, as far as they are there.
#[must_use]
pub fn title(label: &str, name: &str) -> String {
    format!("{label} {name}").trim().to_owned()
}

/// Collects the fields of one place.
#[derive(Debug)]
pub struct Fields {
    place: Place,
    label: String,
    presence: Presence,
    /// What was collected.
    pub list: Vec<Field>,
}

impl Fields {
    /// Nothing yet, at `place`.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self {
            place,
            label: String::new(),
            presence: Presence::Always,
            list: Vec::new(),
        }
    }

    /// What follows stands on the line (or lines) with this label; lspci has to print it.
    pub fn line(&mut self, label: &str) -> &mut Self {
        label.clone_into(&mut self.label);
        self.presence = Presence::Always;
        self
    }

    /// Whether lspci has to print what follows, up to the next line.
    pub fn presence(&mut self, presence: Presence) -> &mut Self {
        self.presence = presence;
        self
    }

    /// A bit.
    pub fn flag(&mut self, name: &str, set: bool) -> &mut Self {
        self.either(&[(name, Value::Flag(set))])
    }

    /// A bit that versions of lspci name differently.
    pub fn flag_named(&mut self, names: &[&str], set: bool) -> &mut Self {
        let readings: Vec<_> = names.iter().map(|name| (*name, Value::Flag(set))).collect();
        self.either(&readings)
    }

    /// Text.
    pub fn text(&mut self, name: &str, text: impl Into<String>) -> &mut Self {
        self.either(&[(name, Value::Text(text.into()))])
    }

    /// A number that lspci prints in hexadecimal.
    pub fn hex(&mut self, name: &str, number: impl Into<u64>) -> &mut Self {
        self.either(&[(name, Value::Hex(number.into()))])
    }

    /// Something that versions of lspci print differently.
    pub fn either(&mut self, readings: &[(&str, Value)]) -> &mut Self {
        self.list.push(Field {
            place: self.place,
            label: self.label.clone(),
            readings: readings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            presence: self.presence,
        });
        self
    }
}
