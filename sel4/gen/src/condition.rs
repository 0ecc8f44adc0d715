//! Conditions on a kernel's configuration, in both notations of its XML files.
//!
//! Main type: [`Condition`]. Kernels up to 12 write a C preprocessor expression
//! in an attribute (`condition="defined(CONFIG_VTX)"`), later ones a tree
//! (`<condition><not><config var="CONFIG_KERNEL_MCS"/></not></condition>`).

use roxmltree::Node;

use crate::{Config, Error};

/// A condition, read from either notation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Holds in every configuration.
    Always,
    /// The option is defined.
    Defined(String),
    /// The option's number compares so; an undefined option counts as 0, as in C.
    Compare(String, Comparison, u64),
    /// The inner condition fails.
    Not(Box<Condition>),
    /// Each of them holds.
    All(Vec<Condition>),
    /// One of them holds.
    Any(Vec<Condition>),
}

/// The comparisons of a C preprocessor expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// How deep a condition may nest; the kernels' own nest 3 deep.
const MAX_DEPTH: usize = 32;

impl Condition {
    /// The condition of an XML element: its attribute `condition`, its child
    /// element `condition`, or [`Condition::Always`] if it has neither.
    ///
    /// # Errors
    /// [`Error::Condition`] for anything that is not one of the two notations,
    /// or for both at once.
    pub fn of_element(element: Node<'_, '_>) -> Result<Self, Error> {
        let attribute = element.attribute("condition").unwrap_or("").trim();
        let mut children = element
            .children()
            .filter(|child| child.has_tag_name("condition"));
        let child = children.next();
        if children.next().is_some() || (child.is_some() && !attribute.is_empty()) {
            return Err(Error::Condition("more than one condition".to_owned()));
        }
        match child {
            Some(tree) => match only_child(tree)? {
                Some(expression) => Self::from_tree(expression, 0),
                None => Ok(Self::Always),
            },
            None if attribute.is_empty() => Ok(Self::Always),
            None => Self::from_expression(attribute),
        }
    }

    fn from_tree(element: Node<'_, '_>, depth: usize) -> Result<Self, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Condition("nested too deeply".to_owned()));
        }
        let parts = || {
            element
                .children()
                .filter(Node::is_element)
                .map(|child| Self::from_tree(child, depth + 1))
                .collect::<Result<Vec<_>, _>>()
        };
        match element.tag_name().name() {
            "config" => match element.attribute("var") {
                Some(name) if !name.is_empty() => Ok(Self::Defined(name.to_owned())),
                _ => Err(Error::Condition("<config> without `var`".to_owned())),
            },
            "not" => match only_child(element)? {
                Some(child) => Ok(Self::Not(Box::new(Self::from_tree(child, depth + 1)?))),
                None => Err(Error::Condition("<not> without a condition".to_owned())),
            },
            "and" => Ok(Self::All(parts()?)),
            "or" => Ok(Self::Any(parts()?)),
            other => Err(Error::Condition(format!("unknown element <{other}>"))),
        }
    }

    /// Reads a C preprocessor expression made of `defined`, comparisons with a
    /// number, `!`, `&&`, `||` and parentheses.
    ///
    /// # Errors
    /// [`Error::Condition`] for anything else.
    pub fn from_expression(text: &str) -> Result<Self, Error> {
        let mut parser = Parser {
            text,
            tokens: tokens(text)?,
            position: 0,
        };
        let condition = parser.any(0)?;
        match parser.next() {
            None => Ok(condition),
            Some(_) => Err(parser.error()),
        }
    }

    /// Whether the condition holds in `config`.
    #[must_use]
    pub fn holds(&self, config: &Config) -> bool {
        match self {
            Self::Always => true,
            Self::Defined(name) => config.is_defined(name),
            Self::Compare(name, comparison, right) => {
                let left = config.number(name).unwrap_or(0);
                match comparison {
                    Comparison::Greater => left > *right,
                    Comparison::GreaterOrEqual => left >= *right,
                    Comparison::Less => left < *right,
                    Comparison::LessOrEqual => left <= *right,
                    Comparison::Equal => left == *right,
                    Comparison::NotEqual => left != *right,
                }
            }
            Self::Not(inner) => !inner.holds(config),
            Self::All(parts) => parts.iter().all(|part| part.holds(config)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(config)),
        }
    }
}

fn only_child<'a, 'i>(element: Node<'a, 'i>) -> Result<Option<Node<'a, 'i>>, Error> {
    let mut children = element.children().filter(Node::is_element);
    let child = children.next();
    match children.next() {
        None => Ok(child),
        Some(_) => Err(Error::Condition(format!(
            "<{}> takes one condition",
            element.tag_name().name()
        ))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    Word(&'t str),
    Symbol(&'t str),
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, Error> {
    const SYMBOLS: [&str; 11] = ["&&", "||", ">=", "<=", "==", "!=", ">", "<", "!", "(", ")"];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let word = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (length, token) = if word > 0 {
            (word, Token::Word(&rest[..word]))
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            (symbol.len(), Token::Symbol(symbol))
        } else {
            return Err(Error::Condition(format!(
                "cannot read `{rest}` in `{text}`"
            )));
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token<'t>>,
    position: usize,
}

impl<'t> Parser<'t> {
    fn next(&mut self) -> Option<Token<'t>> {
        let token = self.tokens.get(self.position).copied();
        self.position += 1;
        token
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let found = self.tokens.get(self.position) == Some(&Token::Symbol(symbol));
        self.position += usize::from(found);
        found
    }

    fn error(&self) -> Error {
        Error::Condition(format!("cannot read `{}`", self.text))
    }

    fn any(&mut self, depth: usize) -> Result<Condition, Error> {
        let first = self.all(depth)?;
        let mut parts = vec![first];
        while self.accept("||") {
            parts.push(self.all(depth)?);
        }
        Ok(flatten(parts, Condition::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Condition, Error> {
        let first = self.unary(depth)?;
        let mut parts = vec![first];
        while self.accept("&&") {
            parts.push(self.unary(depth)?);
        }
        Ok(flatten(parts, Condition::All))
    }

    fn unary(&mut self, depth: usize) -> Result<Condition, Error> {
        if depth > MAX_DEPTH {
            return Err(self.error());
        }
        if self.accept("!") {
            return Ok(Condition::Not(Box::new(self.unary(depth + 1)?)));
        }
        if self.accept("(") {
            let inner = self.any(depth + 1)?;
            return if self.accept(")") {
                Ok(inner)
            } else {
                Err(self.error())
            };
        }
        match self.next() {
            Some(Token::Word("defined")) => {
                let parenthesis = self.accept("(");
                let Some(Token::Word(name)) = self.next() else {
                    return Err(self.error());
                };
                if parenthesis && !self.accept(")") {
                    return Err(self.error());
                }
                Ok(Condition::Defined(name.to_owned()))
            }
            Some(Token::Word(name)) => self.comparison(name),
            _ => Err(self.error()),
        }
    }

    fn comparison(&mut self, name: &str) -> Result<Condition, Error> {
        const COMPARISONS: [(&str, Comparison); 6] = [
            (">", Comparison::Greater),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            ("<=", Comparison::LessOrEqual),
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
        ];
        for (symbol, comparison) in COMPARISONS {
            if self.accept(symbol) {
                let Some(Token::Word(number)) = self.next() else {
                    return Err(self.error());
                };
                let number = number.parse().map_err(|_| self.error())?;
                return Ok(Condition::Compare(name.to_owned(), comparison, number));
            }
        }
        // A bare name is true when its value is not zero.
        Ok(Condition::Compare(name.to_owned(), Comparison::NotEqual, 0))
    }
}

fn flatten(mut parts: Vec<Condition>, group: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.len() {
        1 => parts.remove(0),
        _ => group(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::default();
        config.set("MAX_NUM_NODES", 4);
        config.set("DEBUG_BUILD", true);
        config.set("KERNEL_MCS", false);
        config
    }

    #[test]
    fn expressions() {
        for (text, expected) in [
            ("CONFIG_MAX_NUM_NODES > 1", true),
            ("CONFIG_MAX_NUM_NODES >= 5", false),
            ("CONFIG_MAX_NUM_NODES == 4", true),
            ("CONFIG_MAX_NUM_NODES != 4", false),
            ("CONFIG_MAX_NUM_NODES < 4", false),
            ("CONFIG_MAX_NUM_NODES <= 4", true),
            ("CONFIG_MISSING > 0", false),
            ("CONFIG_MAX_NUM_NODES", true),
            ("defined CONFIG_DEBUG_BUILD", true),
            ("defined(CONFIG_VTX)", false),
            ("defined(CONFIG_KERNEL_MCS)", false),
            ("!defined(CONFIG_KERNEL_MCS)", true),
            (
                "(!defined CONFIG_KERNEL_MCS) && CONFIG_MAX_NUM_NODES > 1",
                true,
            ),
            (
                "defined CONFIG_VTX || defined CONFIG_DEBUG_BUILD && !defined CONFIG_VTX",
                true,
            ),
            ("!(defined CONFIG_VTX || defined CONFIG_DEBUG_BUILD)", false),
        ] {
            let condition = Condition::from_expression(text).unwrap();
            assert_eq!(condition.holds(&config()), expected, "{text}");
        }
    }

    #[test]
    fn expressions_that_cannot_be_read() {
        for text in [
            "",
            "defined",
            "defined(",
            "defined(A",
            "A >",
            "A > B C",
            "A + 1",
            "(A",
            "A)",
            "&& A",
            "A &&",
            "A > 18446744073709551616",
            "A > x",
            "\u{e9}",
        ] {
            assert!(
                matches!(Condition::from_expression(text), Err(Error::Condition(_))),
                "{text}"
            );
        }
        let deep = "!".repeat(10_000) + "A";
        assert!(Condition::from_expression(&deep).is_err());
    }

    fn holds(xml: &str) -> Result<bool, Error> {
        let document = roxmltree::Document::parse(xml).unwrap();
        Condition::of_element(document.root_element()).map(|c| c.holds(&config()))
    }

    #[test]
    fn trees() {
        for (xml, expected) in [
            ("<m/>", true),
            ("<m><condition/></m>", true),
            ("<m condition='defined(CONFIG_VTX)'/>", false),
            (
                "<m><condition><config var='CONFIG_DEBUG_BUILD'/></condition></m>",
                true,
            ),
            (
                "<m><condition><not><config var='CONFIG_KERNEL_MCS'/></not></condition></m>",
                true,
            ),
            (
                "<m><condition><and><not><config var='CONFIG_KERNEL_MCS'/></not><config var='CONFIG_VTX'/></and></condition></m>",
                false,
            ),
            (
                "<m><condition><or><!-- one --><config var='CONFIG_VTX'/> <config var='CONFIG_DEBUG_BUILD'/></or></condition></m>",
                true,
            ),
        ] {
            assert_eq!(holds(xml), Ok(expected), "{xml}");
        }
    }

    #[test]
    fn trees_that_cannot_be_read() {
        for xml in [
            "<m><condition><xor/></condition></m>",
            "<m><condition><config/></condition></m>",
            "<m><condition><not/></condition></m>",
            "<m><condition><config var='A'/><config var='B'/></condition></m>",
            "<m condition='A'><condition><config var='A'/></condition></m>",
            "<m><condition/><condition/></m>",
        ] {
            assert!(matches!(holds(xml), Err(Error::Condition(_))), "{xml}");
        }
    }
}
