//! Parser of preprocessed `.bf` files: [`parse`].

use std::collections::BTreeMap;

use super::layout::{Base, Block, Description, Field, Tag, TaggedUnion, ones};
use super::lexer::{Kind, Place, Token, tokens};
use crate::Error;

/// Blocks longer than this are a mistake: the kernel's longest has 26 words.
const MAX_BLOCK_BITS: u64 = 1 << 16;

/// Reads a description and checks the rules of the format.
///
/// # Errors
/// [`Error::Bitfield`] with file, line and the broken rule.
pub fn parse(text: &str) -> Result<Description, Error> {
    let mut parser = Parser {
        tokens: tokens(text)?.into_iter(),
        place: Place { file: "", line: 0 },
    };
    let mut base = None;
    let mut blocks: Vec<Block> = Vec::new();
    let mut unions: Vec<(Place<'_>, Union)> = Vec::new();
    while let Some(kind) = parser.next() {
        let place = parser.place;
        match kind {
            Kind::Word("base") => base = Some(parser.base()?),
            Kind::Word("block") => {
                let base = base.ok_or_else(|| place.error("a block before any `base`"))?;
                let block = parser.block(base)?;
                if blocks.iter().any(|other| other.name == block.name) {
                    return Err(place.error(format!("block `{}` exists already", block.name)));
                }
                blocks.push(block);
            }
            Kind::Word("tagged_union") => unions.push((place, parser.tagged_union()?)),
            other => return Err(place.error(format!("{} starts nothing", show(other)))),
        }
    }
    resolve(blocks, unions)
}

/// Puts the blocks into the unions that name them.
fn resolve(blocks: Vec<Block>, unions: Vec<(Place<'_>, Union)>) -> Result<Description, Error> {
    let mut description = Description::default();
    let mut used: BTreeMap<String, ()> = BTreeMap::new();
    for (place, union) in unions {
        let name = &union.name;
        let mut tags: Vec<Tag> = Vec::new();
        for (member, value) in union.tags {
            let Some(block) = blocks.iter().find(|block| block.name == member) else {
                return Err(place.error(format!("union `{name}`: no block `{member}`")));
            };
            let fault =
                |rule: &str| Err(place.error(format!("union `{name}`, member `{member}`: {rule}")));
            let Some(field) = block.fields.iter().find(|f| f.name == union.tag_field) else {
                return fault("has no tag field");
            };
            if field.high || value & !ones(field.width) != 0 {
                return fault("tag value does not fit the tag field");
            }
            for other in &tags {
                let same_tag_field = other.block.fields.contains(field);
                if other.block.base != block.base || other.block.words != block.words {
                    return fault("differs in base or size from the members before it");
                }
                if !same_tag_field {
                    return fault("differs in the tag field from the members before it");
                }
                if other.value == value || other.block.name == member {
                    return fault("repeats a member or a tag value");
                }
            }
            used.insert(member, ());
            tags.push(Tag {
                value,
                block: block.clone(),
            });
        }
        let Some(first) = tags.first() else {
            return Err(place.error(format!("union `{name}` has no members")));
        };
        description.unions.push(TaggedUnion {
            base: first.block.base,
            words: first.block.words,
            name: union.name,
            tag_field: union.tag_field,
            tags,
        });
    }
    description.blocks = blocks
        .into_iter()
        .filter(|block| !used.contains_key(&block.name))
        .collect();
    Ok(description)
}

/// A union whose members are still names.
struct Union {
    name: String,
    tag_field: String,
    tags: Vec<(String, u64)>,
}

struct Parser<'t> {
    tokens: std::vec::IntoIter<Token<'t>>,
    /// Of the token read last.
    place: Place<'t>,
}

impl<'t> Parser<'t> {
    fn next(&mut self) -> Option<Kind<'t>> {
        let token = self.tokens.next()?;
        self.place = token.place;
        Some(token.kind)
    }

    fn expect<T>(
        &mut self,
        what: &str,
        accept: impl Fn(Kind<'t>) -> Option<T>,
    ) -> Result<T, Error> {
        match self.next() {
            Some(kind) => accept(kind).ok_or_else(|| {
                self.place
                    .error(format!("{what} expected, not {}", show(kind)))
            }),
            None => Err(self
                .place
                .error(format!("{what} expected, not the end of the file"))),
        }
    }

    fn word(&mut self) -> Result<String, Error> {
        self.expect("a name", |kind| match kind {
            Kind::Word(word) => Some(word.to_owned()),
            _ => None,
        })
    }

    fn number(&mut self) -> Result<u64, Error> {
        self.expect("a number", |kind| match kind {
            Kind::Number(number) => Some(number),
            _ => None,
        })
    }

    fn symbol(&mut self, symbol: char) -> Result<(), Error> {
        self.expect(&format!("`{symbol}`"), |kind| {
            (kind == Kind::Symbol(symbol)).then_some(())
        })
    }

    fn accept(&mut self, symbol: char) -> bool {
        match self.tokens.as_slice().first() {
            Some(token) if token.kind == Kind::Symbol(symbol) => self.next().is_some(),
            _ => false,
        }
    }

    /// `base WORD` or `base WORD(ADDRESS, SIGN)`.
    fn base(&mut self) -> Result<Base, Error> {
        let word = self.number()?;
        let (address, sign) = if self.accept('(') {
            let address = self.number()?;
            self.symbol(',')?;
            let sign = self.number()?;
            self.symbol(')')?;
            (address, sign)
        } else {
            (word, 0)
        };
        match (word, u32::try_from(word), u32::try_from(address)) {
            (8 | 16 | 32 | 64, Ok(word), Ok(address)) if (1..=word).contains(&address) && sign <= 1 => {
                Ok(Base {
                    word,
                    address,
                    sign_extended: sign == 1,
                })
            }
            _ => Err(self.place.error(
                "a base is 8, 16, 32 or 64 bits, with an address of 1 up to as many, and sign 0 or 1",
            )),
        }
    }

    /// The rest of a block after its keyword.
    fn block(&mut self, base: Base) -> Result<Block, Error> {
        let name = self.word()?;
        let order = if self.accept('(') {
            Some(self.argument_order()?)
        } else {
            None
        };
        self.symbol('{')?;
        let mut items = Vec::new();
        loop {
            let place = self.next().map(|kind| (kind, self.place));
            match place {
                Some((Kind::Symbol('}'), _)) => break,
                Some((Kind::Word("padding"), place)) => {
                    items.push((None, self.number()?, false, place));
                }
                Some((Kind::Word(kind @ ("field" | "field_high")), place)) => {
                    let field = self.word()?;
                    items.push((Some(field), self.number()?, kind == "field_high", place));
                }
                Some((kind, place)) => {
                    return Err(place.error(format!("{} is no part of a block", show(kind))));
                }
                None => return Err(self.place.error(format!("block `{name}` does not end"))),
            }
        }
        let sizes = items.iter().map(|(_, width, _, _)| *width);
        let size = sizes.fold(0, u64::saturating_add);
        let words = u32::try_from(size / u64::from(base.word)).unwrap_or(u32::MAX);
        if size > MAX_BLOCK_BITS || size == 0 || size % u64::from(base.word) != 0 {
            return Err(self.place.error(format!(
                "block `{name}` has {size} bits, which is not a number of {}-bit words",
                base.word
            )));
        }
        let mut top = size;
        let mut fields: Vec<Field> = Vec::new();
        for (field, width, high, place) in items {
            top = top.saturating_sub(width);
            let Some(field) = field else { continue };
            let fault =
                |rule: &str| Err(place.error(format!("field `{field}` of block `{name}` {rule}")));
            let in_word = top % u64::from(base.word);
            let limit = if high { base.address } else { base.word };
            let (Ok(word), Ok(shift), Ok(width)) = (
                u32::try_from(top / u64::from(base.word)),
                u32::try_from(in_word),
                u32::try_from(width),
            ) else {
                return fault("is too large");
            };
            if width == 0 || width > limit || shift + width > base.word {
                return fault("is empty, too large or crosses a word boundary");
            }
            if fields.iter().any(|other| other.name == field) {
                return fault("appears twice");
            }
            fields.push(Field {
                name: field,
                word,
                shift,
                width,
                high,
            });
        }
        let arguments = match order {
            None => (0..fields.len()).collect(),
            Some(order) => self.arguments(&name, &fields, &order)?,
        };
        Ok(Block {
            name,
            base,
            words,
            fields,
            arguments,
        })
    }

    fn argument_order(&mut self) -> Result<Vec<String>, Error> {
        let mut order = Vec::new();
        if !self.accept(')') {
            order.push(self.word()?);
            while self.accept(',') {
                order.push(self.word()?);
            }
            self.symbol(')')?;
        }
        Ok(order)
    }

    fn arguments(
        &self,
        block: &str,
        fields: &[Field],
        order: &[String],
    ) -> Result<Vec<usize>, Error> {
        let arguments: Option<Vec<usize>> = order
            .iter()
            .map(|name| fields.iter().position(|field| field.name == *name))
            .collect();
        let mut sorted = arguments.clone().unwrap_or_default();
        sorted.sort_unstable();
        sorted.dedup();
        match arguments {
            Some(arguments) if sorted.len() == fields.len() && order.len() == fields.len() => {
                Ok(arguments)
            }
            _ => Err(self.place.error(format!(
                "the argument order of block `{block}` must name each field once"
            ))),
        }
    }

    /// The rest of a tagged union after its keyword.
    fn tagged_union(&mut self) -> Result<Union, Error> {
        let name = self.word()?;
        let tag_field = self.word()?;
        self.symbol('{')?;
        let mut tags = Vec::new();
        loop {
            match self.next() {
                Some(Kind::Symbol('}')) => break,
                Some(Kind::Word("tag")) => {
                    let member = self.word()?;
                    tags.push((member, self.number()?));
                }
                Some(Kind::Word("mask")) => {
                    return Err(self.place.error(format!(
                        "union `{name}`: tags of several widths are not supported (32-bit kernels only)"
                    )));
                }
                Some(kind) => {
                    return Err(self
                        .place
                        .error(format!("{} is no part of a tagged union", show(kind))));
                }
                None => return Err(self.place.error(format!("union `{name}` does not end"))),
            }
        }
        Ok(Union {
            name,
            tag_field,
            tags,
        })
    }
}

fn show(kind: Kind<'_>) -> String {
    match kind {
        Kind::Word(word) => format!("`{word}`"),
        Kind::Number(number) => format!("`{number}`"),
        Kind::Symbol(symbol) => format!("`{symbol}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_from_the_top_down() {
        let text = "base 64(49,1)
            block b (p, x) { padding 64 field x 4 padding 11 field_high p 49 }";
        let description = parse(text).unwrap();
        let block = &description.blocks[0];
        assert_eq!(block.words, 2);
        assert_eq!(block.arguments, [1, 0]);
        let place = |f: &Field| (f.name.clone(), f.word, f.shift, f.width, f.high);
        assert_eq!(
            block.fields.iter().map(place).collect::<Vec<_>>(),
            [("x".into(), 0, 60, 4, false), ("p".into(), 0, 0, 49, true)]
        );
    }

    #[test]
    fn a_base_holds_until_the_next() {
        let description =
            parse("base 32 block a { field x 32 } base 64(51,0) block b { field x 64 }");
        let bases: Vec<_> = description
            .unwrap()
            .blocks
            .iter()
            .map(|block| {
                (
                    block.base.word,
                    block.base.address,
                    block.base.sign_extended,
                )
            })
            .collect();
        assert_eq!(bases, [(32, 32, false), (64, 51, false)]);
    }

    /// One text for each rule.
    #[test]
    fn broken_rules_are_named_with_their_place() {
        const A: &str = "base 32 block a { padding 28 field t 4 } ";
        for (text, message) in [
            ("block a { field x 8 }", ":1: a block before any `base`"),
            ("base 7", ":1: a base is 8, 16, 32 or 64 bits"),
            ("base 64(65,1)", ":1: a base is"),
            ("base 64(0,1)", ":1: a base is"),
            ("base 64(48,2)", ":1: a base is"),
            (
                "base 32\nblock a { field x 31 }",
                ":2: block `a` has 31 bits",
            ),
            ("base 32 block a { }", "block `a` has 0 bits"),
            (
                "base 32 block a { padding 18446744073709551615 padding 1 }",
                "block `a` has",
            ),
            (
                "base 32 block a { field x 33 padding 31 }",
                "field `x` of block `a` is empty, too large",
            ),
            (
                "base 32 block a { padding 16 field x 32 padding 16 }",
                "crosses a word boundary",
            ),
            ("base 32 block a { field x 0 padding 32 }", "is empty"),
            (
                "base 64(48,1) block a { padding 15 field_high x 49 }",
                "too large",
            ),
            ("base 32 block a { field x 16 field x 16 }", "appears twice"),
            (
                "base 32 block a (y) { field x 32 }",
                "must name each field once",
            ),
            (
                "base 32 block a () { field x 32 }",
                "must name each field once",
            ),
            (
                "base 32 block a (x,x) { field x 32 }",
                "must name each field once",
            ),
            ("base 32 block a { field x 32", "block `a` does not end"),
            (
                "base 32 block a { tag x 32 }",
                "`tag` is no part of a block",
            ),
            ("base 32 block 3 {", "a name expected, not `3`"),
            (
                "base 32 block a { field x y }",
                "a number expected, not `y`",
            ),
            ("base", "a number expected, not the end"),
            ("base 64(1 2)", "`,` expected, not `2`"),
            ("frob", "`frob` starts nothing"),
            (
                "base 32 block a { field x 32 } block a { field x 32 }",
                "block `a` exists already",
            ),
            ("@", "unexpected character `@`"),
            ("tagged_union u t { tag a 0 }", "no block `a`"),
            ("tagged_union u t { }", "has no members"),
            ("tagged_union u t { mask 4 0xe }", "tags of several widths"),
            ("tagged_union u t { tag a 0", "does not end"),
            (
                "tagged_union u t { field a 0 }",
                "`field` is no part of a tagged union",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        for (text, message) in [
            ("tagged_union u x { tag a 0 }", "has no tag field"),
            (
                "tagged_union u t { tag a 16 }",
                "does not fit the tag field",
            ),
            ("tagged_union u t { tag a 1 tag a 2 }", "repeats a member"),
            (
                "block b { padding 28 field t 4 } tagged_union u t { tag a 1 tag b 1 }",
                "repeats a member",
            ),
            (
                "block b { field t 4 padding 28 } tagged_union u t { tag a 1 tag b 2 }",
                "differs in the tag field",
            ),
            (
                "block b { padding 60 field t 4 } tagged_union u t { tag a 1 tag b 2 }",
                "differs in base or size",
            ),
        ] {
            let error = parse(&format!("{A}{text}")).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
