//! Whatever a client sends, decoding ends in a request or a typed refusal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use hw::Sbdf;
use ipc_proto::{Badge, BadgeKind, Message, Refusal, Rule, iommu, msi, pci, supervisor};
use proptest::prelude::*;

const DEVICE: Badge = Badge::new(BadgeKind::Device, 1, 2);
const CLIENT: Badge = Badge::plain(BadgeKind::Client, 3);

fn rule(badge: Badge, message: &Message) -> Refusal {
    pci::Request::decode(badge.to_word(), message).unwrap_err()
}

#[test]
fn each_defect_has_its_rule() {
    let assign = pci::Request::Assign {
        device: Sbdf::from_bits(0x18),
        slot: 1,
        context: ipc_proto::ContextChoice::Shared,
    }
    .encode();
    assert_eq!(rule(DEVICE, &assign).rule, Rule::WrongCapability);
    assert_eq!(
        rule(CLIENT, &Message::with_words(assign.label, &[0x18]).unwrap()).rule,
        Rule::BadLength
    );
    assert_eq!(
        rule(
            CLIENT,
            &Message::with_words(assign.label, &[0x18, 1, 0, 2]).unwrap()
        )
        .rule,
        Rule::BadLength
    );
    let wide = Message::with_words(assign.label, &[0x18, 0x1_0000, 0]).unwrap();
    assert_eq!(rule(CLIENT, &wide), Refusal::new(Rule::BadArgument, 1));
    assert_eq!(
        rule(CLIENT, &Message::new(0x1ff)).rule,
        Rule::UnknownOperation
    );
    assert_eq!(rule(CLIENT, &Message::new(0)).rule, Rule::UnknownOperation);
    assert_eq!(
        rule(CLIENT, &Message::new(0x204)).rule,
        Rule::UnknownOperation
    );
    let mut with_cap = assign;
    with_cap.cap = Some(CLIENT.to_word());
    assert_eq!(rule(CLIENT, &with_cap).rule, Rule::UnexpectedCapability);
    let mut foreign = assign;
    foreign.foreign_caps = 2;
    assert_eq!(
        rule(CLIENT, &foreign),
        Refusal::new(Rule::UnexpectedCapability, 2)
    );
    assert_eq!(
        pci::Request::decode(0, &assign).unwrap_err().rule,
        Rule::UnknownBadge
    );
    let import = iommu::Request::Import { slot: 1 }.encode();
    assert_eq!(
        iommu::Request::decode(CLIENT.to_word(), &import)
            .unwrap_err()
            .rule,
        Rule::MissingCapability
    );
}

#[test]
fn every_rule_survives_the_wire_and_has_a_text() {
    for &rule in Rule::ALL {
        let refusal = Refusal::new(rule, 0x1234);
        assert_eq!(
            pci::AssignReply::decode(&refusal.to_message()),
            Err(refusal)
        );
        assert!(rule.text().len() > 10 && rule as u16 != 0, "{rule:?}");
    }
}

#[test]
fn the_kernels_answer_for_a_capability_that_is_gone_is_told_apart() {
    let invalid_capability = Message::new(2);
    assert_eq!(
        pci::ReleaseReply::decode(&invalid_capability),
        Err(Refusal::new(Rule::NoCapability, 2))
    );
    assert!(
        Rule::ALL.iter().all(|&rule| rule as u16 >= 16),
        "codes below 16 are the kernel's"
    );
}

#[test]
fn a_reply_of_the_wrong_shape_is_no_reply() {
    for words in [&[][..], &[1, 2], &[u64::MAX]] {
        let refused =
            pci::ConfigReadReply::decode(&Message::with_words(0, words).unwrap()).unwrap_err();
        assert_eq!(refused.rule, Rule::BadReply);
    }
    assert_eq!(
        pci::ReleaseReply::decode(&Message::new(0xffff))
            .unwrap_err()
            .rule,
        Rule::BadReply
    );
}

proptest! {
    #[test]
    fn decoding_anything_ends(badge: u64, label in 0_u64..0x800, words in proptest::collection::vec(any::<u64>(), 0..16),
                              cap in proptest::option::of(any::<u64>()), foreign_caps in 0_u8..4) {
        let mut message = Message::with_words(label, &words).unwrap();
        (message.cap, message.foreign_caps) = (cap, foreign_caps);
        for badge in [badge, CLIENT.to_word(), DEVICE.to_word(), badge & 0xfff_ffff] {
            // A request that decodes encodes to the same words again.
            if let Ok((_, request)) = pci::Request::decode(badge, &message) {
                prop_assert!(request.encode().words() == message.words());
            }
            if let Ok((_, request)) = iommu::Request::decode(badge, &message) {
                prop_assert!(request.encode().words() == message.words());
            }
            if let Ok((_, request)) = msi::Request::decode(badge, &message) {
                prop_assert!(request.encode().words() == message.words());
            }
            if let Ok((_, request)) = supervisor::Request::decode(badge, &message) {
                prop_assert!(request.encode().words() == message.words());
            }
        }
    }

    #[test]
    fn a_badge_is_its_word(word in 0_u64..1 << 28) {
        if let Some(badge) = Badge::from_word(word) {
            prop_assert_eq!(badge.to_word(), word);
        }
    }
}
