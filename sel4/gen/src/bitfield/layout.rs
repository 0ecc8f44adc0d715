//! What a `.bf` file describes, checked: every field lies within one word,
//! every block fills whole words, every member of a union fits the others.

/// Everything that one file describes, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Blocks that stand alone.
    pub blocks: Vec<Block>,
    /// Tagged unions with the blocks they are made of.
    pub unions: Vec<TaggedUnion>,
}

/// The word that structures are built of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Bits in a word: 8, 16, 32 or 64.
    pub word: u32,
    /// Bits of an address that a high field is part of.
    pub address: u32,
    /// Whether the bits above the address repeat its top bit.
    pub sign_extended: bool,
}

/// A structure of bit fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its name.
    pub name: String,
    /// The word it is built of.
    pub base: Base,
    /// Its length in words.
    pub words: u32,
    /// Its fields, most significant first.
    pub fields: Vec<Field>,
    /// The constructor's arguments: indices into `fields`.
    pub arguments: Vec<usize>,
}

/// A field of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The word that holds it, counted from the least significant.
    pub word: u32,
    /// Its lowest bit in that word.
    pub shift: u32,
    /// Its length in bits.
    pub width: u32,
    /// Whether it holds the upper bits of an address.
    pub high: bool,
}

/// Blocks of one size that a field of each tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedUnion {
    /// Its name.
    pub name: String,
    /// The name of the field that tells its members apart.
    pub tag_field: String,
    /// The word it is built of.
    pub base: Base,
    /// Its length in words.
    pub words: u32,
    /// Its members.
    pub tags: Vec<Tag>,
}

/// A member of a tagged union.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The value of the tag field.
    pub value: u64,
    /// The structure.
    pub block: Block,
}

/// The lowest `width` bits set.
pub fn ones(width: u32) -> u64 {
    match width {
        0 => 0,
        1..=63 => (1 << width) - 1,
        _ => u64::MAX,
    }
}
