//! Tokens of a preprocessed `.bf` file, each with its place in the source.

use crate::Error;

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'t> {
    pub kind: Kind<'t>,
    pub place: Place<'t>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'t> {
    Word(&'t str),
    Number(u64),
    Symbol(char),
}

/// Line of a source file before preprocessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'t> {
    pub file: &'t str,
    pub line: usize,
}

impl Place<'_> {
    pub fn error(self, rule: impl Into<String>) -> Error {
        Error::Bitfield {
            place: format!("{}:{}", self.file, self.line),
            rule: rule.into(),
        }
    }
}

/// Splits the text into tokens. `--` starts a comment, and so does `#`, except
/// that the preprocessor's line markers move the place.
pub fn tokens(text: &str) -> Result<Vec<Token<'_>>, Error> {
    let mut tokens = Vec::new();
    let mut place = Place { file: "", line: 0 };
    for line in text.lines() {
        place.line += 1;
        if let Some((number, file)) = line.strip_prefix("# ").and_then(line_marker) {
            // The marker names the line after it.
            place = Place {
                file,
                line: number.saturating_sub(1),
            };
            continue;
        }
        let code = line.split("--").next().unwrap_or("");
        let code = code.split('#').next().unwrap_or("");
        let mut rest = code.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let length = word.max(first.len_utf8());
            let (head, tail) = rest.split_at(length);
            let kind = if "{}(),".contains(first) {
                Kind::Symbol(first)
            } else if first.is_ascii_digit() {
                Kind::Number(
                    number(head).ok_or_else(|| place.error(format!("`{head}` is not a number")))?,
                )
            } else if word > 0 {
                Kind::Word(head)
            } else {
                return Err(place.error(format!("unexpected character `{first}`")));
            };
            tokens.push(Token { kind, place });
            rest = tail.trim_start();
        }
    }
    Ok(tokens)
}

/// `12 "file" flags` as the preprocessor writes it after `# `.
fn line_marker(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once(" \"")?;
    let (file, _) = rest.split_once('"')?;
    Some((number.parse().ok()?, file))
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim_end_matches(['l', 'L']);
    let lower = text.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok();
        }
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_places() {
        let text = "block a -- comment {\n# 7 \"x.bf\" 2\n{ field b 0x10 # c\n";
        let tokens: Vec<_> = tokens(text)
            .unwrap()
            .into_iter()
            .map(|t| (t.kind, t.place.file, t.place.line))
            .collect();
        assert_eq!(
            tokens,
            [
                (Kind::Word("block"), "", 1),
                (Kind::Word("a"), "", 1),
                (Kind::Symbol('{'), "x.bf", 7),
                (Kind::Word("field"), "x.bf", 7),
                (Kind::Word("b"), "x.bf", 7),
                (Kind::Number(16), "x.bf", 7),
            ]
        );
    }

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("0", Some(0)),
            ("64", Some(64)),
            ("0x1F", Some(31)),
            ("0b101", Some(5)),
            ("8l", Some(8)),
            ("8x", None),
            ("0x", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
