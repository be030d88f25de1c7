//! Callers for Redis (RESP) and memcached (its text protocol): the requests in flight travel as one pipeline.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::latency::Latencies;
use crate::load::{Job, Meter, Protocol, Share, Target, Verb};
use crate::value::Values;

/// How many stores travel together while a server is filled.
const FILL_PIPELINE: usize = 32;

/// One connection with its pipeline.
struct Caller {
    socket: TcpStream,
    received: BytesMut,
    redis: bool,
    values: Values,
}

/// Stores all values, each once.
pub async fn fill(target: &Target, values: Values) -> Result<(), String> {
    let mut caller = Caller::connect(target, values).await?;
    for start in (0..values.keys).step_by(FILL_PIPELINE) {
        let end = values.keys.min(start + FILL_PIPELINE);
        let stores: Vec<u8> = (start..end).flat_map(|index| caller.store(index)).collect();
        caller.socket.write_all(&stores).await.map_err(|error| error.to_string())?;
        for _ in start..end {
            let line = caller.line().await?;
            if line != "+OK" && line != "STORED" {
                return Err(format!("a store was answered {line:?}"));
            }
        }
    }
    Ok(())
}

/// Keeps `connections` connections busy until the meter says stop; the latencies of each caller.
pub async fn call(target: &Target, job: Job, share: Share, meter: &Arc<Meter>) -> Result<Vec<Latencies>, String> {
    if job.verb != Verb::Get {
        return Err(format!("{} is not measured for this peer", job.verb.name()));
    }
    let mut callers = JoinSet::new();
    let gets: Vec<Bytes> =
        (0..job.values.keys).map(|index| get(matches!(target.protocol, Protocol::Redis), job.values, index)).collect();
    let gets = Arc::new(gets);
    for connection in 0..share.connections {
        let caller = Caller::connect(target, job.values).await?;
        meter.connected();
        let index = (share.seed + connection * 131) % job.values.keys;
        callers.spawn(caller.run(job.shape.in_flight, index, Arc::clone(&gets), Arc::clone(meter)));
    }
    let mut latencies = Vec::new();
    while let Some(caller) = callers.join_next().await {
        latencies.push(caller.map_err(|error| error.to_string())??);
    }
    Ok(latencies)
}

impl Caller {
    async fn connect(target: &Target, values: Values) -> Result<Self, String> {
        let socket = TcpStream::connect(target.address).await.map_err(|error| format!("connect: {error}"))?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let redis = matches!(target.protocol, Protocol::Redis);
        Ok(Self { socket, received: BytesMut::with_capacity(64 << 10), redis, values })
    }

    async fn run(
        mut self,
        depth: usize,
        mut index: usize,
        gets: Arc<Vec<Bytes>>,
        meter: Arc<Meter>,
    ) -> Result<Latencies, String> {
        let mut latencies = Latencies::default();
        let mut pipeline = Vec::new();
        while !meter.stopped() {
            pipeline.clear();
            let first = index;
            for _ in 0..depth {
                pipeline.extend_from_slice(&gets[index]);
                index = self.values.next(index);
            }
            let recording = meter.sending(depth);
            let asked = Instant::now();
            self.socket.write_all(&pipeline).await.map_err(|error| error.to_string())?;
            let mut answered = first;
            for _ in 0..depth {
                self.answer(answered).await?;
                answered = self.values.next(answered);
            }
            if recording {
                latencies.record(asked.elapsed());
            }
            meter.answered(depth);
        }
        Ok(latencies)
    }

    /// Reads one answer and checks its value.
    async fn answer(&mut self, index: usize) -> Result<(), String> {
        let line = self.line().await?;
        let length = if self.redis { line.strip_prefix('$') } else { line.rsplit(' ').next() };
        let Some(length) = length.and_then(|digits| digits.parse::<usize>().ok()) else {
            return Err(format!("a get was answered {line:?}"));
        };
        while self.received.len() < length + 2 {
            self.read().await?;
        }
        self.values.check(index, false, &self.received[..length])?;
        self.received.advance(length + 2);
        if !self.redis && self.line().await? != "END" {
            return Err("a get was answered with more than one value".into());
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.advance(end + 2);
                return Ok(line);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        match self.socket.read_buf(&mut self.received).await {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn store(&self, index: usize) -> Vec<u8> {
        let (key, value) = (self.values.key(index), self.values.value(index));
        let head = if self.redis {
            format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len())
        } else {
            format!("set {key} 0 0 {}\r\n", value.len())
        };
        [head.as_bytes(), &value, b"\r\n"].concat()
    }
}

fn get(redis: bool, values: Values, index: usize) -> Bytes {
    let key = values.key(index);
    if redis { format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()) } else { format!("get {key}\r\n") }.into()
}
