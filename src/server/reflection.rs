//! Server reflection, of Larder's own protos and the standard health service: `grpc.reflection.v1`, and `v1alpha`, which
//! Python's own client and older tools ask for. The two differ in nothing but the name.

use std::convert::Infallible;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use tower::util::BoxCloneSyncService;
use tower::{Service as _, ServiceExt as _};

use crate::rpc::proto::DESCRIPTORS;

/// What the service is asked by, whichever of its names a client used.
const PATH: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Reflection(Option<BoxCloneSyncService<Request<Incoming>, Response<tonic::body::Body>, Infallible>>);

impl Reflection {
    #[must_use]
    pub fn new() -> Self {
        let built = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1();
        // The descriptors are compiled in; a test asks for them.
        debug_assert!(built.is_ok(), "the compiled descriptors cannot be read");
        Self(built.ok().map(BoxCloneSyncService::new))
    }

    /// Answers a reflection call; `None` when there is no reflection.
    pub async fn call(&self, mut request: Request<Incoming>) -> Option<Response<tonic::body::Body>> {
        let mut service = self.0.clone()?;
        *request.uri_mut() = Uri::from_static(PATH);
        Some(match service.ready().await {
            Ok(ready) => ready.call(request).await.unwrap_or_else(|never| match never {}),
            Err(never) => match never {},
        })
    }
}

impl Default for Reflection {
    fn default() -> Self {
        Self::new()
    }
}
