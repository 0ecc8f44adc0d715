//! What can be wrong with a kernel's interface files: [`Error`].

use std::path::PathBuf;

/// A fault in the input of a generator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// A file was read, and its content is at fault.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The fault.
        error: Box<Error>,
    },
    /// Not well-formed XML.
    #[error("not well-formed XML: {0}")]
    Xml(String),
    /// An element that the format requires is missing.
    #[error("element <{0}> is missing")]
    MissingElement(String),
    /// An attribute that the format requires is missing.
    #[error("element <{element}> lacks the attribute `{attribute}`")]
    MissingAttribute {
        /// The element's name.
        element: String,
        /// The attribute's name.
        attribute: &'static str,
    },
    /// A condition in neither of the two notations.
    #[error("condition: {0}")]
    Condition(String),
    /// A method or system call appears twice in one configuration.
    #[error("`{0}` is defined twice in this configuration")]
    Duplicate(String),
    /// A name that cannot be a constant's name.
    #[error("`{0}` cannot be the name of a constant")]
    Name(String),
    /// `gen_config.json` is not an object of flags and texts.
    #[error("kernel configuration: {0}")]
    ConfigJson(String),
    /// A configuration option is missing or not a number.
    #[error("kernel configuration: option {0} is missing or not a number")]
    NotANumber(String),
    /// A bitfield description breaks a rule of its format.
    #[error("{place}: {rule}")]
    Bitfield {
        /// File and line, `file:line`, of the source before preprocessing.
        place: String,
        /// The broken rule.
        rule: String,
    },
}

impl Error {
    /// The same fault, with the file it was found in.
    #[must_use]
    pub fn in_file(self, path: impl Into<PathBuf>) -> Self {
        Self::InFile {
            path: path.into(),
            error: Box::new(self),
        }
    }
}
