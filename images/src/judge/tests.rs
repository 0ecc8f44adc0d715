//! Verdicts on transcripts as they come from the serial line.

use super::*;
use std::path::Path;

const SYSTEM: &str = r#"
name = "t"
[machine]
devices = ["virtio-blk-pci,drive=disk"]
[[machine.disk]]
id = "disk"
size = 512
content = "zero"
[system]
end = "finished"
[[client]]
name = "blk"
program = "p"
finish = true
[[client]]
name = "bad"
program = "p"
finish = true
may_fault = true
[[expect]]
pd = "blk"
check = "digest"
equals = "disk:disk:sha256"
[[expect]]
metric = "reads"
above = 3
"#;

const GOOD: &str = "SeaBIOS\n\
    root| @booted tsc_mhz=1000\n\
    root| @figure before.iommu.frames 12\n\
    blk| @assigned 0000:00:04.0\n\
    blk| @metric reads 4\n\
    blk| @check digest pass sha256=abc bytes=512\n\
    bad| @check foreign_device pass refused: NotGranted\n\
    root| @gone blk exit 0\n\
    root| @gone bad fault read of 0x0\n\
    root| @figure after.iommu.frames 12\n\
    root| @end pass all done\n";

fn description(text: &str) -> Description {
    crate::description::read(text, Path::new("."), &["p".to_owned()])
        .unwrap_or_else(|found| panic!("{found:?}"))
        .description
}

fn verdict_on(system: &str, text: &str, ending: Ending) -> Verdict {
    let digests = Digests::from([("disk".to_owned(), "abc".to_owned())]);
    judge(
        &description(system),
        &Transcript::from_text(text),
        &digests,
        &ending,
        Duration::from_millis(20),
        &[],
        &Metrics::new(),
    )
}

fn failures(text: &str) -> Vec<String> {
    let verdict = verdict_on(SYSTEM, text, Ending::Exited);
    let names: Vec<String> = verdict.failures().map(|check| check.name.clone()).collect();
    assert_eq!(verdict.outcome == Outcome::Pass, names.is_empty());
    names
}

#[test]
fn a_run_in_which_all_came_passes() {
    let verdict = verdict_on(SYSTEM, GOOD, Ending::Exited);
    assert_eq!(verdict.outcome, Outcome::Pass, "{:?}", verdict.checks);
    let names: Vec<&str> = verdict
        .checks
        .iter()
        .map(|check| check.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "blk.digest",
            "bad.foreign_device",
            "metric.reads",
            "blk.exit",
            "bad.exit",
            "host.figures",
            "host.end"
        ]
    );
    assert_eq!(verdict.metrics["reads"], 4.0);
    assert_eq!(verdict.metrics[BOOT_METRIC], 4.0);
    assert_eq!(verdict.metrics[RUN_METRIC], 20.0);
}

#[test]
fn whatever_is_missing_or_wrong_fails_the_run() {
    let without = |line: &str| {
        assert!(GOOD.contains(line));
        GOOD.lines()
            .filter(|other| !other.contains(line))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    assert_eq!(failures(&without("@check digest")), ["blk.digest"]);
    assert_eq!(failures(&without("@metric reads")), ["metric.reads"]);
    assert_eq!(failures(&without("@gone blk")), ["blk.exit"]);
    assert_eq!(failures(&without("@figure after")), ["host.figures"]);
    assert_eq!(failures(&without("@end")), ["host.end"]);
    let changed = |from: &str, to: &str| {
        assert!(GOOD.contains(from));
        GOOD.replace(from, to)
    };
    assert_eq!(
        failures(&changed("sha256=abc", "sha256=abd")),
        ["blk.digest"]
    );
    assert_eq!(failures(&changed("sha256=abc", "")), ["blk.digest"]);
    assert_eq!(
        failures(&changed("@metric reads 4", "@metric reads 3")),
        ["metric.reads"]
    );
    assert_eq!(
        failures(&changed("foreign_device pass", "foreign_device fail")),
        ["bad.foreign_device"]
    );
    assert_eq!(failures(&changed("blk exit 0", "blk exit 1")), ["blk.exit"]);
    assert_eq!(
        failures(&changed("@gone blk exit 0", "@gone blk fault x")),
        ["blk.exit"]
    );
    assert_eq!(failures(&changed("blk exit 0", "blk killed")), ["blk.exit"]);
    assert_eq!(
        failures(&changed("blk exit 0", "blk stopped")),
        ["blk.exit"]
    );
    assert_eq!(failures(&changed("@end pass", "@end fail")), ["host.end"]);
    assert_eq!(failures(&changed("@booted", "@boted")), ["host.protocol"]);
    assert_eq!(
        failures(&changed("after.iommu.frames 12", "after.iommu.frames 13")),
        ["host.figures"]
    );
}

#[test]
fn a_check_that_failed_once_has_failed() {
    let text = GOOD.replace(
        "bad| @check foreign_device pass",
        "bad| @check foreign_device fail got it\nbad| @check foreign_device pass",
    );
    assert_eq!(failures(&text), ["bad.foreign_device"]);
}

#[test]
fn a_silent_guest_is_a_timeout_and_no_pass() {
    let verdict = verdict_on(SYSTEM, "", Ending::TimedOut);
    assert_eq!(verdict.outcome, Outcome::Timeout);
    let end = verdict.checks.last().unwrap();
    assert_eq!(
        (end.ok, end.detail.as_str()),
        (
            false,
            "time is over (`timeout` in [machine]: 60 s) and no PD has said anything"
        )
    );
    assert_eq!(
        verdict_on(SYSTEM, "", Ending::Exited).outcome,
        Outcome::Fail
    );
    assert_eq!(
        verdict_on(SYSTEM, GOOD, Ending::TimedOut).outcome,
        Outcome::Timeout
    );
}

#[test]
fn a_check_can_be_expected_to_fail() {
    let system = SYSTEM.replace("equals =", "result = \"fail\"\nequals =");
    let failing = GOOD.replace("digest pass", "digest fail");
    assert_eq!(
        verdict_on(&system, &failing, Ending::Exited).outcome,
        Outcome::Pass
    );
    assert_eq!(
        verdict_on(&system, GOOD, Ending::Exited).outcome,
        Outcome::Fail
    );
}

#[test]
fn a_system_without_end_is_settled_when_all_has_come() {
    let system = description(&SYSTEM.replace("end = \"finished\"", "end = \"never\""));
    let lines: Vec<&str> = GOOD.lines().collect();
    let settled =
        |count: usize| is_settled(&system, &Transcript::from_text(&lines[..count].join("\n")));
    assert!(!settled(5));
    assert!(settled(6));
    let bare = description("name = \"t\"");
    assert!(!is_settled(&bare, &Transcript::from_text(GOOD)));
}

#[test]
fn the_best_of_several_runs_counts() {
    let system = description(&SYSTEM.replace("above = 3", "below = 4"));
    let digests = Digests::from([("disk".to_owned(), "abc".to_owned())]);
    let run = |earlier: &Metrics| {
        let transcript = Transcript::from_text(GOOD);
        judge(
            &system,
            &transcript,
            &digests,
            &Ending::Exited,
            Duration::ZERO,
            &[],
            earlier,
        )
    };
    let first = run(&Metrics::new());
    assert_eq!(first.outcome, Outcome::Fail);
    assert!(!first.fails_for_good());
    let second = run(&Metrics::from([("reads".to_owned(), 3.5)]));
    assert_eq!(
        (second.outcome, second.metrics["reads"]),
        (Outcome::Pass, 3.5)
    );
    assert!(verdict_on(SYSTEM, "", Ending::Exited).fails_for_good());
}

#[test]
fn a_system_can_be_expected_to_hang_or_crash() {
    let system = SYSTEM.replace("equals = \"disk:disk:sha256\"", "result = \"never\"");
    let outcome = |text: &str, ending| verdict_on(&system, text, ending).outcome;
    let short: String = GOOD
        .lines()
        .take(5)
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(outcome(&short, Ending::TimedOut), Outcome::Pass);
    assert_eq!(outcome(&short, Ending::Exited), Outcome::Pass);
    // It came to its end; it said the check; it did not get as far as it should.
    let end = short.clone() + "root| @end pass\n";
    assert_eq!(outcome(&end, Ending::Exited), Outcome::Fail);
    assert_eq!(
        outcome(
            &(short.clone() + "blk| @check digest pass x\n"),
            Ending::TimedOut
        ),
        Outcome::Fail
    );
    let unbooted = short.replace("root| @booted tsc_mhz=1000\n", "");
    assert_eq!(outcome(&unbooted, Ending::TimedOut), Outcome::Fail);
}

#[test]
fn a_run_can_be_expected_to_end_as_failed() {
    let system =
        SYSTEM.to_owned() + "[[expect]]\npd = \"root\"\ncheck = \"end\"\nresult = \"fail\"\n";
    let outcome = |text: &str, ending| verdict_on(&system, text, ending).outcome;
    let failing = GOOD.replace("@end pass", "@end fail");
    assert_ne!(failing, GOOD);
    assert_eq!(outcome(&failing, Ending::Exited), Outcome::Pass);
    // It passed; it did not come to its end; what else is expected did not come, or failed.
    assert_eq!(outcome(GOOD, Ending::Exited), Outcome::Fail);
    assert_eq!(outcome(&failing, Ending::TimedOut), Outcome::Timeout);
    let endless: String = failing
        .lines()
        .filter(|line| !line.contains("@end"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(outcome(&endless, Ending::Exited), Outcome::Fail);
    let silent: String = failing
        .lines()
        .filter(|line| !line.contains("@check digest"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(outcome(&silent, Ending::Exited), Outcome::Fail);
}

#[test]
fn a_step_is_right_if_it_was_so_each_time() {
    let steps = "[[step]]\npd = \"blk\"\nmark = \"in\"\nqmp = '{\"execute\": \"stop\"}'\n\
                 [[step]]\npd = \"blk\"\nmark = \"out\"\ncompare = \"pci\"\n";
    let system = description(&format!("{SYSTEM}\n{steps}"));
    let digests = Digests::from([("disk".to_owned(), "abc".to_owned())]);
    let done = |step, ok| Done {
        step,
        ok,
        detail: format!("{step} {ok}"),
    };
    let failures = |done: &[Done]| -> Vec<String> {
        let verdict = judge(
            &system,
            &Transcript::from_text(GOOD),
            &digests,
            &Ending::Exited,
            Duration::ZERO,
            done,
            &Metrics::new(),
        );
        let name = |check: &Check| format!("{}: {}", check.name, check.detail);
        verdict.failures().map(name).collect()
    };
    assert_eq!(
        failures(&[done(0, true), done(1, true)]),
        Vec::<String>::new()
    );
    assert_eq!(
        failures(&[done(0, true), done(0, false), done(0, true)]),
        [
            "host.step-1.blk.in: 0 false (3 times)",
            "host.step-2.blk.out: expected, and never said",
        ]
    );
}

/// The root task's last words on a kernel that it was not built for; it cannot switch the machine off.
#[test]
fn a_root_task_on_another_kernel_is_heard() {
    let text = "SeaBIOS\nroot| @end fail the running kernel numbers its methods otherwise\n";
    let verdict = verdict_on(SYSTEM, text, Ending::Stopped);
    assert_eq!(verdict.outcome, Outcome::Fail);
    let end = verdict.failures().find(|check| check.name == "host.end");
    let words = end.map(|check| check.detail.as_str());
    assert_eq!(
        words,
        Some("root said: the running kernel numbers its methods otherwise")
    );
}

/// Two clients, and a check of the first.
const PAIR: &str = "name = \"t\"\n[machine]\ntimeout = \"7s\"\n[system]\nend = \"finished\"\n\
    [[client]]\nname = \"a\"\nprogram = \"p\"\nfinish = true\n\
    [[client]]\nname = \"b\"\nprogram = \"p\"\nfinish = true\n\
    [[expect]]\npd = \"a\"\ncheck = \"c\"\n";

#[test]
fn what_a_client_that_is_gone_left_unsaid_is_lacking() {
    let lacking =
        |text: &str| lacking(&description(PAIR), &Transcript::from_text(text)).map(str::to_owned);
    assert_eq!(lacking("a| hello\n"), None);
    assert_eq!(lacking("root| @gone a exit 0\n").as_deref(), Some("a"));
    // Lines of two PDs may come out of order.
    assert_eq!(lacking("root| @gone a exit 0\na| @check c pass\n"), None);
    assert_eq!(lacking("root| @gone b exit 0\n"), None);
    assert_eq!(lacking("root| @gone b exit 1\n").as_deref(), Some("b"));
    assert_eq!(
        lacking("root| @gone b fault read of 0x0\n").as_deref(),
        Some("b")
    );
    assert_eq!(lacking("root| @gone b stopped\n"), None);
}

#[test]
fn a_run_that_hangs_says_who_is_still_there() {
    let end = |text: &str, ending| {
        let verdict = verdict_on(PAIR, text, ending);
        let found = verdict
            .checks
            .into_iter()
            .find(|check| check.name == "host.end");
        found.map(|check| check.detail).unwrap_or_default()
    };
    let text = "a| @check c pass\na| waiting\nroot| @gone b exit 0\n";
    assert_eq!(
        end(text, Ending::TimedOut),
        "time is over (`timeout` in [machine]: 7 s): `a` has not ended, and said last, at 0.0 s: waiting"
    );
    assert_eq!(
        end("root| hello\nroot| @gone b exit 0\n", Ending::TimedOut),
        "time is over (`timeout` in [machine]: 7 s): `a` has not ended, and said nothing"
    );
    assert_eq!(
        end("root| @gone a exit 0\n", Ending::GivenUp),
        "given up 5 s after `a` had ended as it should not, or without what is expected of it"
    );
}
