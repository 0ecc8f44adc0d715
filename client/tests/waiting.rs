//! What comes while a driver waits for something else is there when it asks for it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use fake::{Kernel, info};
use portcullis_client::Client;
use system::layout::event;

const MESSAGE: u64 = event::OWN;
const OTHER: u64 = event::OWN << 1;

/// Runs `driver` with what is signalled when.
fn with(signals: &[(u64, u64)], driver: impl Fn(&Kernel, &Client<'_, Kernel>)) {
    let kernel = Kernel::new();
    let info = info();
    let client = Client::connect(&kernel, &info).unwrap();
    for &(at, flags) in signals {
        kernel.signal_at(at, flags);
    }
    driver(&kernel, &client);
}

#[test]
fn what_was_not_asked_for_is_kept_for_the_next_wait_for() {
    let signals = [(10, MESSAGE), (20, event::DEVICE), (30, event::CHANNEL)];
    with(&signals, |kernel, client| {
        assert_eq!(client.wait_for(event::CHANNEL, 100), Ok(event::CHANNEL));
        assert_eq!(client.wait_for(MESSAGE, 100), Ok(MESSAGE));
        assert_eq!(client.wait_for(event::DEVICE, 100), Ok(event::DEVICE));
        assert_eq!(kernel.now(), 30, "at once: it was there");
    });
}

#[test]
fn what_came_with_what_was_asked_for_is_kept() {
    with(&[(10, MESSAGE | OTHER)], |_, client| {
        assert_eq!(client.wait_for(MESSAGE, 100), Ok(MESSAGE));
        assert_eq!(client.poll(OTHER), OTHER);
    });
}

#[test]
fn what_comes_while_time_goes_by_is_kept_for_wait() {
    with(&[(10, MESSAGE), (60, OTHER)], |kernel, client| {
        assert_eq!(client.wait_for(0, 50), Ok(0));
        assert_eq!(kernel.now(), 50);
        assert_eq!(client.wait(), MESSAGE);
        assert_eq!(client.wait(), OTHER);
    });
}

#[test]
fn wait_adds_what_came_since() {
    with(&[(10, MESSAGE), (50, OTHER)], |_, client| {
        assert_eq!(client.wait_for(0, 50), Ok(0));
        assert_eq!(client.wait(), MESSAGE | OTHER);
    });
}

#[test]
fn a_flag_is_handed_out_once() {
    with(&[(10, MESSAGE), (20, OTHER)], |kernel, client| {
        assert_eq!(client.wait_for(OTHER, 100), Ok(OTHER));
        assert_eq!(client.poll(MESSAGE), MESSAGE);
        assert_eq!(client.poll(u64::MAX), 0);
        assert_eq!(client.wait_for(MESSAGE | OTHER, 100), Ok(0));
        assert_eq!(kernel.now(), 120);
    });
}

#[test]
fn poll_keeps_what_it_does_not_hand_out() {
    with(&[(0, MESSAGE | OTHER)], |_, client| {
        assert_eq!(client.poll(OTHER), OTHER);
        assert_eq!(client.poll(OTHER), 0);
        assert_eq!(client.wait_for(MESSAGE, 100), Ok(MESSAGE));
    });
}

#[test]
fn time_that_ran_out_for_one_wait_is_not_taken_for_anothers() {
    with(&[(10, MESSAGE), (200, OTHER)], |kernel, client| {
        kernel.run_out_late();
        assert_eq!(client.wait_for(MESSAGE, 100), Ok(MESSAGE));
        assert_eq!(client.poll(u64::MAX), 0);
        assert_eq!(client.wait(), OTHER);
    });
    with(&[], |kernel, client| {
        assert_eq!(client.wait_for(0, 50), Ok(0));
        assert_eq!(client.wait_for(event::TIMER | MESSAGE, 50), Ok(0));
        assert_eq!(kernel.now(), 100);
    });
}

#[test]
fn no_time_is_no_wait() {
    with(&[(0, OTHER)], |kernel, client| {
        assert_eq!(client.wait_for(MESSAGE, 0), Ok(0));
        assert_eq!(client.wait_for(OTHER, 0), Ok(OTHER));
        assert_eq!(kernel.now(), 0);
    });
}

#[test]
fn who_armed_the_timer_is_told() {
    with(&[(10, MESSAGE)], |_, client| {
        client.timer().arm(30).unwrap();
        assert_eq!(client.wait(), MESSAGE);
        assert_eq!(client.wait(), event::TIMER);
    });
}
