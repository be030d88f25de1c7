//! The admin port: plain HTTP for operators and probes that do not speak gRPC. `/livez`, `/readyz` (which says what is
//! missing), `/metrics` (Prometheus text) and `/members` (JSON). Reads only; needs no token, so keep it off public networks.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::readiness::Readiness;

/// Connections at once; a scraper and a few probes need two or three.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one connection may last: long enough for any scrape.
const CONNECTION_LIFE: Duration = Duration::from_secs(30);

/// Pause after a failed accept, so that a lack of file descriptors does not spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    pub readiness: Readiness,
    /// Whether the replica is draining.
    pub draining: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The metrics as Prometheus text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The members of the cluster as JSON.
    pub members: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Binds the port.
///
/// # Errors
/// When the address is taken or not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the pages until the future is dropped.
///
/// # Errors
/// When the runtime cannot watch the socket.
pub async fn serve(listener: std::net::TcpListener, pages: Pages) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return Err(io::Error::other("the admin port's semaphore was closed"));
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_BACK_OFF).await;
            continue;
        };
        let pages = pages.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &pages);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            // A client that breaks off is its own affair.
            let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
            drop(permit);
        });
    }
}

fn answer<B>(request: &Request<B>, pages: &Pages) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n".into());
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => ready(pages),
        "/metrics" => typed("application/openmetrics-text; version=1.0.0; charset=utf-8", (pages.metrics)()),
        "/members" => typed("application/json", (pages.members)()),
        _ => text(StatusCode::NOT_FOUND, "there is /livez, /readyz, /metrics and /members\n".into()),
    }
}

fn ready(pages: &Pages) -> Response<Full<Bytes>> {
    if (pages.draining)() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
    }
    if pages.readiness.is_ready() {
        return text(StatusCode::OK, "ok\n".into());
    }
    let missing = pages.readiness.missing().join(", ");
    text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {missing}\n"))
}

fn typed(kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn ask(pages: &Pages, path: &str) -> (u16, String) {
        let response = answer(&Request::get(path).body(()).unwrap(), pages);
        let status = response.status().as_u16();
        let body = futures::executor::block_on(response.into_body().collect()).unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn readyz_says_what_is_missing() {
        let readiness = Readiness::default();
        let token = readiness.token("accounts");
        let mut pages = Pages {
            readiness,
            draining: Arc::new(|| false),
            metrics: Arc::new(|| "# EOF\n".to_owned()),
            members: Arc::new(|| "{}".to_owned()),
        };
        assert_eq!(ask(&pages, "/readyz"), (503, "waiting for: accounts\n".into()));
        drop(token);
        assert_eq!(ask(&pages, "/readyz"), (200, "ok\n".into()));
        pages.draining = Arc::new(|| true);
        assert_eq!(ask(&pages, "/readyz"), (503, "draining\n".into()));
        assert_eq!(ask(&pages, "/livez").0, 200);
        assert_eq!(ask(&pages, "/metrics"), (200, "# EOF\n".into()));
        assert_eq!(ask(&pages, "/members"), (200, "{}".into()));
        assert_eq!(ask(&pages, "/").0, 404);
    }
}
