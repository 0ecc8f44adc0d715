//! [`Section`]: a table of the file being read. Each key is asked for once;
//! what was never asked for is unknown, so that the keys a table has are
//! written down in one place, the code that reads them.

use super::diagnostic::Findings;
use super::rule::Rule;
use super::values::{self, Wrong};
use std::ops::{Range, RangeInclusive};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Bytes of the file it was read from.
    pub span: Range<usize>,
}

impl<T> Placed<T> {
    /// A value at a place.
    pub fn new(value: T, span: Range<usize>) -> Self {
        Self { value, span }
    }

    /// Another value at the same place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Placed<U> {
        Placed::new(f(self.value), self.span)
    }
}

/// A table being read.
pub struct Section<'t, 'f> {
    what: &'static str,
    table: &'t DeTable<'t>,
    span: Range<usize>,
    asked: Vec<&'static str>,
    findings: &'f mut Findings,
}

impl<'t, 'f> Section<'t, 'f> {
    /// Begins to read `table`; `what` is its name for messages, e.g. `[machine]`.
    pub fn new(
        what: &'static str,
        table: &'t DeTable<'t>,
        span: Range<usize>,
        findings: &'f mut Findings,
    ) -> Self {
        Self {
            what,
            table,
            span,
            asked: Vec::new(),
            findings,
        }
    }

    /// Where the table begins.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Where problems are noted.
    pub fn findings(&mut self) -> &mut Findings {
        self.findings
    }

    fn find(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.push(key);
        self.table
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value)
    }

    /// Reads `key` with `accept`, which gives `None` for a value of another type than `wanted`.
    fn typed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        accept: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> Option<Placed<T>> {
        let value = self.find(key)?;
        match accept(value.get_ref()) {
            Some(accepted) => Some(Placed::new(accepted, value.span())),
            None => {
                self.findings.add(
                    Rule::WrongType,
                    value.span(),
                    format!(
                        "`{key}` takes {wanted}, this is {}",
                        describe(value.get_ref())
                    ),
                );
                None
            }
        }
    }

    /// A text.
    pub fn text(&mut self, key: &'static str) -> Option<Placed<&'t str>> {
        self.typed(key, "a text", |value| value.as_str())
    }

    /// A text or a whole number, for sizes and durations: the number in decimal.
    pub fn text_or_number(&mut self, key: &'static str) -> Option<Placed<String>> {
        self.typed(key, "a text or a whole number", |value| match value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(|number| number.to_string()),
            _ => None,
        })
    }

    /// A text that `parse` makes a value of.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&'t str) -> Result<T, Wrong>,
    ) -> Option<Placed<T>> {
        let found = self.text(key)?;
        self.accept(found.map(parse))
    }

    /// A size in bytes within bounds, and a multiple of `step`.
    pub fn size(
        &mut self,
        key: &'static str,
        step: u64,
        bounds: RangeInclusive<u64>,
    ) -> Option<Placed<u64>> {
        let found = self.text_or_number(key)?;
        let size = self.accept(found.map(|text| values::size(&text)))?;
        if !bounds.contains(&size.value) {
            let (least, most) = (values::bytes(*bounds.start()), values::bytes(*bounds.end()));
            self.findings.add(
                Rule::OutOfRange,
                size.span,
                format!("`{key}` lies between {least} and {most}"),
            );
            return None;
        }
        if !size.value.is_multiple_of(step) {
            self.findings.add(
                Rule::BadSize,
                size.span,
                format!("`{key}` is a multiple of {}", values::bytes(step)),
            );
            return None;
        }
        Some(size)
    }

    /// The base-2 logarithm of a size or number that has to be a power of two within bounds.
    pub fn power_of_two(
        &mut self,
        key: &'static str,
        bits: RangeInclusive<u8>,
    ) -> Option<Placed<u8>> {
        let found = self.size(key, 1, 1 << bits.start()..=1 << bits.end())?;
        if !found.value.is_power_of_two() {
            self.findings.add(
                Rule::BadSize,
                found.span,
                format!("`{key}` is a power of two"),
            );
            return None;
        }
        Some(found.map(|value| value.trailing_zeros() as u8))
    }

    /// The value, or a note of what is wrong with it.
    pub fn accept<T>(&mut self, found: Placed<Result<T, Wrong>>) -> Option<Placed<T>> {
        match found.value {
            Ok(value) => Some(Placed::new(value, found.span)),
            Err(wrong) => {
                self.findings.add(wrong.rule, found.span, wrong.message);
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<Placed<bool>> {
        self.typed(key, "true or false", DeValue::as_bool)
    }

    /// A whole number within bounds.
    pub fn number(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
    ) -> Option<Placed<u64>> {
        let found = self.typed(key, "a whole number", |value| {
            let number = value.as_integer()?;
            i128::from_str_radix(number.as_str(), number.radix()).ok()
        })?;
        match u64::try_from(found.value) {
            Ok(number) if bounds.contains(&number) => Some(Placed::new(number, found.span)),
            _ => {
                self.findings.add(
                    Rule::OutOfRange,
                    found.span,
                    format!(
                        "`{key}` lies between {} and {}",
                        bounds.start(),
                        bounds.end()
                    ),
                );
                None
            }
        }
    }

    /// A number with or without a fraction.
    pub fn figure(&mut self, key: &'static str) -> Option<Placed<f64>> {
        self.typed(key, "a number", |value| match value {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        })
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<Placed<T>> {
        let found = self.text(key)?;
        if let Some(&(_, value)) = choices.iter().find(|(word, _)| *word == found.value) {
            return Some(Placed::new(value, found.span));
        }
        let words: Vec<&str> = choices.iter().map(|&(word, _)| word).collect();
        let message = format!("`{key}` is one of {}", list(&words));
        match nearest(found.value, &words) {
            Some(word) => self.findings.add_with_help(
                Rule::BadChoice,
                found.span,
                message,
                format!("did you mean \"{word}\"?"),
            ),
            None => self.findings.add(Rule::BadChoice, found.span, message),
        }
        None
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &'static str) -> Vec<Placed<&'t str>> {
        let mut texts = Vec::new();
        for item in self.items(key) {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Placed::new(text, item.span())),
                None => self.wrong_item(key, item, "texts"),
            }
        }
        texts
    }

    /// A list of whole numbers within bounds; `None` when it is not there, or one of them is wrong.
    pub fn numbers(&mut self, key: &'static str, bounds: RangeInclusive<u64>) -> Option<Vec<u64>> {
        if !self.has(key) {
            self.asked.push(key);
            return None;
        }
        let mut numbers = Some(Vec::new());
        for item in self.items(key) {
            let number = item.get_ref().as_integer();
            let number = number.and_then(|it| u64::from_str_radix(it.as_str(), it.radix()).ok());
            match number {
                Some(number) if bounds.contains(&number) => {
                    numbers.iter_mut().for_each(|list| list.push(number));
                }
                Some(_) => {
                    let (least, most) = (bounds.start(), bounds.end());
                    let message = format!("each of `{key}` lies between {least} and {most}");
                    self.findings.add(Rule::OutOfRange, item.span(), message);
                    numbers = None;
                }
                None => {
                    self.wrong_item(key, item, "whole numbers");
                    numbers = None;
                }
            }
        }
        numbers
    }

    /// A list of tables: `[[key]]`, or inline tables. Each is read by `read`.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        what: &'static str,
        mut read: impl FnMut(Section<'t, '_>) -> T,
    ) -> Vec<T> {
        let mut read_tables = Vec::new();
        for item in self.items(key) {
            match item.get_ref().as_table() {
                Some(table) => {
                    read_tables.push(read(Section::new(what, table, item.span(), self.findings)));
                }
                None => self.wrong_item(key, item, "tables"),
            }
        }
        read_tables
    }

    /// A table within this one, read by `read`.
    pub fn table<T>(
        &mut self,
        key: &'static str,
        what: &'static str,
        read: impl FnOnce(Section<'t, '_>) -> T,
    ) -> Option<T> {
        let found = self.typed(key, "a table", DeValue::as_table)?;
        Some(read(Section::new(
            what,
            found.value,
            found.span,
            self.findings,
        )))
    }

    fn items(
        &mut self,
        key: &'static str,
    ) -> impl Iterator<Item = &'t Spanned<DeValue<'t>>> + use<'t> {
        let list = self.typed(key, "a list", DeValue::as_array);
        list.into_iter().flat_map(|list| list.value.iter())
    }

    fn wrong_item(&mut self, key: &str, item: &Spanned<DeValue<'_>>, wanted: &str) {
        self.findings.add(
            Rule::WrongType,
            item.span(),
            format!(
                "`{key}` is a list of {wanted}, this is {}",
                describe(item.get_ref())
            ),
        );
    }

    /// Is the key there, with whatever value?
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// Notes that `key` has to be there, unless it is there with a wrong value, which was noted already.
    pub fn missing_unless_wrong(&mut self, key: &str) {
        if self.has(key) {
            return;
        }
        let message = format!("{} needs `{key}`", self.what);
        self.findings
            .add(Rule::MissingKey, self.span.clone(), message);
    }

    /// Ends the reading: every key that was never asked for is unknown.
    pub fn finish(self) {
        for (name, _) in self.table.iter() {
            let key = name.get_ref().as_ref();
            if self.asked.contains(&key) {
                continue;
            }
            let message = format!("{} has no key `{key}`", self.what);
            match nearest(key, &self.asked) {
                Some(known) => self.findings.add_with_help(
                    Rule::UnknownKey,
                    name.span(),
                    message,
                    format!("did you mean `{known}`?"),
                ),
                None => self.findings.add_with_help(
                    Rule::UnknownKey,
                    name.span(),
                    message,
                    format!("its keys are {}", list(&self.asked)),
                ),
            }
        }
    }
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `a, b and c`.
#[must_use]
pub fn list(words: &[&str]) -> String {
    match words {
        [] => "none".into(),
        [one] => (*one).into(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// The word most like `given`, if one is like it at all.
#[must_use]
pub fn nearest<'w>(given: &str, words: &[&'w str]) -> Option<&'w str> {
    words
        .iter()
        .map(|&word| (strsim::damerau_levenshtein(given, word), word))
        .filter(|&(distance, word)| distance <= 1 + word.len() / 4)
        .min()
        .map(|(_, word)| word)
}
