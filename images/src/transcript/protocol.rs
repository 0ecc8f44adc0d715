//! Lines for the judge, taken apart.

use super::{Bar, Death, Departure, Event, Held, When};
use crate::topology::Listed;

/// The first word, and the rest without the blank between them.
fn word(text: &str) -> (&str, &str) {
    text.split_once(' ')
        .map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

pub(super) fn event(pd: Option<&str>, body: &str) -> Result<(String, Event), &'static str> {
    let pd = pd.ok_or("a line for the judge without the name of a PD")?;
    let (keyword, rest) = word(body);
    let of_root = matches!(
        keyword,
        "booted" | "held" | "gone" | "restarted" | "figure" | "end"
    );
    if of_root && pd != crate::description::ROOT {
        return Err("only the root task may say this");
    }
    let event = match keyword {
        "check" => check(rest),
        "metric" => metric(rest),
        "assigned" => one(rest).map(|address| Event::Assigned { address }),
        "booted" => rest
            .strip_prefix("tsc_mhz=")
            .and_then(|number| number.parse().ok())
            .map(|tsc_mhz| Event::Booted { tsc_mhz }),
        "held" => held(rest),
        "gone" => gone(rest),
        "restarted" => restarted(rest),
        "mark" => one(rest).map(|name| Event::Mark { name }),
        "function" => function(rest),
        "figure" => figure(rest),
        "end" => passed(rest).map(|(passed, detail)| Event::End { passed, detail }),
        _ => return Err("a line for the judge with an unknown keyword"),
    };
    event
        .map(|event| (pd.to_owned(), event))
        .ok_or("a line for the judge that is not of its keyword's form")
}

fn one(text: &str) -> Option<String> {
    (!text.is_empty() && !text.contains(' ')).then(|| text.to_owned())
}

fn passed(text: &str) -> Option<(bool, String)> {
    let (result, detail) = word(text);
    match result {
        "pass" => Some((true, detail.to_owned())),
        "fail" => Some((false, detail.to_owned())),
        _ => None,
    }
}

fn check(text: &str) -> Option<Event> {
    let (name, rest) = word(text);
    let (passed, detail) = passed(rest)?;
    Some(Event::Check {
        name: one(name)?,
        passed,
        detail,
    })
}

fn metric(text: &str) -> Option<Event> {
    let (key, value) = word(text);
    Some(Event::Metric {
        key: one(key)?,
        value: value.parse().ok().filter(|value: &f64| value.is_finite())?,
    })
}

fn figure(text: &str) -> Option<Event> {
    let (name, value) = word(text);
    let (when, name) = name.split_once('.')?;
    Some(Event::Figure {
        when: match when {
            "before" => When::Before,
            "after" => When::After,
            _ => return None,
        },
        name: one(name)?,
        value: value.parse().ok()?,
    })
}

fn gone(text: &str) -> Option<Event> {
    let (client, rest) = word(text);
    let (how, detail) = word(rest);
    Some(Event::Gone {
        client: one(client)?,
        how: match how {
            "exit" => Departure::Exit(detail.parse().ok()?),
            "fault" => Departure::Fault(detail.to_owned()),
            "killed" => Departure::Killed,
            "stopped" => Departure::Stopped,
            _ => return None,
        },
    })
}

fn restarted(text: &str) -> Option<Event> {
    let (server, rest) = word(text);
    let (cause, count) = word(rest);
    Some(Event::Restarted {
        server: one(server)?,
        cause: match cause {
            "kill" => Death::Kill,
            "fault" => Death::Fault,
            _ => return None,
        },
        count: count.parse().ok()?,
    })
}

fn held(text: &str) -> Option<Event> {
    let words: Vec<&str> = text.split(' ').collect();
    let [client, address, ids, class, bars, vectors] = words.as_slice() else {
        return None;
    };
    let items = |text: &str, key: &str| -> Option<Vec<String>> {
        Some(match text.strip_prefix(key)? {
            "-" => Vec::new(),
            list => list.split(',').map(str::to_owned).collect(),
        })
    };
    Some(Event::Held(Held {
        client: (*client).to_owned(),
        address: (*address).to_owned(),
        ids: (*ids).to_owned(),
        class: class.strip_prefix("class=")?.to_owned(),
        bars: items(bars, "bars=")?
            .iter()
            .map(|bar| self::bar(bar))
            .collect::<Option<_>>()?,
        vectors: items(vectors, "vectors=")?,
    }))
}

fn function(text: &str) -> Option<Event> {
    let words: Vec<&str> = text.split(' ').collect();
    let [address, ids, class, buses, bars] = words.as_slice() else {
        return None;
    };
    let hex = |text| u8::from_str_radix(text, 16).ok();
    let buses = match buses.strip_prefix("buses=")? {
        "-" => None,
        range => {
            let (secondary, subordinate) = range.split_once('-')?;
            Some((hex(secondary)?, hex(subordinate)?))
        }
    };
    let bars = match bars.strip_prefix("bars=")? {
        "-" => Vec::new(),
        list => list.split(',').map(bar).collect::<Option<_>>()?,
    };
    Some(Event::Function(Listed {
        address: (*address).to_owned(),
        ids: (*ids).to_owned(),
        class: class.strip_prefix("class=")?.to_owned(),
        buses,
        bars,
    }))
}

fn bar(text: &str) -> Option<Bar> {
    let parts: Vec<&str> = text.split(':').collect();
    let [index, kind, base, bytes] = parts.as_slice() else {
        return None;
    };
    Some(Bar {
        index: (*index).to_owned(),
        kind: (*kind).to_owned(),
        base: u64::from_str_radix(base.trim_start_matches("0x"), 16).ok()?,
        bytes: match bytes.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            None => bytes.parse().ok()?,
        },
    })
}
