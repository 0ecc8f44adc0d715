//! C accessor functions for a [`Description`]: [`emit`].
//!
//! A field `f` of structure `s` is read and written by
//!
//! ```text
//! s_get_f(s_t)          s_set_f(s_t, value)
//! s_ptr_get_f(s_t *)    s_ptr_set_f(s_t *, value)
//! ```
//!
//! and built by `s_new(...)` and `s_ptr_new(s_t *, ...)`. A member `m` of a
//! tagged union `u` has the same functions with the prefix `u_m`, on the type
//! `u_t`; its readers and writers assert the tag. The union itself has
//! `u_get_TAG`, `u_ptr_get_TAG`, `u_TAG_equals` and an enumeration of `u_m`.
//!
//! A writer asserts that what it stores reads back as what it was given.

use std::fmt::Write as _;

use super::layout::{Base, Block, Description, Field, TaggedUnion, ones};

/// The text of the header.
#[must_use]
pub fn emit(description: &Description, guard: &str) -> String {
    let mut out = C(format!(
        "#ifndef {guard}\n#define {guard}\n\
         #include <assert.h>\n#include <config.h>\n#include <stdint.h>\n#include <util.h>\n"
    ));
    for block in &description.blocks {
        out.structure(&block.name, block.base, block.words);
        out.functions(&Subject {
            prefix: block.name.clone(),
            structure: &block.name,
            block,
            tag: None,
        });
    }
    for union in &description.unions {
        out.structure(&union.name, union.base, union.words);
        out.tags(union);
        for member in &union.tags {
            let prefix = format!("{}_{}", union.name, member.block.name);
            out.functions(&Subject {
                prefix,
                structure: &union.name,
                block: &member.block,
                tag: member
                    .block
                    .fields
                    .iter()
                    .find(|field| field.name == union.tag_field),
            });
        }
    }
    out.0.push_str("#endif\n");
    out.0
}

/// Whose functions are written.
struct Subject<'a> {
    /// What the functions' names start with.
    prefix: String,
    /// The C structure they work on.
    structure: &'a str,
    block: &'a Block,
    /// The tag field, if the block is a member of a union.
    tag: Option<&'a Field>,
}

/// How a function gets its structure.
#[derive(Clone, Copy)]
enum Access {
    Value,
    Pointer,
}

impl Access {
    /// The words of the structure, whose parameter is always called `self`.
    fn word(self, word: u32) -> String {
        match self {
            Self::Value => format!("self.words[{word}]"),
            Self::Pointer => format!("self->words[{word}]"),
        }
    }

    fn infix(self) -> &'static str {
        match self {
            Self::Value => "",
            Self::Pointer => "ptr_",
        }
    }

    fn parameter(self, structure: &str) -> String {
        match self {
            Self::Value => format!("{structure}_t self"),
            Self::Pointer => format!("{structure}_t *self"),
        }
    }
}

const ACCESSES: [Access; 2] = [Access::Value, Access::Pointer];

struct C(String);

impl C {
    // Writing to a String cannot fail, so the results of `writeln!` are dropped.

    fn structure(&mut self, name: &str, base: Base, words: u32) {
        let _ = writeln!(
            self.0,
            "\nstruct {name} {{\n    {} words[{words}];\n}};\ntypedef struct {name} {name}_t;",
            base.c_type()
        );
    }

    fn tags(&mut self, union: &TaggedUnion) {
        let name = &union.name;
        let tag = &union.tag_field;
        let members: Vec<_> = union
            .tags
            .iter()
            .map(|member| format!("    {name}_{} = {}", member.block.name, member.value))
            .collect();
        let _ = writeln!(
            self.0,
            "enum {name}_tag {{\n{}\n}};\ntypedef enum {name}_tag {name}_tag_t;",
            members.join(",\n")
        );
        let field = union
            .tags
            .first()
            .and_then(|member| member.block.fields.iter().find(|field| field.name == *tag));
        let Some(field) = field else { return };
        let kind = union.base.c_type();
        for access in ACCESSES {
            let _ = writeln!(
                self.0,
                "static inline {kind} {}\n{name}_{}get_{tag}({})\n{{\n    return {};\n}}",
                access.attribute(),
                access.infix(),
                access.parameter(name),
                read(union.base, field, &access.word(field.word)),
            );
        }
        let _ = writeln!(
            self.0,
            "static inline int CONST\n{name}_{tag}_equals({name}_t self, {kind} tag)\n{{\n    return {} == tag;\n}}",
            read(union.base, field, &Access::Value.word(field.word)),
        );
    }

    fn functions(&mut self, subject: &Subject<'_>) {
        for access in ACCESSES {
            self.constructor(subject, access);
            for field in &subject.block.fields {
                if subject.tag.is_none_or(|tag| tag.name != field.name) {
                    self.reader(subject, field, access);
                    self.writer(subject, field, access);
                }
            }
        }
    }

    fn constructor(&mut self, subject: &Subject<'_>, access: Access) {
        let Subject {
            prefix,
            structure,
            block,
            tag,
        } = subject;
        let kind = block.base.c_type();
        let is_tag = |field: &Field| tag.is_some_and(|tag| tag.name == field.name);
        let fields: Vec<&Field> = block
            .arguments
            .iter()
            .filter_map(|index| block.fields.get(*index))
            .collect();
        let mut parameters: Vec<String> = fields
            .iter()
            .filter(|field| !is_tag(field))
            .map(|field| format!("{kind} {}", field.name))
            .collect();
        let (result, local, end) = match access {
            Access::Value => (
                format!("{structure}_t CONST"),
                format!("    {structure}_t self;\n"),
                "    return self;\n",
            ),
            Access::Pointer => {
                parameters.insert(0, access.parameter(structure));
                ("void".to_owned(), String::new(), "")
            }
        };
        if parameters.is_empty() {
            parameters.push("void".to_owned());
        }
        let _ = write!(
            self.0,
            "static inline {result}\n{prefix}_{}new({})\n{{\n{local}",
            access.infix(),
            parameters.join(", ")
        );
        for field in &fields {
            if !is_tag(field) {
                self.check(block.base, field, &field.name);
            }
        }
        for word in 0..block.words {
            let parts: Vec<String> = fields
                .iter()
                .filter(|field| field.word == word)
                .map(|field| {
                    if is_tag(field) {
                        write_bits(block.base, field, &format!("({kind}){prefix}"))
                    } else {
                        write_bits(block.base, field, &field.name)
                    }
                })
                .collect();
            let value = if parts.is_empty() {
                "0".to_owned()
            } else {
                parts.join(" | ")
            };
            let _ = writeln!(self.0, "    {} = {value};", access.word(word));
        }
        let _ = writeln!(self.0, "{end}}}");
    }

    fn reader(&mut self, subject: &Subject<'_>, field: &Field, access: Access) {
        let Subject {
            prefix, structure, ..
        } = subject;
        let base = subject.block.base;
        let _ = writeln!(
            self.0,
            "static inline {} {}\n{prefix}_{}get_{}({})\n{{",
            base.c_type(),
            access.attribute(),
            access.infix(),
            field.name,
            access.parameter(structure),
        );
        self.check_tag(subject, access);
        let value = read(base, field, &access.word(field.word));
        let _ = writeln!(self.0, "    return {value};\n}}");
    }

    fn writer(&mut self, subject: &Subject<'_>, field: &Field, access: Access) {
        let Subject {
            prefix, structure, ..
        } = subject;
        let base = subject.block.base;
        let (result, end) = match access {
            Access::Value => (format!("{structure}_t CONST"), "    return self;\n"),
            Access::Pointer => ("void".to_owned(), ""),
        };
        let _ = writeln!(
            self.0,
            "static inline {result}\n{prefix}_{}set_{}({}, {} value)\n{{",
            access.infix(),
            field.name,
            access.parameter(structure),
            base.c_type(),
        );
        self.check_tag(subject, access);
        self.check(base, field, "value");
        let word = access.word(field.word);
        let others = base.literal(ones(base.word) & !(ones(field.width) << field.shift));
        let bits = write_bits(base, field, "value");
        let _ = writeln!(
            self.0,
            "    {word} = ({word} & {others}) | {bits};\n{end}}}"
        );
    }

    fn check_tag(&mut self, subject: &Subject<'_>, access: Access) {
        if let Some(tag) = subject.tag {
            let value = read(subject.block.base, tag, &access.word(tag.word));
            let _ = writeln!(self.0, "    assert({value} == {});", subject.prefix);
        }
    }

    /// Asserts that `value` survives being stored in `field`.
    fn check(&mut self, base: Base, field: &Field, value: &str) {
        if field.width < base.word {
            let stored = format!("({})", write_bits(base, field, value));
            let read_back = read(base, field, &stored);
            let _ = writeln!(self.0, "    assert({read_back} == {value});");
        }
    }
}

impl Access {
    fn attribute(self) -> &'static str {
        match self {
            Self::Value => "CONST",
            Self::Pointer => "PURE",
        }
    }
}

impl Base {
    fn c_type(self) -> &'static str {
        match self.word {
            8 => "uint8_t",
            16 => "uint16_t",
            32 => "uint32_t",
            _ => "uint64_t",
        }
    }

    fn signed_c_type(self) -> &'static str {
        match self.word {
            8 => "int8_t",
            16 => "int16_t",
            32 => "int32_t",
            _ => "int64_t",
        }
    }

    fn literal(self, number: u64) -> String {
        let suffix = if self.word == 64 { "ull" } else { "u" };
        format!("0x{number:x}{suffix}")
    }
}

/// The field's value out of the C expression `word`.
fn read(base: Base, field: &Field, word: &str) -> String {
    let mask = base.literal(ones(field.width));
    if !field.high {
        return format!("(({word} >> {}) & {mask})", field.shift);
    }
    let dropped = base.address - field.width;
    if base.sign_extended {
        // To the word's top, then back down so far that the sign fills the
        // bits above the address; what came along from below the field goes.
        let up = base.word - field.shift - field.width;
        let down = base.word - base.address;
        let keep = base.literal(ones(base.word) & !ones(dropped));
        format!(
            "((({unsigned})((({signed})({word} << {up})) >> {down})) & {keep})",
            unsigned = base.c_type(),
            signed = base.signed_c_type(),
        )
    } else {
        format!("((({word} >> {}) & {mask}) << {dropped})", field.shift)
    }
}

/// The word's bits that hold the C expression `value`.
fn write_bits(base: Base, field: &Field, value: &str) -> String {
    let mask = base.literal(ones(field.width));
    let dropped = if field.high {
        base.address - field.width
    } else {
        0
    };
    format!("((({value} >> {dropped}) & {mask}) << {})", field.shift)
}
