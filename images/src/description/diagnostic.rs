//! [`Diagnostic`]: one broken rule at one place of the file, and how it is shown.

use super::rule::{Rule, Severity};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;

/// A broken rule, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The rule.
    pub rule: Rule,
    /// What is wrong here, in a sentence without a full stop.
    pub message: String,
    /// Bytes of the file that it is about.
    pub span: Range<usize>,
    /// What could be done about it.
    pub help: Option<String>,
}

/// What reading has found so far.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Diagnostic>,
}

impl Findings {
    /// Notes a broken rule.
    pub fn add(&mut self, rule: Rule, span: Range<usize>, message: impl Into<String>) {
        self.push(rule, span, message.into(), None);
    }

    /// Notes a broken rule and what could be done about it.
    pub fn add_with_help(
        &mut self,
        rule: Rule,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(rule, span, message.into(), Some(help.into()));
    }

    fn push(&mut self, rule: Rule, span: Range<usize>, message: String, help: Option<String>) {
        self.list.push(Diagnostic {
            rule,
            message,
            span,
            help,
        });
    }

    /// Is nothing wrong so far?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order of the file.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|found| found.span.start);
        self.list
    }
}

/// Line and column, from 1, columns in characters, of a byte of `source`.
#[must_use]
pub fn position(source: &str, byte: usize) -> (usize, usize) {
    let before = source.get(..byte).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |text| text.chars().count())
        + 1;
    (line, column)
}

/// Diagnostics as text for a terminal; `anstream` removes the colours where none belong.
#[must_use]
pub fn render(path: &str, source: &str, found: &[Diagnostic]) -> String {
    let renderer = Renderer::styled();
    let mut text = String::new();
    for diagnostic in found {
        let level = match diagnostic.rule.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let id = diagnostic.rule.to_string();
        let mut group = Group::with_title(level.primary_title(&diagnostic.message).id(id)).element(
            Snippet::source(source)
                .path(path)
                .annotation(AnnotationKind::Primary.span(visible(source, &diagnostic.span))),
        );
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help));
        }
        text.push_str(&renderer.render(&[group]));
        text.push_str("\n\n");
    }
    text
}

/// The part of the span that is on its first line: a table that goes on for
/// many lines is not worth showing whole.
fn visible(source: &str, span: &Range<usize>) -> Range<usize> {
    let end = span.end.min(source.len());
    let start = span.start.min(end);
    match source.get(start..end).and_then(|text| text.find('\n')) {
        Some(length) => start..start + length,
        None => start..end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = "a\nbé = 1\n";
        assert_eq!(position(source, 0), (1, 1));
        assert_eq!(position(source, 2), (2, 1));
        assert_eq!(position(source, source.find('=').unwrap()), (2, 4));
        assert_eq!(position(source, 1000), (3, 1));
    }

    #[test]
    fn the_text_says_place_rule_and_what_to_do() {
        let found = Diagnostic {
            rule: Rule::UnknownKey,
            message: "the table has no key `coer`".into(),
            span: 2..6,
            help: Some("did you mean `core`?".into()),
        };
        let text =
            anstream::adapter::strip_str(&render("a.toml", "\n\ncoer = 1\n", &[found])).to_string();
        assert!(
            text.contains("error[E002 unknown-key]: the table has no key `coer`"),
            "{text}"
        );
        assert!(text.contains("a.toml:3:1"), "{text}");
        assert!(text.contains("^^^^"), "{text}");
        assert!(text.contains("did you mean `core`?"), "{text}");
    }
}
