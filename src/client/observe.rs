//! What a program hears of its calls, for traces and metrics.
//!
//! Not tower layers: a call that shares a message with others is no HTTP request (docs/adr/0009). Names are the server's own,
//! so that a call is found by one name at both ends.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::Code;

use super::error::Error;

/// Is told of each call, on the task that makes it; must be quick.
///
/// ```
/// use larder::client::{EndedCall, Observer, TraceContext};
///
/// #[derive(Debug)]
/// struct Slow;
///
/// impl Observer for Slow {
///     fn begin(&self, _method: &'static str) -> Option<TraceContext> {
///         let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
///         Some(TraceContext { traceparent, tracestate: String::new() })
///     }
///
///     fn end(&self, call: &EndedCall<'_>) {
///         if call.duration.as_millis() > 100 {
///             println!("{} took {:?} and {} attempts", call.method, call.duration, call.attempts);
///         }
///     }
/// }
/// ```
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// A call begins; what is answered travels with it to every replica that has to do with it.
    fn begin(&self, method: &'static str) -> Option<TraceContext> {
        let _ = method;
        None
    }

    /// It has ended. One whose caller stopped waiting does not.
    fn end(&self, call: &EndedCall<'_>);
}

/// W3C trace context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    pub traceparent: String,
    /// May be empty.
    pub tracestate: String,
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedCall<'a> {
    /// As the server names it: `larder.v1.Cache/Get`.
    pub method: &'static str,
    /// A read that finds nothing is [`Code::NotFound`], here as at the server.
    pub code: Code,
    /// From the call to its outcome, retries included.
    pub duration: Duration,
    /// How often it was tried; 1 unless it failed at least once.
    pub attempts: u32,
    /// What was begun with it.
    pub trace: Option<&'a TraceContext>,
    /// Why it failed.
    pub error: Option<&'a Error>,
}

/// Counts calls, and writes them as Prometheus text under the server's names, with `client` in place of nothing:
/// `larder_client_calls_total{method,code}` and `larder_client_call_duration_seconds_{sum,count}{method}`.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<(&'static str, i32), Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    calls: u64,
    attempts: u64,
    duration: Duration,
}

impl Counters {
    /// What was counted, as lines of Prometheus text.
    #[must_use]
    pub fn text(&self) -> String {
        use std::fmt::Write as _;

        let counts = self.0.lock().clone();
        let mut text = String::new();
        let mut methods: BTreeMap<&str, Count> = BTreeMap::new();
        for ((method, code), count) in &counts {
            let code = Code::from(*code);
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, r#"larder_client_calls_total{{method="{method}",code="{code:?}"}} {}"#, count.calls);
            let all = methods.entry(method).or_default();
            all.calls += count.calls;
            all.attempts += count.attempts;
            all.duration += count.duration;
        }
        for (method, all) in methods {
            let (seconds, retries) = (all.duration.as_secs_f64(), all.attempts - all.calls);
            let _ = writeln!(text, r#"larder_client_call_duration_seconds_sum{{method="{method}"}} {seconds}"#);
            let _ = writeln!(text, r#"larder_client_call_duration_seconds_count{{method="{method}"}} {}"#, all.calls);
            let _ = writeln!(text, r#"larder_client_retries_total{{method="{method}"}} {retries}"#);
        }
        text
    }
}

impl Observer for Counters {
    fn end(&self, call: &EndedCall<'_>) {
        let mut counts = self.0.lock();
        let count = counts.entry((call.method, call.code as i32)).or_default();
        count.calls += 1;
        count.attempts += u64::from(call.attempts);
        count.duration += call.duration;
    }
}
