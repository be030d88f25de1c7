//! A client that says exactly what it is told, also what no gRPC library would.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};

use crate::support::{TOKEN, TestServer};

/// A connection.
pub struct Raw(SendRequest<Bytes>);

/// What came back, whole.
#[derive(Debug)]
pub struct Answer {
    pub http: StatusCode,
    /// Headers and trailers together.
    pub fields: HeaderMap,
}

impl Raw {
    pub async fn connect(server: &TestServer) -> Self {
        let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let (send, connection) = h2::client::Builder::new().handshake(socket).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// A connection whose client gives no stream a window: it reads nothing.
    pub async fn connect_and_read_nothing(server: &TestServer) -> Self {
        let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let (send, connection) = h2::client::Builder::new().initial_window_size(0).handshake(socket).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// Begins a call of `method` with more headers, and leaves its body to the caller.
    pub async fn begin(&self, method: &str, headers: &[(&str, &str)]) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://larder/{method}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut send = self.0.clone().ready().await.unwrap();
        send.send_request(request.body(()).unwrap(), false).unwrap()
    }

    /// A whole call of account `one` with a body as it stands.
    pub async fn call(&self, method: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let (response, mut send) = self.begin(method, &all).await;
        // The server may have answered before it has read everything.
        let _ = send.send_data(body.into(), true);
        answer(response.await.unwrap()).await
    }
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn code(&self) -> tonic::Code {
        tonic::Code::from_bytes(self.field("grpc-status").expect("a gRPC answer").as_bytes())
    }

    pub fn reason(&self) -> &'static str {
        let status = tonic::Status::from_header_map(&self.fields).expect("a gRPC answer");
        larder::rpc::status::failure_of(&status).reason()
    }
}

/// Reads an answer to its end.
pub async fn answer(response: Response<RecvStream>) -> Answer {
    let (head, mut stream) = response.into_parts();
    while let Some(data) = stream.data().await {
        let Ok(data) = data else { break };
        stream.flow_control().release_capacity(data.len()).unwrap();
    }
    let mut fields = head.headers;
    fields.extend(stream.trailers().await.ok().flatten().unwrap_or_default());
    Answer { http: head.status, fields }
}

/// A message with its prefix.
pub fn frame(message: &impl prost::Message) -> Bytes {
    framed(0, &message.encode_to_vec())
}

pub fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = vec![flag];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}
