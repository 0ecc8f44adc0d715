//! Requests that a server's restart broke off, asked again: a driver hears nothing of it.
//!
//! The server's recovery has undone a request that it had begun, or finished it and could not say so. What can be
//! asked twice is ([`ipc_proto::retry`]); what gives something is first taken back ([`give`]), and of what takes
//! something back the second refusal says that it is done ([`take`]).

use ipc_proto::{Refusal, TRIES, retry};

/// Asks for something. `undo` takes back, as far as it is there, what a request that was broken off may have given.
#[inline(always)]
pub(crate) fn give<T>(
    undo: impl Fn(),
    mut ask: impl FnMut() -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    match ask() {
        Err(refusal) if refusal.is_retryable() => give_again(undo, ask),
        answer => answer,
    }
}

/// The rest of [`give`], out of the way of who is answered at once.
#[cold]
#[inline(never)]
fn give_again<T>(
    undo: impl Fn(),
    mut ask: impl FnMut() -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let mut left = TRIES;
    loop {
        undo();
        left -= 1;
        match ask() {
            Err(refusal) if refusal.is_retryable() && left > 0 => {}
            done => return done,
        }
    }
}

/// Gives something back. Refused after a request was broken off, it was given back by that.
#[inline(always)]
pub(crate) fn take<T>(done: T, mut ask: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    match ask() {
        Err(refusal) if refusal.is_retryable() => match retry(ask) {
            Err(refusal) if !refusal.is_retryable() => Ok(done),
            answer => answer,
        },
        answer => answer,
    }
}
