//! [`again`] and [`until_gone`]: what a caller does when the server that it calls was restarted meanwhile. Whether it has done what it
//! was asked for is not known then.

use ipc_proto::{Refusal, Rule};

/// Most often that something is asked for.
const TRIES: u8 = 8;

/// Asks again as long as the server was restarted while it was asked: for what may be said twice. What may not is undone by
/// who has asked, like any failure.
///
/// # Errors
/// As the server refuses it.
#[inline]
pub fn again<T>(mut ask: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    for _ in 1..TRIES {
        match ask() {
            Err(refusal) if refusal.rule == Rule::Restarted => {}
            answer => return answer,
        }
    }
    ask()
}

/// The same for what takes something back. Where it was asked for twice, `gone` says that the first time did it.
///
/// # Errors
/// As the server refuses it.
#[inline]
pub fn until_gone<T>(
    gone: Rule,
    mut ask: impl FnMut() -> Result<T, Refusal>,
) -> Result<(), Refusal> {
    match ask() {
        Err(refusal) if refusal.rule == Rule::Restarted => {}
        answer => return answer.map(drop),
    }
    match again(ask) {
        Err(refusal) if refusal.rule == gone => Ok(()),
        answer => answer.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers in turn.
    fn script<const N: usize>(rules: [Option<Rule>; N]) -> impl FnMut() -> Result<(), Refusal> {
        let mut left = rules.into_iter();
        move || match left.next() {
            Some(Some(rule)) => Err(rule.into()),
            _ => Ok(()),
        }
    }

    #[test]
    fn only_a_restart_is_a_reason_to_ask_again() {
        assert_eq!(again(script([Some(Rule::Restarted); 7])), Ok(()));
        let refused = again(script([Some(Rule::Restarted); 8]));
        assert_eq!(refused, Err(Rule::Restarted.into()));
        let refused = again(script([Some(Rule::NotAttached), None]));
        assert_eq!(refused, Err(Rule::NotAttached.into()));
    }

    #[test]
    fn what_is_gone_when_asked_again_is_done() {
        let gone = Rule::NotAttached;
        assert_eq!(
            until_gone(gone, script([Some(Rule::Restarted), Some(gone)])),
            Ok(())
        );
        assert_eq!(until_gone(gone, script([Some(gone)])), Err(gone.into()));
        let other = until_gone(gone, script([Some(Rule::Restarted), Some(Rule::NotOnLine)]));
        assert_eq!(other, Err(Rule::NotOnLine.into()));
        assert_eq!(until_gone(gone, script([None])), Ok(()));
    }
}
