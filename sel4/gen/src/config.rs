//! A kernel's configuration: named flags, numbers and texts.
//!
//! Main types: [`Config`], [`Value`]. A kernel built here gets its `autoconf.h`
//! from one; an installed kernel describes itself in `gen_config.json`.
//! [`crate::condition`] evaluates conditions over it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Error;

/// The value of one configuration option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// On or off.
    Flag(bool),
    /// An unsigned number.
    Number(u64),
    /// Anything else, such as a platform's name.
    Text(String),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Number(value)
    }
}

/// Options by name, without the prefix `CONFIG_`, in alphabetical order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config(BTreeMap<String, Value>);

impl Config {
    /// Sets an option, replacing an earlier value.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(strip(name).to_owned(), value.into());
    }

    /// The value of an option, with or without the prefix `CONFIG_` in `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(strip(name))
    }

    /// All options in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether the C headers of this configuration define the option.
    #[must_use]
    pub fn is_defined(&self, name: &str) -> bool {
        !matches!(self.get(name), None | Some(Value::Flag(false)))
    }

    /// The option as a number: a flag counts as 0 or 1.
    ///
    /// # Errors
    /// [`Error::NotANumber`] for a missing option or a text.
    pub fn number(&self, name: &str) -> Result<u64, Error> {
        match self.get(name) {
            Some(Value::Number(number)) => Ok(*number),
            Some(Value::Flag(flag)) => Ok(u64::from(*flag)),
            _ => Err(Error::NotANumber(strip(name).to_owned())),
        }
    }

    /// Reads the `gen_config.json` that an installed kernel brings: one object,
    /// whose values are booleans or strings (numbers are written as strings).
    ///
    /// # Errors
    /// [`Error::ConfigJson`] if the text is not such an object.
    pub fn from_gen_config_json(text: &str) -> Result<Self, Error> {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|error| Error::ConfigJson(error.to_string()))?;
        let mut config = Self::default();
        for (name, value) in object {
            let value = match value {
                serde_json::Value::Bool(flag) => Value::Flag(flag),
                serde_json::Value::String(text) => parse_text(text),
                serde_json::Value::Number(number) => match number.as_u64() {
                    Some(number) => Value::Number(number),
                    None => Value::Text(number.to_string()),
                },
                _ => {
                    return Err(Error::ConfigJson(format!(
                        "option {name} is neither flag, number nor text"
                    )));
                }
            };
            config.set(&name, value);
        }
        Ok(config)
    }

    /// The configuration as the C header `autoconf.h`.
    #[must_use]
    pub fn autoconf_header(&self) -> String {
        let mut header =
            String::from("#ifndef GENERATED_AUTOCONF_H\n#define GENERATED_AUTOCONF_H\n");
        for (name, value) in self.iter() {
            // Writing to a String cannot fail.
            let _ = match value {
                Value::Flag(true) => writeln!(header, "#define CONFIG_{name} 1"),
                Value::Flag(false) => writeln!(header, "/* CONFIG_{name} is not set */"),
                Value::Number(number) => writeln!(header, "#define CONFIG_{name} {number}"),
                Value::Text(text) => writeln!(header, "#define CONFIG_{name} {text}"),
            };
        }
        header.push_str("#endif\n");
        header
    }
}

fn strip(name: &str) -> &str {
    name.strip_prefix("CONFIG_").unwrap_or(name)
}

fn parse_text(text: String) -> Value {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number {
        Ok(number) => Value::Number(number),
        Err(_) => Value::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_an_installed_kernel() {
        let config = Config::from_gen_config_json(
            r#"{"KERNEL_MCS": false, "MAX_NUM_NODES": "4", "PLAT": "pc99", "BASE": "0x100000", "PRINTING": true}"#,
        )
        .unwrap();
        assert_eq!(config.number("CONFIG_MAX_NUM_NODES"), Ok(4));
        assert_eq!(config.number("BASE"), Ok(0x10_0000));
        assert!(config.is_defined("PRINTING"));
        assert!(!config.is_defined("KERNEL_MCS"));
        assert!(!config.is_defined("NO_SUCH"));
        assert_eq!(config.get("PLAT"), Some(&Value::Text("pc99".into())));
        assert_eq!(config.number("PLAT"), Err(Error::NotANumber("PLAT".into())));
    }

    #[test]
    fn json_that_is_no_configuration() {
        for text in ["", "[]", "3", r#"{"A": null}"#, r#"{"A": []}"#, "{"] {
            assert!(matches!(
                Config::from_gen_config_json(text),
                Err(Error::ConfigJson(_))
            ));
        }
    }

    #[test]
    fn autoconf_defines_only_what_is_on() {
        let mut config = Config::default();
        config.set("MAX_NUM_NODES", 4);
        config.set("IOMMU", true);
        config.set("VTX", false);
        let header = config.autoconf_header();
        assert!(header.contains("#define CONFIG_MAX_NUM_NODES 4\n"));
        assert!(header.contains("#define CONFIG_IOMMU 1\n"));
        assert!(!header.contains("#define CONFIG_VTX"));
    }
}
