//! The text that `lspci -vvv -nn -D` prints, taken apart without knowing what it
//! means: functions, lines with their labels, capabilities, and on each line
//! flags (`Name+`) and phrases (everything else).
//!
//! Nothing is dropped but line breaks, separators, `<?>` (lspci's own mark of
//! what it does not decode) and remarks ([`REMARKS`]).

use crate::field::Place;

mod header;

/// Beginnings of lines that say what the operating system knows, or what lspci thinks: no
/// registers.
const REMARKS: [&str; 10] = [
    "<access denied to the rest>",
    "!!! Invalid class",
    "DeviceName:",
    "Physical Slot:",
    "Device tree node:",
    "NUMA node:",
    "IOMMU group:",
    "Kernel driver in use:",
    "Kernel modules:",
    "lspci:",
];

/// Lines whose text is one phrase although it has separators.
const WHOLE: [&str; 4] = [
    "PrimaryProperties:",
    "SecondaryProperties:",
    "Compliance Preset/De-emphasis:",
    "Compliance De-emphasis:",
];

/// Label of what says that the conventional list ends before its end.
pub const END: &str = "end of capabilities";
/// Label of what says that the extended list ends before its end.
pub const EXTENDED_END: &str = "end of extended capabilities";

/// What lspci says about a function.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Function {
    /// Address, with its domain.
    pub name: String,
    /// What stands before the capabilities.
    pub header: Vec<Token>,
    /// Capabilities of both lists, in order.
    pub capabilities: Vec<Capability>,
}

/// A capability.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Its offset, and in which list it is.
    pub place: Place,
    /// Version of an extended one.
    pub version: Option<u8>,
    /// What stands after the bracket.
    pub title: String,
    /// What stands on the lines below.
    pub body: Vec<Token>,
    /// How many lines stand below.
    pub lines: usize,
}

/// Something on a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// What begins the line, or the last line with a label.
    pub label: String,
    /// What it is.
    pub kind: TokenKind,
}

/// Kinds of tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// `Name+` or `Name-`; after a word with a colon, `word: Name`.
    Flag {
        /// Name.
        name: String,
        /// It ends with a plus.
        set: bool,
    },
    /// Words up to the next separator or flag, or one word with an equals sign.
    Phrase(String),
}

/// The functions in what lspci printed.
#[must_use]
pub fn parse(text: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    let mut label = String::new();
    for line in text.lines() {
        let depth = line.chars().take_while(|c| *c == '\t').count();
        let content = line.trim();
        if content.is_empty() || REMARKS.iter().any(|remark| content.starts_with(remark)) {
            continue;
        }
        if depth == 0 {
            functions.extend(header::heading(content));
            continue;
        }
        let Some(function) = functions.last_mut() else {
            continue;
        };
        if let Some(rest) = content.strip_prefix("Capabilities: ") {
            label.clear();
            // Where lspci has nothing to say, it does not end the line either.
            for one in rest.split("\tCapabilities: ") {
                function.capability(one);
            }
        } else if let Some(capability) = function.capabilities.last_mut().filter(|_| depth > 1) {
            capability.lines += 1;
            let rest = split_label(content, depth, &mut label);
            line_tokens(rest, &label, &mut capability.body);
        } else if depth == 1 {
            header::line(content, &mut label, &mut function.header);
        } else {
            line_tokens(content, &label, &mut function.header);
        }
    }
    functions
}

impl Capability {
    /// What its first line says after `prefix`.
    #[must_use]
    pub fn title_tokens(&self, prefix: &str) -> Vec<Token> {
        let rest = self.title.strip_prefix(prefix).unwrap_or(&self.title);
        let mut tokens = Vec::new();
        match header::last_bracketed(rest, 9) {
            // Names of vendors and devices may have any separators.
            Some(ids) if prefix == "Subsystem:" => push_phrase(&[ids], "", &mut tokens),
            _ => line_tokens(rest, "", &mut tokens),
        }
        tokens
    }
}

impl Function {
    /// A line `[offset version] title`, or why there is none.
    fn capability(&mut self, text: &str) {
        let bracket = text
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .map(|(place, title)| (place, title.trim()));
        let Some((place, title)) = bracket else {
            return self.end(END, "unreadable");
        };
        let (offset, version) = match place.split_once(" v") {
            Some((offset, version)) => (offset, version.parse().ok()),
            None => (place, None),
        };
        let Ok(offset) = u16::from_str_radix(offset, 16) else {
            return self.end(END, text);
        };
        let (place, end) = match version {
            Some(_) => (Place::Extended(offset), EXTENDED_END),
            None => (Place::Capability(offset), END),
        };
        match title {
            "<chain looped>" => self.end(end, &format!("looped at {offset:x}")),
            "<chain broken>" => self.end(end, &format!("broken at {offset:x}")),
            _ => self.capabilities.push(Capability {
                place,
                version,
                title: title.to_owned(),
                body: Vec::new(),
                lines: 0,
            }),
        }
    }

    fn end(&mut self, label: &str, what: &str) {
        push_phrase(&[what], label, &mut self.header);
    }
}

/// Takes the label off a line at `depth`; deeper lines keep the label of the line above.
fn split_label<'t>(content: &'t str, depth: usize, label: &mut String) -> &'t str {
    if depth > 2 {
        return content;
    }
    match content.split_once(':') {
        Some((before, rest)) if !before.contains(['=', '+']) => {
            before.clone_into(label);
            rest
        }
        _ => {
            label.clear();
            content
        }
    }
}

/// Takes the text of a line apart.
pub fn line_tokens(text: &str, label: &str, tokens: &mut Vec<Token>) {
    let text = text.trim();
    if label.starts_with("Region ") {
        push_phrase(&[&header::region(text)], label, tokens);
        return;
    }
    if WHOLE.iter().any(|whole| text.starts_with(whole)) {
        push_phrase(&[text], label, tokens);
        return;
    }
    for segment in text
        .split([',', ';'])
        .enumerate()
        .fold(Vec::new(), join_inner)
    {
        for part in segment.split("  ") {
            segment_tokens(part, label, tokens);
        }
    }
}

/// A comma or semicolon separates if a space or the end follows; inside a word it does not.
fn join_inner(mut segments: Vec<String>, (index, piece): (usize, &str)) -> Vec<String> {
    match segments.last_mut() {
        Some(last) if index > 0 && !piece.is_empty() && !piece.starts_with([' ', '\t']) => {
            last.push(',');
            last.push_str(piece);
        }
        _ => segments.push(piece.to_owned()),
    }
    segments
}

fn segment_tokens(segment: &str, label: &str, tokens: &mut Vec<Token>) {
    let mut words: Vec<&str> = Vec::new();
    let mut group = String::new();
    for word in segment.split_whitespace().filter(|word| *word != "<?>") {
        if let Some((name, set)) = flag(word) {
            match words.last() {
                Some(last) if last.ends_with(':') => {
                    group = format!("{} ", words.join(" "));
                    words.clear();
                }
                _ => push_phrase(&std::mem::take(&mut words), label, tokens),
            }
            push_flag(format!("{group}{name}"), set, label, tokens);
        } else if let Some((name, inner)) = flags_in_brackets(word) {
            push_phrase(&std::mem::take(&mut words), label, tokens);
            for (flag, set) in inner {
                push_flag(format!("{name}: {flag}"), set, label, tokens);
            }
        } else if word.contains('=') {
            push_phrase(&std::mem::take(&mut words), label, tokens);
            push_phrase(&[word.trim_end_matches(':')], label, tokens);
        } else {
            words.push(word);
        }
    }
    push_phrase(&words, label, tokens);
}

/// `Name+` or `Name-`.
fn flag(word: &str) -> Option<(&str, bool)> {
    let (name, set) = match (word.strip_suffix('+'), word.strip_suffix('-')) {
        (Some(name), _) => (name, true),
        (_, Some(name)) => (name, false),
        (None, None) => return None,
    };
    let is_name = name.ends_with(|c: char| c.is_ascii_alphanumeric());
    is_name.then_some((name, set))
}

/// `Name(Flag+,Flag-)`.
fn flags_in_brackets(word: &str) -> Option<(&str, Vec<(&str, bool)>)> {
    let (name, rest) = word.split_once('(')?;
    let inner = rest.strip_suffix(')')?;
    let flags: Option<Vec<_>> = inner.split(',').map(flag).collect();
    flags
        .filter(|_| !name.is_empty())
        .map(|flags| (name, flags))
}

fn push_flag(name: String, set: bool, label: &str, tokens: &mut Vec<Token>) {
    tokens.push(Token {
        label: label.to_owned(),
        kind: TokenKind::Flag { name, set },
    });
}

fn push_phrase(words: &[&str], label: &str, tokens: &mut Vec<Token>) {
    if !words.is_empty() {
        tokens.push(Token {
            label: label.to_owned(),
            kind: TokenKind::Phrase(words.join(" ")),
        });
    }
}
