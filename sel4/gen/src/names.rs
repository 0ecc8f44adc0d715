//! From the interface files' names to constants' names.

/// `X86PageMapIO` to `X86_PAGE_MAP_IO`.
///
/// A word begins at a capital after a small letter or digit, and at the last
/// capital of a run when a small letter follows (`TCBSetMCPriority` gives
/// `TCB_SET_MC_PRIORITY`). A lone capital at the start belongs to the word
/// after it (`CNodeCopy` gives `CNODE_COPY`).
#[must_use]
pub fn screaming_snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 8);
    let mut word = 0;
    for (index, letter) in letters.iter().enumerate() {
        let previous = index.checked_sub(1).and_then(|i| letters.get(i));
        let next = letters.get(index + 1);
        let after_small = previous.is_some_and(|p| p.is_ascii_lowercase() || p.is_ascii_digit());
        let ends_a_run = index - word >= 2 && next.is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && index > 0 && (after_small || ends_a_run) {
            out.push('_');
            word = index;
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_interface() {
        for (name, expected) in [
            ("UntypedRetype", "UNTYPED_RETYPE"),
            ("TCBSetMCPriority", "TCB_SET_MC_PRIORITY"),
            ("TCBSetIPCBuffer", "TCB_SET_IPC_BUFFER"),
            ("CNodeCancelBadgedSends", "CNODE_CANCEL_BADGED_SENDS"),
            ("IRQIssueIRQHandler", "IRQ_ISSUE_IRQ_HANDLER"),
            ("X86PDPTMap", "X86_PDPT_MAP"),
            ("X86PageMapIO", "X86_PAGE_MAP_IO"),
            ("X86IOPortOut32", "X86_IO_PORT_OUT32"),
            ("X86IRQIssueIRQHandlerMSI", "X86_IRQ_ISSUE_IRQ_HANDLER_MSI"),
            ("X86ASIDPoolAssign", "X86_ASID_POOL_ASSIGN"),
            ("NBSendRecv", "NB_SEND_RECV"),
            ("DebugSendIPI", "DEBUG_SEND_IPI"),
            ("Call", "CALL"),
            ("", ""),
        ] {
            assert_eq!(screaming_snake(name), expected);
        }
    }
}
