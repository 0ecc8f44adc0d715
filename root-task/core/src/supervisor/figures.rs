//! Resources in use: [`Figures`] are taken before the first client starts and
//! after the last is gone, and must be equal.

use core::fmt;

use heapless::Vec;
use system::model::Name;

use super::Hands;

/// Most figures of a system: sixteen shards of each kind.
const MAX_FIGURES: usize = 192;

/// One figure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figure {
    /// Whose.
    pub server: Name,
    /// Of what.
    pub name: &'static str,
    /// How many.
    pub value: u64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} {}", self.server, self.name, self.value)
    }
}

/// All figures, in a fixed order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    list: Vec<Figure, MAX_FIGURES>,
    missing: Option<Name>,
}

impl Figures {
    /// Adds a figure. One without room is missed in every comparison.
    pub fn add(&mut self, server: &Name, name: &'static str, value: u64) {
        if self
            .list
            .push(Figure {
                server: server.clone(),
                name,
                value,
            })
            .is_err()
        {
            self.missing(server);
        }
    }

    /// A server that would not tell its figures.
    pub fn missing(&mut self, server: &Name) {
        self.missing = Some(server.clone());
    }

    /// Prints them as `@figure <when>.<server>.<name> <value>`.
    pub fn tell<H: Hands>(&self, when: &str, hands: &mut H) {
        for figure in &self.list {
            hands.say(format_args!("@figure {when}.{figure}"));
        }
    }
}

/// Compares and prints the check `resources_returned`.
///
/// # Errors
/// The first figure that differs, as it is after.
pub fn compare<H: Hands>(before: &Figures, after: &Figures, hands: &mut H) -> Result<(), Figure> {
    let none = |server: &Name| Figure {
        server: server.clone(),
        name: "figures",
        value: 0,
    };
    if let Some(server) = before.missing.as_ref().or(after.missing.as_ref()) {
        hands.say(format_args!(
            "@check resources_returned fail {server} does not tell its figures"
        ));
        return Err(none(server));
    }
    if before.list.len() != after.list.len() || before.list.is_empty() {
        hands.say(format_args!(
            "@check resources_returned fail not the same figures"
        ));
        return Err(none(&Name::new()));
    }
    let different = before
        .list
        .iter()
        .zip(&after.list)
        .find(|(before, after)| before != after);
    match different {
        None => {
            hands.say(format_args!(
                "@check resources_returned pass {} figures are as before",
                after.list.len()
            ));
            Ok(())
        }
        Some((before, after)) => {
            hands.say(format_args!(
                "@check resources_returned fail {before} before, {} after",
                after.value
            ));
            Err(after.clone())
        }
    }
}
