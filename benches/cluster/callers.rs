//! The load: a closed loop of Gets over chosen keys at one replica.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::rpc::proto::v1;
use prost::Message as _;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::grpc::{connect, framed, request_to, unary};
use crate::latency::Latencies;
use crate::replicas::Replicas;
use crate::value::Values;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 16;
const WARM_UP: Duration = Duration::from_millis(300);

/// Gets of some keys at one replica.
pub struct Load {
    pub address: SocketAddr,
    pub token: String,
    pub values: Values,
    /// Indices of keys.
    pub keys: Vec<usize>,
    pub window: Duration,
}

/// What was seen in one window.
pub struct Seen {
    /// Microseconds of all replicas' CPU per Get.
    pub cpu_us: f64,
    pub latencies: Latencies,
}

impl Load {
    /// Runs one window.
    pub fn run(&self, replicas: &Replicas) -> Result<Seen, String> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(self.window(replicas))
    }

    async fn window(&self, replicas: &Replicas) -> Result<Seen, String> {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let messages: Arc<Vec<(usize, Bytes)>> =
            Arc::new(self.keys.iter().map(|key| (*key, message(self.values, *key))).collect());
        let mut callers = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let opened = connect(self.address).await?;
            for caller in 0..IN_FLIGHT {
                let (opened, messages) = (opened.clone(), Arc::clone(&messages));
                let (stop, answered, values) = (Arc::clone(&stop), Arc::clone(&answered), self.values);
                let request = request_to(self.address, "/larder.v1.Cache/Get", &self.token)?;
                callers.spawn(async move {
                    let (mut latencies, mut at) = (Latencies::default(), connection * 131 + caller * 17);
                    while !stop.load(Relaxed) {
                        let (index, message) = &messages[at % messages.len()];
                        let asked = Instant::now();
                        let answer = unary(&opened, &request, message.clone()).await?;
                        latencies.record(asked.elapsed());
                        check(values, *index, answer)?;
                        answered.fetch_add(1, Relaxed);
                        at += 7919;
                    }
                    Ok::<_, String>(latencies)
                });
            }
        }
        tokio::time::sleep(WARM_UP).await;
        let (cpu, items) = (replicas.cpu()?, answered.load(Relaxed));
        tokio::time::sleep(self.window).await;
        let (cpu, items) = (replicas.cpu()?.saturating_sub(cpu), answered.load(Relaxed) - items);
        stop.store(true, Relaxed);
        let mut latencies = Latencies::default();
        while let Some(caller) = callers.join_next().await {
            latencies.merge(&caller.map_err(|error| error.to_string())??);
        }
        if items == 0 {
            return Err("nothing was answered in the window".into());
        }
        Ok(Seen { cpu_us: cpu.as_secs_f64() * 1e6 / items as f64, latencies })
    }
}

/// Gets these keys at one replica, one after the other.
pub fn get_all(address: SocketAddr, token: &str, values: Values, keys: &[usize]) -> Result<Latencies, String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let connection = connect(address).await?;
        let request = request_to(address, "/larder.v1.Cache/Get", token)?;
        let mut latencies = Latencies::default();
        for index in keys {
            let asked = Instant::now();
            let answer = unary(&connection, &request, message(values, *index)).await?;
            latencies.record(asked.elapsed());
            check(values, *index, answer)?;
        }
        Ok(latencies)
    })
}

/// The request for a key.
pub fn message(values: Values, index: usize) -> Bytes {
    framed(&v1::GetRequest { key: values.key(index) }.encode_to_vec())
}

/// Whether an answer is this key's.
pub fn check(values: Values, index: usize, answer: Bytes) -> Result<(), String> {
    let got = v1::GetResponse::decode(answer).map_err(|error| error.to_string())?;
    values.check(index, false, &got.val)
}
