//! The macro that turns a table of operations into everything both ends
//! need. One row reads: on which kinds of capability, name and number,
//! method, arguments with types, reply with fields.

use crate::{Badge, BadgeKind, Message, Refusal};

/// Who called, as the kernel says: the badge on the invoked capability and,
/// for operations that take one, on the capability that came along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The invoked capability.
    pub badge: Badge,
    /// The capability that came along (always of the server's own endpoint).
    pub given: Option<Badge>,
}

/// A service method's success: an answer now, or a request that was parked
/// (its reply was saved and is sent later).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<T> {
    /// Answer at once.
    Now(T),
    /// The request is parked; the service answers it later.
    Later,
}

/// A row of an interface's table, for documentation, dumps and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Name of the operation.
    pub name: &'static str,
    /// Label of its request.
    pub label: u64,
    /// Kinds of capability it is invoked on.
    pub on: &'static [BadgeKind],
    /// Names of its arguments.
    pub arguments: &'static [&'static str],
    /// Names of its reply's fields.
    pub reply: &'static [&'static str],
    /// Does it take a capability along?
    pub takes_capability: bool,
}

/// Label of a table's operation of this name; 0, which is nobody's, if there is none. For constants.
#[must_use]
pub const fn label(table: &[Operation], name: &str) -> u64 {
    let mut row = 0;
    while row < table.len() {
        if same(table[row].name.as_bytes(), name.as_bytes()) {
            return table[row].label;
        }
        row += 1;
    }
    0
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// Anything that can make a typed stub from a transport.
pub trait Stubs<T> {
    /// The stub over `transport`.
    fn over(transport: T) -> Self;
}

/// Checks that a reply is a success and has `words` words.
#[inline(always)]
pub(crate) fn check_reply(reply: &Message, words: usize) -> Result<(), Refusal> {
    use crate::Rule;
    match reply.label {
        0 if reply.words().len() == words => Ok(()),
        0 => Err(Refusal::new(Rule::BadReply, words as u64)),
        error if error < crate::rule::KERNEL_ERRORS => Err(Refusal::new(Rule::NoCapability, error)),
        code => {
            let rule = Rule::from_code(code).ok_or(Refusal::new(Rule::BadReply, code))?;
            Err(Refusal::new(rule, reply.word(0)))
        }
    }
}

macro_rules! interface {
    (
        $(#[doc = $mdoc:literal])+
        mod $module:ident = $id:literal;
        $(
            $(#[doc = $doc:literal])+
            [$on:ident $(| $also:ident)? $(+ $cap:ident)?] $Name:ident = $number:literal:
            $method:ident($($arg:ident: $aty:ty),*) -> $ReplyName:ident { $($field:ident: $fty:ty),* }
        )+
    ) => {
        $(#[doc = $mdoc])+
        pub mod $module {
            #[allow(unused_imports, reason = "a table need not use every type")]
            use crate::types::*;
            use crate::{Badge, BadgeKind, Call, Message, Operation, Refusal, Reply, Rule, Stubs, Transport};
            #[allow(unused_imports, reason = "a table need not name devices")]
            use hw::Sbdf;

            /// The interface's number, bits 8 and up of every label.
            pub const INTERFACE: u64 = $id;

            /// The table.
            pub const TABLE: &[Operation] = &[$(Operation {
                name: stringify!($Name),
                label: INTERFACE << 8 | $number,
                on: &[BadgeKind::$on $(, BadgeKind::$also)?],
                arguments: &[$(stringify!($arg)),*],
                reply: &[$(stringify!($field)),*],
                takes_capability: crate::interface::interface!(@has $($cap)?),
            },)+];

            /// A decoded request: every word checked against its type.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Request { $(
                $(#[doc = $doc])+
                $Name { $(#[allow(missing_docs, reason = "said by the operation")] $arg: $aty),* },
            )+ }

            $(
                #[doc = concat!("Reply of [`Request::", stringify!($Name), "`].")]
                #[derive(Clone, Copy, Debug, PartialEq, Eq)]
                pub struct $ReplyName { $(#[allow(missing_docs, reason = "said by the operation")] pub $field: $fty),* }

                impl $ReplyName {
                    /// As a message.
                    #[inline(always)]
                    #[must_use]
                    pub fn encode(self) -> Message {
                        #[allow(unused_mut, reason = "a reply may have no fields")]
                        let mut message = Message::new(0);
                        // The table's rows are far shorter than a message (a test holds it).
                        $(let _ = message.push(Word::to_word(self.$field));)*
                        message
                    }

                    /// From a message.
                    ///
                    /// # Errors
                    /// The server's refusal, or `BadReply` when the message is no reply of this operation.
                    #[inline(always)]
                    pub fn decode(message: &Message) -> Result<Self, Refusal> {
                        crate::interface::check_reply(message, const { <[&str]>::len(&[$(stringify!($field)),*]) })?;
                        #[allow(unused_mut, unused_variables, reason = "a reply may have no fields")]
                        let mut words = message.words().iter().copied();
                        Ok(Self { $($field: words.next().and_then(<$fty as Word>::from_word).ok_or(Rule::BadReply)?),* })
                    }
                }
            )+

            impl Request {
                /// As a message (without a capability).
                #[inline(always)]
                #[must_use]
                pub fn encode(self) -> Message {
                    match self { $(
                        Self::$Name { $($arg),* } => {
                            #[allow(unused_mut, reason = "a request may have no arguments")]
                            let mut message = Message::new(INTERFACE << 8 | $number);
                            // The table's rows are far shorter than a message (a test holds it).
                            $(let _ = message.push(Word::to_word($arg));)*
                            message
                        }
                    )+ }
                }

                /// From a message that came over a capability with `badge`.
                /// Everything that can be wrong with it is refused here.
                ///
                /// # Errors
                /// `UnknownBadge`, `UnknownOperation`, `WrongCapability`, `BadLength`, `BadArgument` (with the
                /// argument's position), `UnexpectedCapability`, `MissingCapability`.
                #[inline(always)]
                pub fn decode(badge: u64, message: &Message) -> Result<(Call, Self), Refusal> {
                    let badge = check(badge, message)?;
                    match message.label & 0xff {
                        $($number => {
                            #[allow(unused_variables, reason = "a request may have no arguments")]
                            let (call, ($($arg,)*)) = arguments::$method(badge, message)?;
                            Ok((call, Self::$Name { $($arg),* }))
                        })+
                        _ => Err(Refusal::new(Rule::UnknownOperation, message.label)),
                    }
                }
            }

            /// What is checked of every request: its badge is one, it is of this interface and brought nothing foreign.
            ///
            /// # Errors
            /// `UnknownBadge`, `UnknownOperation`, `UnexpectedCapability`.
            #[inline(always)]
            pub fn check(badge: u64, message: &Message) -> Result<Badge, Refusal> {
                let badge = Badge::from_word(badge).ok_or(Refusal::new(Rule::UnknownBadge, badge))?;
                if message.label >> 8 != INTERFACE {
                    return Err(Refusal::new(Rule::UnknownOperation, message.label));
                }
                if message.foreign_caps != 0 {
                    return Err(Refusal::new(Rule::UnexpectedCapability, u64::from(message.foreign_caps)));
                }
                Ok(badge)
            }

            /// The arguments of each operation, checked: what [`serve`] is made of, for a server that serves some
            /// operation out of turn.
            pub mod arguments {
                #[allow(unused_imports, reason = "a table need not use every type")]
                use super::*;
                $(
                    #[doc = concat!("Those of [`Request::", stringify!($Name), "`], whatever the label; after [`check`].")]
                    ///
                    /// # Errors
                    /// As [`Request::decode`].
                    #[inline(always)]
                    pub fn $method(badge: Badge, message: &Message) -> Result<(Call, ($($aty,)*)), Refusal> {
                        if !matches!(badge.kind, BadgeKind::$on $(| BadgeKind::$also)?) {
                            return Err(Refusal::new(Rule::WrongCapability, message.label));
                        }
                        const ARGUMENTS: usize = <[&str]>::len(&[$(stringify!($arg)),*]);
                        if message.words().len() != ARGUMENTS {
                            return Err(Refusal::new(Rule::BadLength, ARGUMENTS as u64));
                        }
                        const TAKES: bool = crate::interface::interface!(@has $($cap)?);
                        let given = match message.cap {
                            None if TAKES => return Err(Rule::MissingCapability.into()),
                            None => None,
                            Some(_) if !TAKES => return Err(Refusal::new(Rule::UnexpectedCapability, 1)),
                            Some(word) => Some(Badge::from_word(word).ok_or(Refusal::new(Rule::UnknownBadge, word))?),
                        };
                        #[allow(unused_mut, unused_variables, reason = "a request may have no arguments")]
                        let mut words = message.words().iter().copied().enumerate();
                        $(let $arg = {
                            let (position, word) = words.next().ok_or(Rule::BadLength)?;
                            <$aty as Word>::from_word(word).ok_or(Refusal::new(Rule::BadArgument, position as u64))?
                        };)*
                        Ok((Call { badge, given }, ($($arg,)*)))
                    }
                )+
            }

            /// The client's side: a method an operation.
            #[derive(Clone, Copy, Debug)]
            pub struct Stub<T>(pub T);

            impl<T: Transport> Stubs<T> for Stub<T> {
                fn over(transport: T) -> Self { Self(transport) }
            }

            impl<T: Transport> Stub<T> { $(
                $(#[doc = $doc])+
                ///
                /// # Errors
                /// The server's refusal.
                #[inline(always)]
                pub fn $method(&self $(, $arg: $aty)* $(, $cap: u64)?) -> Result<$ReplyName, Refusal> {
                    #[allow(unused_mut, reason = "only operations with a capability change it")]
                    let mut message = Request::$Name { $($arg),* }.encode();
                    $(message.cap = Some($cap);)?
                    $ReplyName::decode(&self.0.call(&message))
                }
            )+ }

            /// The server's side: a method an operation.
            pub trait Service { $(
                $(#[doc = $doc])+
                ///
                /// # Errors
                /// The refusal that the caller gets.
                fn $method(&mut self, call: Call $(, $arg: $aty)*) -> Result<Reply<$ReplyName>, Refusal>;
            )+ }

            /// Decodes a message, calls the service, encodes its answer.
            /// `None` when the request was parked.
            #[inline(always)]
            pub fn dispatch<S: Service>(service: &mut S, badge: u64, message: &Message) -> Option<Message> {
                serve(service, badge, message, |answer| *answer)
            }

            /// As [`dispatch`], but hands the answer to `send` where its length is known to the compiler, so that a
            /// transport can take it apart without moving a whole message.
            #[inline(always)]
            pub fn serve<S: Service, R>(service: &mut S, badge: u64, message: &Message, send: impl Fn(&Message) -> R) -> Option<R> {
                // Each operation by itself, without a `Request` on the way: the compiler would put that together
                // for all operations at once before it knows which it is.
                let refusal = match check(badge, message) {
                    Err(refusal) => refusal,
                    Ok(badge) => match message.label & 0xff {
                        $($number => match arguments::$method(badge, message) {
                            Err(refusal) => refusal,
                            #[allow(unused_variables, reason = "a request may have no arguments")]
                            Ok((call, ($($arg,)*))) => match service.$method(call $(, $arg)*) {
                                Ok(Reply::Now(reply)) => return Some(send(&reply.encode())),
                                Ok(Reply::Later) => return None,
                                Err(refusal) => refusal,
                            },
                        },)+
                        _ => Refusal::new(Rule::UnknownOperation, message.label),
                    },
                };
                Some(send(&refusal.to_message()))
            }
        }
    };
    (@has) => { false };
    (@has $cap:ident) => { true };
}
pub(crate) use interface;
