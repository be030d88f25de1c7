//! How the commands talk to the `larder dev` that runs: a line of JSON each way, over a socket that only this user can reach.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fleet::Member;
use super::supervisor::Supervisor;

/// Of a request or an answer.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Commands that are connected at once.
const MAX_COMMANDS: usize = 16;

/// How long a command that has connected may take to say what it wants.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// What a command wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    Scale { replicas: u16, limit: Duration },
    Restart { limit: Duration },
    Kill { number: u16, limit: Duration },
    Show,
}

/// What it is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Done(String),
    Failed(String),
    Replicas(Vec<Shown>),
}

/// One replica, as a command shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    pub number: u16,
    pub uid: String,
    pub state: String,
    pub on_ring: bool,
    pub grpc: String,
    pub admin: String,
    pub pid: Option<i32>,
    pub starts: u32,
}

/// Takes commands until it is dropped.
pub async fn serve(listener: UnixListener, supervisor: Arc<Supervisor>) {
    let permits = Arc::new(Semaphore::new(MAX_COMMANDS));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        if let Ok((stream, _)) = listener.accept().await {
            let supervisor = Arc::clone(&supervisor);
            tokio::spawn(async move {
                // One that has hung up is not told; what it wanted is done all the same.
                let _ = answer(stream, &supervisor).await;
                drop(permit);
            });
        }
    }
}

/// Asks the one that runs.
pub async fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket).await?;
    write(&mut stream, request).await?;
    let line = read(&mut stream).await?;
    Ok(serde_json::from_slice(&line)?)
}

async fn answer(mut stream: UnixStream, supervisor: &Arc<Supervisor>) -> io::Result<()> {
    let line = timeout(REQUEST_LIMIT, read(&mut stream)).await??;
    let done = match serde_json::from_slice(&line) {
        Ok(Request::Scale { replicas, limit }) => supervisor.scale(replicas, limit).await,
        Ok(Request::Restart { limit }) => supervisor.restart(limit).await,
        Ok(Request::Kill { number, limit }) => supervisor.kill_one(number, limit).await,
        Ok(Request::Show) => {
            let shown = supervisor.fleet().members().iter().map(Shown::from).collect();
            return write(&mut stream, &Answer::Replicas(shown)).await;
        }
        Err(error) => return write(&mut stream, &Answer::Failed(format!("not understood: {error}"))).await,
    };
    let answer = match done {
        Ok(what) => Answer::Done(what),
        Err(trouble) => Answer::Failed(trouble.to_string()),
    };
    write(&mut stream, &answer).await
}

async fn read(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE_BYTES)).read_until(b'\n', &mut line).await?;
    if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
}

async fn write(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

impl From<&Member> for Shown {
    fn from(member: &Member) -> Self {
        Self {
            number: member.number,
            uid: member.uid.to_string(),
            state: member.state().to_owned(),
            on_ring: member.serving && !member.terminating,
            grpc: member.ports.grpc().to_string(),
            admin: member.ports.admin().to_string(),
            pid: member.pid,
            starts: member.starts,
        }
    }
}
