use std::sync::atomic::Ordering::Relaxed;

use super::*;

/// A tracer whose spans nobody takes away.
fn tracer(sampler: &str, queue: usize) -> Tracer {
    Tracer { sampler: Sampler::new(sampler, None).unwrap(), queue: Arc::new(Queue::new(queue, 100)) }
}

fn parent(flags: u8) -> Trace {
    Trace::new([7; 16], [8; 8], flags)
}

#[test]
fn what_is_not_sampled_passes_on_what_its_caller_said() {
    let tracer = tracer("parentbased_always_off", 10);
    assert!(matches!(tracer.server("a", None), Traced::No));
    let traced = tracer.server("a", Some(parent(0)));
    assert_eq!((traced.span().is_some(), traced.context()), (false, Some(&parent(0))));
    assert_eq!(traced.child(Kind::Client, "b").context(), Some(&parent(0)));
    assert!(tracer.queue.take().is_empty());
}

#[test]
fn a_child_is_in_its_parents_trace_and_only_the_first_is_another_processs() {
    let tracer = tracer("parentbased_always_off", 10);
    let call = tracer.server("call", Some(parent(1)));
    let way = call.child(Kind::Client, "way");
    let [call_place, way_place] = [&call, &way].map(|traced| traced.context().unwrap().clone());
    assert!(call_place.trace_id == [7; 16] && way_place.trace_id == [7; 16] && way_place.is_sampled());
    way.span().unwrap().end(Code::Unavailable);
    call.span().unwrap().end(Code::NotFound);
    let ended = tracer.queue.take();
    assert_eq!([ended[0].parent, ended[1].parent], [Some((call_place.span_id, false)), Some(([8; 8], true))]);
    assert_eq!([ended[0].failed, ended[1].failed], [true, false], "a miss is no fault");
}

#[test]
fn a_span_ends_once_and_also_when_it_is_dropped() {
    let tracer = tracer("always_on", 10);
    let span = tracer.server("a", None).span().unwrap().clone();
    span.clone().end(Code::Ok);
    span.note("late", "1");
    span.end(Code::Internal);
    drop(span);
    drop(tracer.server("b", None));
    let discarded = tracer.server("c", None);
    discarded.span().unwrap().discard();
    drop(discarded);
    let ended = tracer.queue.take();
    let told: Vec<_> = ended.iter().map(|span| (span.name, span.attributes.clone())).collect();
    let code = |word| vec![(names::STATUS_CODE, Value::Word(word))];
    assert_eq!(told, [("a", code("OK")), ("b", code("CANCELLED"))]);
}

#[test]
fn the_last_outcome_counts_and_a_guess_only_where_there_is_none() {
    let tracer = tracer("always_on", 10);
    for (told, guess, expected) in
        [(&[Outcome::Forwarded, Outcome::Fetched][..], Outcome::Hit, "fetched"), (&[], Outcome::Miss, "miss")]
    {
        let span = tracer.server("a", None).span().unwrap().clone();
        for outcome in told {
            span.outcome(*outcome);
        }
        span.outcome_unless_known(guess);
        span.end_without_code();
        assert_eq!(tracer.queue.take()[0].attributes, [(names::RESULT, Value::Word(expected))]);
    }
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let tracer = tracer("always_on", 2);
    for _ in 0..5 {
        tracer.server("a", None).span().unwrap().end(Code::Ok);
    }
    assert_eq!((tracer.counts().dropped.load(Relaxed), tracer.queue.take().len()), (3, 2));
    tracer.queue.close();
    drop(tracer.server("a", None));
    assert_eq!(tracer.counts().dropped.load(Relaxed), 4);
}
