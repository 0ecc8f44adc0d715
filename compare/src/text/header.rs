//! Lines of the header, which have less of a common form than those of capabilities.

use super::{Function, Token, line_tokens, push_phrase};

/// A function's first line: `0000:00:1f.2 SATA controller [0106]: Intel ... [8086:1e03] (rev 04)`.
pub fn heading(line: &str) -> Option<Function> {
    let (name, rest) = line.split_once(' ')?;
    let is_address = name.contains(':')
        && name.contains('.')
        && name
            .chars()
            .all(|c| c.is_ascii_hexdigit() || c == ':' || c == '.');
    if !is_address {
        return None;
    }
    let mut function = Function {
        name: name.to_owned(),
        ..Function::default()
    };
    let mut put = |what: &str, value: Option<&str>| {
        if let Some(value) = value {
            push_phrase(&[what, value], "function", &mut function.header);
        }
    };
    put("class", bracketed(rest, "]: ", 4));
    put("ids", last_bracketed(rest, 9));
    put("revision", after(rest, "(rev "));
    put("interface", after(rest, "(prog-if "));
    Some(function)
}

/// The first `[....]` of this many characters before `closing`.
fn bracketed<'t>(text: &'t str, closing: &str, length: usize) -> Option<&'t str> {
    text.match_indices(closing).find_map(|(end, _)| {
        let start = end.checked_sub(length)?;
        let inner = text.get(start..end)?;
        text.get(..start)?.ends_with('[').then_some(inner)
    })
}

/// The last `[xxxx:xxxx]`.
pub fn last_bracketed(text: &str, length: usize) -> Option<&str> {
    text.rmatch_indices(']').find_map(|(end, _)| {
        let start = end.checked_sub(length)?;
        let inner = text.get(start..end)?;
        let is_pair = inner
            .split(':')
            .all(|half| half.len() == 4 && half.chars().all(|c| c.is_ascii_hexdigit()));
        (is_pair && text.get(..start)?.ends_with('[')).then_some(inner)
    })
}

fn after<'t>(text: &'t str, what: &str) -> Option<&'t str> {
    let (_, rest) = text.rsplit_once(what)?;
    rest.get(..2)
}

/// A line with one tab.
pub fn line(content: &str, label: &mut String, tokens: &mut Vec<Token>) {
    let whole = |name: &str, text: &str, tokens: &mut Vec<Token>| {
        push_phrase(&[text.trim()], name, tokens);
    };
    if let Some(rest) = content.strip_prefix("Expansion ROM at ") {
        return whole("Expansion ROM", &rom(rest), tokens);
    }
    if let Some(rest) = content.strip_prefix("16-bit legacy interface ports at ") {
        return whole("legacy ports", rest, tokens);
    }
    if let Some(rest) = content.strip_prefix("BIST ") {
        return whole("BIST", rest.trim_start_matches("result: "), tokens);
    }
    if let Some(rest) = content.strip_prefix("!!! Unknown header type ") {
        return whole("header type", rest, tokens);
    }
    if let Some(rest) = content.strip_prefix("!!! Unknown ") {
        let name = match rest.split(" range types").next() {
            Some("I/O") => "I/O behind bridge",
            Some("memory") => "Memory behind bridge",
            Some("prefetchable memory") => "Prefetchable memory behind bridge",
            _ => "",
        };
        return whole(name, "unknown", tokens);
    }
    let Some((name, rest)) = content.split_once(':') else {
        return whole("", content, tokens);
    };
    name.clone_into(label);
    let is_window = name.ends_with(" behind bridge") || name.contains(" window ");
    match name {
        "Subsystem" => whole(name, last_bracketed(rest, 9).unwrap_or(rest), tokens),
        "Latency" | "Interrupt" => whole(name, rest, tokens),
        _ if name.starts_with("Region ") => whole(name, &region(rest), tokens),
        _ if is_window => whole(name, &window(rest), tokens),
        _ => line_tokens(rest, name, tokens),
    }
}

/// The address before anything in brackets; words in angle brackets are no address.
fn address(text: &str) -> &str {
    let word = text.split_whitespace().next().unwrap_or("");
    if word.starts_with('<') || word.is_empty() {
        return "0";
    }
    match word.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    }
}

/// `Memory at f7d00000 (64-bit, prefetchable) [disabled] [size=1M]` as `memory 64-bit, prefetchable
/// at f7d00000, disabled`.
pub fn region(text: &str) -> String {
    let text = text.trim();
    let state = if text.contains("[disabled]") {
        ", disabled"
    } else {
        ""
    };
    match text.split_once(" at ") {
        Some(("Memory", rest)) => {
            let kind = rest
                .split_once('(')
                .and_then(|(_, kind)| kind.split_once(')'));
            let kind = kind.map_or("", |(kind, _)| kind);
            format!("memory {kind} at {}{state}", address(rest))
        }
        Some(("I/O ports", rest)) => format!("ports at {}{state}", address(rest)),
        _ => text.to_owned(),
    }
}

fn rom(text: &str) -> String {
    let state = if text.contains("[disabled by cmd]") {
        "disabled by command"
    } else if text.contains("[disabled]") {
        "disabled"
    } else {
        "enabled"
    };
    format!("at {}, {state}", address(text))
}

/// `0000f000-00000fff [disabled] [16-bit]` as `closed`, `00003000-00003fff [size=4K]` as `3000-3fff`.
fn window(text: &str) -> String {
    let range = text.split_whitespace().next().unwrap_or("");
    let numbers = range.split_once('-').and_then(|(base, limit)| {
        let base = u64::from_str_radix(base, 16).ok()?;
        let limit = u64::from_str_radix(limit, 16).ok()?;
        Some((base, limit))
    });
    let state = if text.contains("(prefetchable)") {
        ", prefetchable"
    } else {
        ""
    };
    match numbers {
        Some((base, limit)) if base <= limit => {
            format!("{base:x}-{limit:x}{state}")
        }
        _ => format!("closed{state}"),
    }
}
