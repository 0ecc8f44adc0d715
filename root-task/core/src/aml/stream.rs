//! [`Stream`]: bytes of AML, read from the front (ACPI 6.5, chapter 20).

use super::Path;

/// Opcodes that declare what the reader looks at (ACPI 6.5, 20.3); two bytes are `0x5b` and a second.
pub const NAME: u16 = 0x08;
/// A block of the name space.
pub const SCOPE: u16 = 0x10;
/// A method.
pub const METHOD: u16 = 0x14;
/// A device.
pub const DEVICE: u16 = 0x5b82;

/// If and While: blocks that are run or not. (Else follows If.)
pub const IS_CODE: [u16; 2] = [0xa0, 0xa2];

/// First byte of opcodes of two bytes.
const EXTENDED: u8 = 0x5b;
/// A method's return.
const RETURN: u8 = 0xa4;
/// Most names of a path.
const MAX_NAMES: usize = 32;
/// Most expressions within expressions.
const MAX_NESTED: u8 = 16;

/// A value that is declared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// A number.
    Integer(u64),
    /// A text, without its zero.
    Text(&'a [u8]),
    /// The bytes that a buffer begins with.
    Buffer(&'a [u8]),
    /// A package: the number of its elements, and they.
    List(Stream<'a>),
    /// Anything else.
    Other,
}

/// The rest of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    /// All of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Is nothing left?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next opcode. A name stands for the call of a method: none.
    pub fn opcode(&mut self) -> Option<u16> {
        match self.byte()? {
            EXTENDED => Some(u16::from(EXTENDED) << 8 | u16::from(self.byte()?)),
            byte => Some(byte.into()),
        }
    }

    /// A block that begins with its length (20.2.4), which counts its own bytes.
    pub fn package(&mut self) -> Option<Self> {
        let all = self.0.len();
        let lead = self.byte()?;
        let more = lead >> 6;
        let mut length = usize::from(if more == 0 { lead & 0x3f } else { lead & 0x0f });
        for number in 0..more {
            length |= usize::from(self.byte()?) << (4 + 8 * u32::from(number));
        }
        let own = all.checked_sub(self.0.len())?;
        self.bytes(length.checked_sub(own)?).map(Stream)
    }

    /// A name (20.2.2), seen from `scope`.
    pub fn path(&mut self, scope: &[[u8; 4]]) -> Option<Path> {
        let mut path = scope.to_vec();
        loop {
            match self.peek()? {
                b'\\' => path.clear(),
                b'^' => {
                    path.pop()?;
                }
                _ => break,
            }
            self.byte()?;
        }
        let count = match self.peek()? {
            // No name at all: the scope itself.
            0 => {
                self.byte()?;
                0
            }
            0x2e => {
                self.byte()?;
                2
            }
            0x2f => {
                self.byte()?;
                usize::from(self.byte()?)
            }
            _ => 1,
        };
        for _ in 0..count {
            let name = *self.bytes(4)?.first_chunk::<4>()?;
            let [first, rest @ ..] = name;
            let letter = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
            let all = rest
                .iter()
                .all(|byte| letter(*byte) || byte.is_ascii_digit());
            if !letter(first) || !all || path.len() == MAX_NAMES {
                return None;
            }
            path.push(name);
        }
        Some(path)
    }

    fn number(&mut self, bytes: usize) -> Option<Value<'a>> {
        let little = self.bytes(bytes)?.iter().rev();
        let value = little.fold(0, |value, byte| value << 8 | u64::from(*byte));
        Some(Value::Integer(value))
    }

    /// A value: constants as they are, anything else is passed over.
    pub fn value(&mut self) -> Option<Value<'a>> {
        self.expression(MAX_NESTED)
    }

    /// What a method returns, if returning it is all that the method does.
    #[must_use]
    pub fn returned(mut self) -> Value<'a> {
        match self.byte() {
            Some(RETURN) => match self.value() {
                Some(value) if self.is_empty() => value,
                _ => Value::Other,
            },
            _ => Value::Other,
        }
    }

    /// An expression (20.2.5) that may hold `nested` others. The name of a method with arguments cannot be told from
    /// another name: its arguments are taken for what follows.
    fn expression(&mut self, nested: u8) -> Option<Value<'a>> {
        let nested = nested.checked_sub(1)?;
        let first = self.peek()?;
        if is_name(first) {
            self.path(&[[0; 4]; MAX_NAMES / 2])?;
            return Some(Value::Other);
        }
        match self.opcode()? {
            0x00 => return Some(Value::Integer(0)),
            0x01 => return Some(Value::Integer(1)),
            0xff => return Some(Value::Integer(u64::MAX)),
            0x0a => return self.number(1),
            0x0b => return self.number(2),
            0x0c => return self.number(4),
            0x0e => return self.number(8),
            0x0d => {
                let end = self.0.iter().position(|byte| *byte == 0)?;
                let text = self.bytes(end)?;
                self.byte()?;
                return Some(Value::Text(text));
            }
            // Package.
            0x12 => return self.package().map(Value::List),
            // Buffer: its size, then its bytes.
            0x11 => {
                let mut block = self.package()?;
                return Some(match block.expression(nested) {
                    Some(Value::Integer(_)) => Value::Buffer(block.0),
                    _ => Value::Other,
                });
            }
            // Package of a length that is computed.
            0x13 => {
                self.package()?;
            }
            // Local variables and arguments; the revision; the time.
            0x60..=0x6e | 0x5b30 | 0x5b33 => {}
            // Two operands and a target.
            0x72 | 0x73 | 0x74 | 0x77 | 0x79..=0x7f | 0x84 | 0x85 | 0x88 => {
                self.expressions(3, nested)?
            }
            // Divide: two operands and two targets.
            0x78 => self.expressions(4, nested)?,
            // An operand and a target; two operands.
            0x80 | 0x81 | 0x82 | 0x90 | 0x91 | 0x93..=0x95 | 0x96..=0x99 | 0x9d | 0x5b12 => {
                self.expressions(2, nested)?;
            }
            // One operand.
            0x71 | 0x75 | 0x76 | 0x83 | 0x87 | 0x8e | 0x92 => self.expressions(1, nested)?,
            // Text from a buffer: operand, length, target. Part of a text: one more.
            0x9c => self.expressions(3, nested)?,
            0x9e => self.expressions(4, nested)?,
            _ => return None,
        }
        Some(Value::Other)
    }

    fn expressions(&mut self, count: u8, nested: u8) -> Option<()> {
        for _ in 0..count {
            self.expression(nested)?;
        }
        Some(())
    }

    fn name(&mut self) -> Option<()> {
        self.expression(1)
            .filter(|value| *value == Value::Other)
            .map(drop)
    }

    /// Passes over a declaration or statement whose opcode was read.
    pub fn pass_over(&mut self, opcode: u16) -> Option<()> {
        match opcode {
            // If, Else, While: only code. Field, Processor, PowerResource, ThermalZone, IndexField, BankField.
            0xa0..=0xa2 | 0x5b81 | 0x5b83..=0x5b87 => self.package().map(drop),
            // Alias.
            0x06 => {
                self.name()?;
                self.name()
            }
            // External: name, type, number of arguments.
            0x15 => {
                self.name()?;
                self.bytes(2).map(drop)
            }
            // Mutex: name, level. Event: name.
            0x5b01 => {
                self.name()?;
                self.bytes(1).map(drop)
            }
            0x5b02 => self.name(),
            // OperationRegion: name, kind, start, length.
            0x5b80 => {
                self.name()?;
                self.byte()?;
                self.expressions(2, MAX_NESTED)
            }
            // DataTableRegion: name, three texts.
            0x5b88 => {
                self.name()?;
                self.expressions(3, MAX_NESTED)
            }
            // Fields of buffers: buffer, index, name; with a length of its own: one more.
            0x8a..=0x8d | 0x8f => {
                self.expressions(2, MAX_NESTED)?;
                self.name()
            }
            0x5b13 => {
                self.expressions(3, MAX_NESTED)?;
                self.name()
            }
            // Store and CopyObject: value, target.
            0x70 | 0x9d => self.expressions(2, MAX_NESTED),
            // Increment, Decrement; Noop.
            0x75 | 0x76 => self.expressions(1, MAX_NESTED),
            0xa3 => Some(()),
            _ => None,
        }
    }
}

/// Does a name begin with it?
const fn is_name(byte: u8) -> bool {
    byte.is_ascii_uppercase() || matches!(byte, b'_' | b'\\' | b'^' | 0x2e | 0x2f)
}
