//! F11: whatever is done to the recorded events on their way, the ring is right.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::super::recording::{Event, Recording, Truth, selection};
use super::super::{Family, Selection, View};
use super::ring;
use crate::cluster::hold_back::HoldBack;
use crate::ownership::member::{MemberId, Uid};
use crate::ownership::snapshot::Snapshot;

fn list(recording: &Recording, selection: &Selection) -> View {
    let slices: Vec<_> = recording.list.iter().map(super::slice).collect();
    let reading = selection.list(&recording.list_version().to_string(), &slices).unwrap();
    assert_eq!(reading.oddities, []);
    reading.view
}

fn hear(view: &View, event: &Event, selection: &Selection) -> View {
    let reading = match event.kind.as_str() {
        "DELETED" => selection.deleted(&event.slice()),
        _ => selection.applied(&event.slice()),
    };
    let Some(reading) = reading.unwrap() else { return view.clone() };
    assert_eq!(reading.oddities, []);
    view.merge(&reading.view)
}

#[test]
fn at_each_event_the_ring_is_exactly_who_serves_and_does_not_terminate() {
    for recording in Recording::all() {
        let families: &[Family] =
            if recording.name == "dual_stack_3" { &[Family::Ipv4, Family::Ipv6] } else { &[Family::Ipv4] };
        for family in families {
            let selection = selection(*family);
            let (mut view, mut truth) = (list(&recording, &selection), recording.beginning());
            let mut was_served = false;
            for event in &recording.events {
                view = hear(&view, event, &selection);
                truth.hear(event);
                let members = ring(&view);
                assert_eq!(members, truth.ring(*family), "{} at {:?}", recording.name, event.at);
                let present: Vec<_> = view.endpoints().into_keys().map(|uid| uid.to_string()).collect();
                assert_eq!(present, truth.uids(*family).into_iter().collect::<Vec<_>>(), "in any condition");
                was_served |= !members.is_empty();
                let was_deleted = recording.deleted_at.is_some_and(|at| event.at >= at);
                assert!(!members.is_empty() || !was_served || was_deleted, "{}: never empty", recording.name);
            }
            assert!(was_served);
        }
    }
}

#[test]
fn the_recordings_end_as_they_are_known_to_end() {
    for (name, members) in [
        ("dual_stack_3", &["10.50.0.2:7000", "10.50.0.3:7000"][..]),
        ("named_port_change_rolling_3", &["10.50.0.18:7001", "10.50.0.19:7001", "10.50.0.20:7001"]),
        ("ordered_3_5_2", &[]),
        ("parallel_3_5_2", &[]),
        ("rolling_update_3", &["10.50.0.15:7000", "10.50.0.16:7000", "10.50.0.17:7000"]),
    ] {
        let (recording, selection) = (Recording::read(name), selection(Family::Ipv4));
        let view =
            recording.events.iter().fold(list(&recording, &selection), |view, event| hear(&view, event, &selection));
        assert_eq!(ring(&view), members, "{name}");
    }
}

/// The replicas' own word: who terminates has said so, and who is gone has left.
fn marked(known: &View, truth: &Truth) -> View {
    let present = truth.uids(Family::Ipv4);
    let mut view = known.clone();
    for (uid, endpoint) in known.endpoints() {
        let id = MemberId { uid: uid.clone(), boot: 1 };
        view = view.with_boot(&id);
        if !present.contains(uid.as_str()) {
            view = view.with_leaving(&id).with_left(&id);
        } else if endpoint.serves && !truth.ring(Family::Ipv4).contains(&endpoint.address.to_string()) {
            view = view.with_leaving(&id);
        }
    }
    view
}

#[test]
fn holding_back_delays_no_member_that_says_what_it_does() {
    for recording in Recording::all() {
        let selection = selection(Family::Ipv4);
        let (mut source, mut truth) = (list(&recording, &selection), recording.beginning());
        let (mut hold, mut known) = (HoldBack::default(), source.clone());
        for event in &recording.events {
            source = hear(&source, event, &selection);
            truth.hear(event);
            known = marked(&known, &truth);
            let now_ms = u64::try_from(event.at.as_millis()).unwrap();
            let news = Arc::new(source.clone());
            if let Some(view) = hold.release(&news, &Snapshot::new(known.clone()), &|_| true, now_ms) {
                known = known.merge(&view);
            }
            assert_eq!(hold.held_since_ms(), None, "{} at {:?}", recording.name, event.at);
            assert_eq!(ring(&known), truth.ring(Family::Ipv4), "{} at {:?}", recording.name, event.at);
        }
    }
}

#[test]
fn the_ring_never_shrinks_by_more_than_half_while_its_members_answer_and_say_nothing() {
    for recording in Recording::all() {
        let selection = selection(Family::Ipv4);
        let (mut source, mut truth) = (list(&recording, &selection), recording.beginning());
        let (mut hold, mut known) = (HoldBack::default(), Snapshot::new(source.clone()));
        let mut release = |source: &View, truth: &Truth, known: &mut Snapshot, at: Duration| {
            let alive = truth.uids(Family::Ipv4);
            let (news, now_ms) = (Arc::new(source.clone()), u64::try_from(at.as_millis()).unwrap());
            let before = known.ring().members().len();
            let answers = |uid: &Uid| alive.contains(uid.as_str());
            if let Some(view) = hold.release(&news, known, &answers, now_ms) {
                let of_the_dead = known.present().filter(|member| !answers(&member.id.uid)).count();
                *known = Snapshot::new(known.view().merge(&view));
                let shrunk = before.saturating_sub(known.ring().members().len());
                assert!(shrunk * 2 <= before || shrunk <= of_the_dead, "{} at {at:?}", recording.name);
            }
        };
        for event in &recording.events {
            source = hear(&source, event, &selection);
            truth.hear(event);
            release(&source, &truth, &mut known, event.at);
        }
        release(&source, &truth, &mut known, Duration::from_secs(60));
        assert_eq!(ring(known.view()), truth.ring(Family::Ipv4), "{}", recording.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// `order` picks, at each step, the slice whose next event comes; `again` repeats one that came before.
    #[test]
    fn events_that_come_twice_and_in_another_order_between_slices_come_to_the_same(
        which in 0..5_usize,
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<Option<prop::sample::Index>>()), 64),
    ) {
        let recording = Recording::all().nth(which).unwrap();
        let selection = selection(Family::Ipv4);
        let mut queues: Vec<Vec<Event>> = Vec::new();
        for event in recording.events.iter().rev() {
            let name = |event: &Event| event.slice().metadata.name;
            match queues.iter_mut().find(|queue| name(&queue[0]) == name(event)) {
                Some(queue) => queue.push(event.clone()),
                None => queues.push(vec![event.clone()]),
            }
        }
        let (mut view, mut truth) = (list(&recording, &selection), recording.beginning());
        let mut came: Vec<Event> = Vec::new();
        for (next, again) in order {
            queues.retain(|queue| !queue.is_empty());
            if queues.is_empty() {
                break;
            }
            let event = next.get_mut(&mut queues).pop().unwrap();
            came.push(event.clone());
            let repeated = again.map(|again| again.get(&came).clone());
            for event in repeated.into_iter().chain([event]) {
                view = hear(&view, &event, &selection);
                truth.hear(&event);
                prop_assert_eq!(ring(&view), truth.ring(Family::Ipv4));
            }
        }
        queues.retain(|queue| !queue.is_empty());
        prop_assert!(queues.is_empty(), "all events came");
        let in_order = recording.events.iter();
        let in_order = in_order.fold(list(&recording, &selection), |view, event| hear(&view, event, &selection));
        prop_assert_eq!(view, in_order);
    }
}
