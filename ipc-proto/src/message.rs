//! [`Message`]: what travels over an endpoint, [`Transport`]: what
//! carries it, and [`Arrival`]: one that has just come. Sized so that a whole message fits one IPC buffer with room.

/// Most words a message of this contract carries. Four travel in registers.
pub const MAX_WORDS: usize = 16;
/// Words of a message that can be told by [`Arrival::is_plain`]: those that travel in registers.
pub const PLAIN_WORDS: usize = 4;

/// A message as both ends see it.
///
/// Words past the length are kept but never shown, so that a transport can
/// move blocks of a fixed size: the compiler then keeps a short message in registers.
#[derive(Clone, Copy)]
pub struct Message {
    /// Operation of a request (`interface << 8 | operation`); of a reply 0
    /// for success, else the code of the broken [`crate::Rule`].
    pub label: u64,
    words: [u64; MAX_WORDS],
    len: u8,
    /// A capability that travels along: in a request being sent its address
    /// in the sender's CSpace, in a request received the badge that the
    /// kernel found on it (only capabilities of the receiver's own endpoint
    /// are accepted). Never set in a reply.
    pub cap: Option<u64>,
    /// Capabilities that came along and were not of the receiver's own
    /// endpoint; a request must have none.
    pub foreign_caps: u8,
}

/// More words than [`MAX_WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Message {
    /// An empty message with a label.
    #[inline(always)]
    pub const fn new(label: u64) -> Self {
        Self {
            label,
            words: [0; MAX_WORDS],
            len: 0,
            cap: None,
            foreign_caps: 0,
        }
    }

    /// A message with up to [`MAX_WORDS`] words.
    ///
    /// # Errors
    /// [`TooLong`] when there are more.
    pub fn with_words(label: u64, words: &[u64]) -> Result<Self, TooLong> {
        let mut message = Self::new(label);
        for &word in words {
            message.push(word)?;
        }
        Ok(message)
    }

    /// A message of which the first `len` words count, as a transport received
    /// it; `None` when `len` is more than [`MAX_WORDS`].
    #[inline(always)]
    #[must_use]
    pub const fn received(label: u64, words: [u64; MAX_WORDS], len: usize) -> Option<Self> {
        if len > MAX_WORDS {
            return None;
        }
        Some(Self {
            label,
            words,
            len: len as u8,
            cap: None,
            foreign_caps: 0,
        })
    }

    /// Every word there is room for; those past the length mean nothing.
    /// For a transport, which moves blocks of a fixed size.
    #[inline(always)]
    #[must_use]
    pub const fn block(&self) -> &[u64; MAX_WORDS] {
        &self.words
    }

    /// Appends a word.
    ///
    /// # Errors
    /// [`TooLong`] when the message is full.
    #[inline(always)]
    pub fn push(&mut self, word: u64) -> Result<(), TooLong> {
        let slot = self.words.get_mut(usize::from(self.len)).ok_or(TooLong)?;
        *slot = word;
        self.len += 1;
        Ok(())
    }

    /// The words that are set.
    #[inline(always)]
    pub fn words(&self) -> &[u64] {
        self.words.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Word `index`, or 0 past the end.
    #[inline(always)]
    pub fn word(&self, index: usize) -> u64 {
        self.words().get(index).copied().unwrap_or(0)
    }
}

/// A request as it arrived, not taken apart: a server tells by one comparison whether it is what is asked most.
pub trait Arrival {
    /// The badge of the capability that was invoked.
    fn badge(&self) -> u64;
    /// Is it a message with this label and so many words, [`PLAIN_WORDS`] at most, that brought no capability?
    fn is_plain(&self, label: u64, words: usize) -> bool;
    /// Its first words; those past its length mean nothing.
    fn first_words(&self) -> [u64; PLAIN_WORDS];

    /// The message if it is this plain one: of label and length nothing is left to be checked then.
    #[inline(always)]
    fn plain(&self, label: u64, words: usize) -> Option<Message> {
        if words > PLAIN_WORDS || !self.is_plain(label, words) {
            return None;
        }
        let mut block = [0; MAX_WORDS];
        let [first, second, third, fourth] = self.first_words();
        [block[0], block[1], block[2], block[3]] = [first, second, third, fourth];
        Message::received(label, block, words)
    }
}

/// A message that came over a capability with a badge.
impl Arrival for (u64, &Message) {
    #[inline(always)]
    fn badge(&self) -> u64 {
        self.0
    }
    #[inline(always)]
    fn is_plain(&self, label: u64, words: usize) -> bool {
        let message = self.1;
        (message.label, message.cap, message.foreign_caps) == (label, None, 0)
            && message.words().len() == words
    }
    #[inline(always)]
    fn first_words(&self) -> [u64; PLAIN_WORDS] {
        let [first, second, third, fourth, ..] = *self.1.block();
        [first, second, third, fourth]
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        (self.label, self.cap, self.foreign_caps) == (other.label, other.cap, other.foreign_caps)
            && self.words() == other.words()
    }
}

impl Eq for Message {}

impl core::fmt::Debug for Message {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Message")
            .field("label", &self.label)
            .field("words", &self.words())
            .field("cap", &self.cap)
            .field("foreign_caps", &self.foreign_caps)
            .finish()
    }
}

/// One endpoint capability that can be called.
pub trait Transport {
    /// Sends a request and waits for the reply.
    fn call(&self, request: &Message) -> Message;
}

impl<T: Transport> Transport for &T {
    #[inline(always)]
    fn call(&self, request: &Message) -> Message {
        (**self).call(request)
    }
}
