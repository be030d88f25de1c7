//! What a watch says, a line each.
//!
//! Not `Api::watch`: it passes over a line that ends too early, wherever it is. The last one may, when the connection ends within it, and
//! is said again to the next watch. Any other is news that nobody would hear again, as the versions after it go on.

use futures::io::Lines;
use futures::{AsyncBufRead, AsyncBufReadExt as _, StreamExt as _};
use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{WatchEvent, WatchParams};
use kube::core::{Request, Status};
use kube::{Api, Error};

/// The events of one watch.
pub struct Events<R> {
    lines: Lines<R>,
    /// The last line ended too early.
    cut: Option<serde_json::Error>,
}

/// Begins a watch that goes on from `version`.
///
/// # Errors
/// When the API server cannot be reached, or refuses it.
pub async fn begin(
    api: &Api<EndpointSlice>,
    params: &WatchParams,
    version: &str,
) -> Result<Events<impl AsyncBufRead + Unpin + use<>>, Error> {
    let mut request = Request::new(api.resource_url()).watch(params, version).map_err(Error::BuildRequest)?;
    // As kube does: a server compresses each event by itself, and only the first would be read.
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let stream = api.clone().into_client().request_stream(request).await?;
    Ok(Events { lines: Box::pin(stream).lines(), cut: None })
}

impl<R: AsyncBufRead + Unpin> Events<R> {
    /// The next one; none at the end.
    pub async fn next(&mut self) -> Option<Result<WatchEvent<EndpointSlice>, Error>> {
        loop {
            let line = match self.lines.next().await? {
                Ok(line) => line,
                Err(error) => return Some(Err(Error::ReadEvents(error))),
            };
            if let Some(cut) = self.cut.take() {
                return Some(Err(Error::SerdeError(cut)));
            }
            match serde_json::from_str(&line) {
                Ok(event) => return Some(Ok(event)),
                Err(error) if error.is_eof() => self.cut = Some(error),
                Err(error) => {
                    let status = serde_json::from_str::<Status>(&line).ok().filter(|status| status.code != 0);
                    return Some(Err(status.map_or(Error::SerdeError(error), |status| Error::Api(status.boxed()))));
                }
            }
        }
    }
}
