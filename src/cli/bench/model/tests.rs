use super::Change::{Delete, Store};
use super::Verdict::{Corrupt, Late, Lost, Right, Stale};
use super::*;

/// A step of a history. Reads are named, so that several may be under way.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(Change),
    /// Acknowledged, with this version.
    Ack(u64),
    Refuse,
    Forget,
    Ask(usize),
    /// The read sees the value of this write, with this version.
    See(usize, u64, u64, Verdict),
    SeeNothing(usize, Verdict),
    SeeSomething(usize, Verdict),
}

use Step::{Ack, Ask, Begin, Forget, Refuse, See, SeeNothing, SeeSomething};

/// Plays a history on a key that has value 1 with version 10.
#[track_caller]
fn history(name: &str, steps: &[Step]) -> Key {
    let (mut key, mut since) = (Key::default(), [Since::default(); 3]);
    for (at, step) in [Begin(Store), Ack(10)].iter().chain(steps).enumerate() {
        let said = |verdict, expected| assert_eq!(verdict, expected, "{name}: step {at}, {step:?}");
        match *step {
            Begin(change) => assert!(key.begin(change).is_some(), "{name}: two writers"),
            Ack(version) => key.end(Ended::Acknowledged { version }),
            Refuse => key.end(Ended::Refused),
            Forget => key.end(Ended::Unknown),
            Ask(read) => since[read] = key.since(),
            See(read, number, version, expected) => {
                said(key.judge(since[read], Seen::Value { number, version }), expected);
            }
            SeeNothing(read, expected) => said(key.judge(since[read], Seen::Nothing), expected),
            SeeSomething(read, expected) => said(key.judge(since[read], Seen::Something), expected),
        }
    }
    key
}

#[test]
fn what_is_right_is_not_accused() {
    let table: &[(&str, &[Step])] = &[
        ("the value is read", &[Ask(0), See(0, 1, 10, Right)]),
        (
            "a read beside a store may see either",
            &[Begin(Store), Ask(0), Ask(1), See(0, 1, 10, Right), See(1, 2, 20, Right)],
        ),
        ("a read that began before a store", &[Ask(0), Begin(Store), Ack(20), See(0, 1, 10, Right)]),
        ("the same, and it sees the new one", &[Ask(0), Begin(Store), Ack(20), See(0, 2, 20, Right)]),
        ("a deleted key has no value", &[Begin(Delete), Ack(0), Ask(0), SeeNothing(0, Right)]),
        ("a read beside a delete", &[Begin(Delete), Ask(0), Ask(1), See(0, 1, 10, Right), SeeNothing(1, Right)]),
        (
            "a read over a delete and a store",
            &[Ask(0), Begin(Delete), Ack(0), Begin(Store), Ack(30), SeeNothing(0, Right)],
        ),
        ("a refused store leaves the old value", &[Begin(Store), Refuse, Ask(0), See(0, 1, 10, Right)]),
        ("a refused delete leaves the old value", &[Begin(Delete), Refuse, Ask(0), See(0, 1, 10, Right)]),
        ("a touch finds the value", &[Ask(0), SeeSomething(0, Right)]),
        ("a touch beside a delete", &[Begin(Delete), Ask(0), SeeSomething(0, Right)]),
    ];
    for (name, steps) in table {
        history(name, steps);
    }
}

#[test]
fn lost_stale_and_corrupt_are_told_apart() {
    let table: &[(&str, &[Step])] = &[
        ("an acknowledged value is gone", &[Ask(0), SeeNothing(0, Lost)]),
        ("a loss is counted once", &[Ask(0), SeeNothing(0, Lost), Ask(0), SeeNothing(0, Right)]),
        (
            "and again after the next store",
            &[Ask(0), SeeNothing(0, Lost), Begin(Store), Ack(20), Ask(0), SeeNothing(0, Lost)],
        ),
        ("a refused delete takes nothing away", &[Begin(Delete), Refuse, Ask(0), SeeNothing(0, Lost)]),
        ("a touch finds nothing", &[Begin(Store), Ack(20), Ask(0), SeeNothing(0, Lost)]),
        ("an overwritten value", &[Begin(Store), Ack(20), Ask(0), See(0, 1, 10, Stale)]),
        ("back after it was read", &[Begin(Store), Ask(0), See(0, 2, 20, Right), Ask(1), See(1, 1, 10, Stale)]),
        ("a deleted value", &[Begin(Delete), Ack(0), Ask(0), See(0, 1, 10, Stale)]),
        ("a touch finds a deleted value", &[Begin(Delete), Ack(0), Ask(0), SeeSomething(0, Stale)]),
        ("a delete that was seen", &[Begin(Delete), Ask(0), SeeNothing(0, Right), Ask(1), See(1, 1, 10, Stale)]),
        ("a value that nobody stored", &[Ask(0), See(0, 2, 20, Corrupt)]),
        ("no number at all", &[Ask(0), See(0, 0, 20, Corrupt)]),
        ("a value whose store was refused", &[Begin(Store), Refuse, Ask(0), See(0, 2, 20, Corrupt)]),
        ("the value of a delete", &[Begin(Delete), Ask(0), See(0, 2, 20, Corrupt)]),
    ];
    for (name, steps) in table {
        history(name, steps);
    }
}

#[test]
fn a_write_in_doubt_may_have_been_applied_or_not() {
    let stores: &[(&str, &[Step])] = &[
        ("it was not", &[Begin(Store), Forget, Ask(0), See(0, 1, 10, Right)]),
        ("it was", &[Begin(Store), Forget, Ask(0), See(0, 2, 20, Right)]),
        ("it was, later", &[Begin(Store), Forget, Ask(0), See(0, 1, 10, Right), Ask(0), See(0, 2, 20, Right)]),
        ("once seen it stays", &[Begin(Store), Forget, Ask(0), See(0, 2, 20, Right), Ask(0), See(0, 1, 10, Stale)]),
        ("nothing is still lost", &[Begin(Store), Forget, Ask(0), SeeNothing(0, Lost)]),
        ("an older one is still stale", &[Begin(Store), Ack(20), Begin(Store), Forget, Ask(0), See(0, 1, 10, Stale)]),
        ("late, after the next", &[Begin(Store), Forget, Begin(Store), Ack(30), Ask(0), See(0, 2, 40, Late)]),
        (
            "before the next, and seen after it",
            &[Begin(Store), Forget, Begin(Store), Ack(30), Ask(0), See(0, 2, 20, Stale)],
        ),
    ];
    for (name, steps) in stores {
        assert!(history(name, steps).doubtful(), "{name}");
    }
    let deletes: &[(&str, &[Step])] = &[
        ("it was not", &[Begin(Delete), Forget, Ask(0), See(0, 1, 10, Right)]),
        ("it was", &[Begin(Delete), Forget, Ask(0), SeeNothing(0, Right)]),
        ("once seen it stays", &[Begin(Delete), Forget, Ask(0), SeeNothing(0, Right), Ask(0), See(0, 1, 10, Stale)]),
        ("late, after the next", &[Begin(Delete), Forget, Begin(Store), Ack(30), Ask(0), SeeNothing(0, Late)]),
    ];
    for (name, steps) in deletes {
        history(name, steps);
    }
}

#[test]
fn a_key_with_too_much_in_doubt_is_retired() {
    let mut key = history("nothing is wrong yet", &[]);
    for _ in 0..=MAX_IN_DOUBT {
        key.begin(Store).unwrap();
        key.end(Ended::Unknown);
    }
    assert_eq!(key.judge(key.since(), Seen::Nothing), Right);
    assert_eq!(key.judge(key.since(), Seen::Value { number: 0, version: 1 }), Corrupt);
}

#[test]
fn a_key_has_one_writer() {
    let mut key = Key::default();
    assert_eq!(key.begin(Store), Some(1));
    assert_eq!(key.begin(Delete), None);
    key.end(Ended::Refused);
    assert_eq!(key.begin(Store), Some(2));
}
