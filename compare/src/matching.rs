//! Pairs what lspci printed with the fields that `hw` found, one to one.

use crate::explain::{self, Difference};
use crate::field::{Field, Place, Presence, Value, title};
use crate::lspci::Reading;
use crate::ours::{self, Scope, titles};
use crate::report::{Class, FunctionResult};
use crate::text::{self, Token, TokenKind};

/// Compares both readings of one function.
pub fn compare(ours: &ours::Function, theirs: Option<&Reading>) -> FunctionResult {
    let mut result = FunctionResult::new(&ours.name);
    let theirs = match theirs {
        Some(Reading::Function(theirs)) => theirs,
        Some(Reading::GaveUp(said)) => {
            let there = Difference::new(Place::Header, "lspci", None, Some(said.clone()));
            explain::settle(ours, there, Class::Header, &mut result);
            return result;
        }
        None => {
            let there = Some("there".to_owned());
            let difference = Difference::new(Place::Header, "function", there, None);
            explain::settle(ours, difference, Class::Header, &mut result);
            return result;
        }
    };
    let mut matching = Matching {
        ours,
        open: ours.fields.iter().collect(),
        result,
    };
    for token in &theirs.header {
        matching.token(Place::Header, token);
    }
    matching.missing(Place::Header);
    matching.capabilities(&theirs.capabilities);
    matching.result
}

struct Matching<'o> {
    ours: &'o ours::Function,
    /// Fields that no token has been paired with.
    open: Vec<&'o Field>,
    result: FunctionResult,
}

impl Matching<'_> {
    fn capabilities(&mut self, theirs: &[text::Capability]) {
        let mut open: Vec<&ours::Capability> = self.ours.capabilities.iter().collect();
        for their in theirs {
            let index = open.iter().position(|our| our.place == their.place);
            let Some(our) = index.map(|index| open.remove(index)) else {
                let title = Some(their.title.clone());
                self.differ(their.place, "capability", None, title, Class::Capability);
                continue;
            };
            self.capability(our, their);
        }
        for our in open {
            let name = Some(our.name.to_owned());
            self.differ(our.place, "capability", name, None, Class::Capability);
        }
    }

    fn capability(&mut self, our: &ours::Capability, their: &text::Capability) {
        let Some(prefix) = titles::prefix(our.place, our.id, &their.title) else {
            let name = Some(format!("{:#x} {}", our.id, our.name));
            let title = Some(their.title.clone());
            self.differ(our.place, "capability", name, title, Class::Capability);
            return;
        };
        if our.version == their.version {
            self.result.count(Class::Capability).equal += 1;
        } else {
            let shown = |version: Option<u8>| version.map(|number| number.to_string());
            let (ours, theirs) = (shown(our.version), shown(their.version));
            self.differ(our.place, "version", ours, theirs, Class::Capability);
        }
        if let Some(error) = our.error {
            let lines = format!("{} ({} lines)", their.title, their.lines);
            let error = Some(format!("refused: {error}"));
            self.differ(our.place, "registers", error, Some(lines), Class::Field);
            return;
        }
        if our.scope != Scope::Name {
            for token in their.title_tokens(prefix) {
                self.token(our.place, &token);
            }
        }
        if our.scope == Scope::Whole {
            for token in &their.body {
                self.token(our.place, token);
            }
        } else {
            self.result.not_decoded += their.lines;
        }
        self.missing(our.place);
    }

    /// Looks for the field that `token` is a reading of.
    fn token(&mut self, place: Place, token: &Token) {
        let class = class(place, &token.label);
        let candidates = self.open.iter().enumerate();
        let candidates = candidates
            .filter(|(_, field)| field.place == place && field.label == token.label)
            .filter_map(|(index, field)| {
                let readings = field.readings.iter();
                let matches = readings.filter_map(|(name, value)| read(token, name, value));
                matches
                    .max_by_key(|found| found.length)
                    .map(|found| (index, found))
            });
        // The longest name; of equal ones the first field.
        let best = candidates.reduce(|best, next| {
            if next.1.length > best.1.length {
                next
            } else {
                best
            }
        });
        let Some((index, found)) = best else {
            let (name, shown) = match &token.kind {
                TokenKind::Flag { name, set } => (name.as_str(), Value::Flag(*set).to_string()),
                TokenKind::Phrase(text) => ("", text.clone()),
            };
            self.differ(place, &title(&token.label, name), None, Some(shown), class);
            return;
        };
        let field = self.open.remove(index);
        if found.is_equal {
            self.result.count(class).equal += 1;
        } else {
            let (ours, theirs) = (Some(found.ours), Some(found.theirs));
            self.differ(place, &field.title(), ours, theirs, class);
        }
    }

    /// What lspci had to print at `place` and did not.
    fn missing(&mut self, place: Place) {
        let (here, others): (Vec<&Field>, _) =
            self.open.iter().partition(|field| field.place == place);
        self.open = others;
        for field in here {
            match field.presence {
                Presence::Always => {
                    let class = class(place, &field.label);
                    let ours = Some(field.value());
                    self.differ(place, &field.title(), ours, None, class);
                }
                Presence::Perhaps => self.result.not_printed += 1,
            }
        }
    }

    fn differ(
        &mut self,
        place: Place,
        what: &str,
        ours: Option<String>,
        theirs: Option<String>,
        class: Class,
    ) {
        let difference = Difference::new(place, what, ours, theirs);
        explain::settle(self.ours, difference, class, &mut self.result);
    }
}

fn class(place: Place, label: &str) -> Class {
    match place {
        Place::Header if label.starts_with("Region ") || label == "Expansion ROM" => Class::Region,
        Place::Header => Class::Header,
        Place::Capability(_) | Place::Extended(_) => Class::Field,
    }
}

/// A token that is a reading of a field.
struct Found {
    /// How much of the token is the field's name.
    length: usize,
    is_equal: bool,
    ours: String,
    theirs: String,
}

/// Reads `token` as the field `name`, if it is one.
fn read(token: &Token, name: &str, value: &Value) -> Option<Found> {
    match (&token.kind, value) {
        (TokenKind::Flag { name: flag, set }, Value::Flag(ours)) => (flag == name).then(|| Found {
            length: name.len(),
            is_equal: set == ours,
            ours: value.to_string(),
            theirs: Value::Flag(*set).to_string(),
        }),
        (TokenKind::Phrase(text), Value::Text(_) | Value::Hex(_)) => {
            let rest = text.strip_prefix(name)?;
            let separators = [' ', ':', '=', '#'];
            let ends_here = name.is_empty() || rest.is_empty() || rest.starts_with(separators);
            if !ends_here {
                return None;
            }
            let theirs = rest.trim_start_matches(separators).trim();
            let is_equal = match value {
                Value::Hex(number) => u64::from_str_radix(theirs, 16) == Ok(*number),
                _ => theirs == value.to_string(),
            };
            Some(Found {
                length: name.len(),
                is_equal,
                ours: value.to_string(),
                theirs: theirs.to_owned(),
            })
        }
        _ => None,
    }
}
