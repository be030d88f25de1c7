//! The part of a connection's life in which HTTP/2 is spoken.

use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until};

use super::activity::Activity;
use super::streams::Streams;
use super::watchdog::{Cause, Seen, Verdict, Watchdog};
use super::{Io, Make};
use crate::server::accept::{Ended, WireConfig, WireStats};
use crate::server::drain::{self, Phase};

/// hyper gives up a connection whose PING stays unanswered for this long. Ours is the judgement (`watchdog`), so: never.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// hyper asks for a service by shared reference; ours are cloned for each request, as tower's are.
struct Shared<S>(S);

impl<S, B> hyper::service::Service<http::Request<hyper::body::Incoming>> for Shared<S>
where
    S: tower::Service<http::Request<hyper::body::Incoming>, Response = http::Response<B>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: http::Request<hyper::body::Incoming>) -> S::Future {
        self.0.clone().call(request)
    }
}

/// Serves until the client goes, or is made to. `leave` tells the connection's streams when it says GOAWAY.
pub(super) async fn serve<M: Make>(
    io: impl Io,
    service: M::Service,
    config: &WireConfig,
    activity: &Activity,
    (mut drain, hold, leave): (drain::Watch, drain::Hold, drain::Trigger),
    stats: &WireStats,
) -> Ended {
    let streams = Streams::new(hold);
    let connection = builder(config, streams.clone()).serve_connection(TokioIo::new(io), Shared(service));
    let mut connection = pin!(connection);
    let mut watchdog = Watchdog::new(config, Instant::now(), rand::random());
    let mut seen_phase = Phase::Running;
    let mut look_at = pin!(sleep_until(Instant::now()));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return if ended.is_ok() { Ended::Normally } else { Ended::Failed },
            () = look_at.as_mut() => {}
            phase = drain.changed(seen_phase) => {
                seen_phase = phase;
                match phase {
                    Phase::Running => {}
                    Phase::Draining { .. } => {
                        watchdog.draining();
                        leave.start(Duration::ZERO);
                        connection.as_mut().graceful_shutdown();
                    }
                    Phase::Forced => return Ended::Drained,
                }
            }
        }
        match watchdog.judge(&see(activity, &streams)) {
            Verdict::Wait(at) => look_at.as_mut().reset(at),
            Verdict::Cut(ended) => return ended,
            Verdict::GoAway(cause) => {
                match cause {
                    Cause::Age => stats.count_goaway_for_age(),
                    Cause::Idleness => stats.count_goaway_for_idleness(),
                }
                leave.start(config.connection_age_grace);
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn see(activity: &Activity, streams: &Streams) -> Seen {
    Seen {
        now: Instant::now(),
        alive_at: activity.alive_at(),
        stalled_since: activity.stalled_since(),
        partial_since: activity.partial_since(),
        idle_since: streams.idle_since(),
    }
}

fn builder(config: &WireConfig, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(config.max_streams)
        .max_pending_accept_reset_streams(config.max_pending_resets)
        .max_local_error_reset_streams(config.max_local_resets)
        .max_header_list_size(config.max_header_bytes)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(NEVER)
        .max_send_buf_size(config.send_buffer_bytes)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes);
    builder
}
